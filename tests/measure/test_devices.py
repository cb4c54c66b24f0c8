"""Device specifications: names that drivers report resolve, unknown ones stay unknown."""

import json
import subprocess
import sys

import pytest

from autotune_rlm import devices
from autotune_rlm.types import Device


@pytest.fixture(autouse=True)
def _own_config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(devices, "_registered", {})
    devices._index.cache_clear()
    yield
    devices._index.cache_clear()


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("H100", "NVIDIA H100"),
        ("nvidia h100", "NVIDIA H100"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100"),
        ("NVIDIA H100 PCIe", "NVIDIA H100 PCIe"),
        ("NVIDIA H200", "NVIDIA H200"),
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB"),
        ("NVIDIA A100 80GB PCIe", "NVIDIA A100 80GB"),
        ("Tesla V100-SXM2-16GB", "NVIDIA V100 SXM2"),
        ("Tesla V100-PCIE-32GB", "NVIDIA V100"),
        ("Tesla T4", "NVIDIA T4"),
        ("NVIDIA GeForce RTX 4090", "NVIDIA RTX 4090"),
        ("rtx4090", "NVIDIA RTX 4090"),
        ("NVIDIA GeForce RTX 2080 Ti", "NVIDIA RTX 2080 Ti"),
        ("NVIDIA A10G", "NVIDIA A10G"),
        ("A6000", "NVIDIA RTX A6000"),
        ("AMD Instinct MI300X", "AMD MI300X"),
        ("AMD Instinct MI300X VF", "AMD MI300X"),
        ("AMD Radeon RX 7900 XTX", "AMD Radeon RX 7900 XTX"),
        ("GeForce GTX TITAN X", "NVIDIA GTX Titan X"),
        ("Intel(R) Data Center GPU Max 1550", "Intel Data Center GPU Max 1550"),
    ],
)
def test_names_that_drivers_report(name, canonical):
    assert devices.lookup(name).name == canonical
    assert devices.lookup(name).sms


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA TITAN X (Pascal)",
        "Frobnicator 9000",
        "NVIDIA",
        "GPU",
    ],
)
def test_variants_and_unknown_devices_get_no_figures(name):
    assert devices.lookup(name) == Device(name=name)


def test_empty_name_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="NVIDIA H100"):
        devices.lookup(" ")


def test_every_entry_is_complete_and_found_by_its_own_name():
    for name in devices.known():
        device = devices.lookup(name)
        assert device.name == name
        assert device.arch
        assert device.target
        assert device.mem_gb_s
        assert device.clock_mhz
        if name != "CPU":
            assert device.max_shared_kb_per_block <= device.shared_kb_per_sm


def test_registered_device_is_found_and_replaces():
    devices.register(Device(name="My Chip 7", sms=3), aliases=["chippy"])
    assert devices.lookup("my chip 7").sms == 3
    assert devices.lookup("CHIPPY").name == "My Chip 7"
    devices.register(Device(name="NVIDIA H100", sms=1))
    assert devices.lookup("H100").sms == 1


def test_saved_device_is_there_in_another_process(tmp_path):
    devices.register(Device(name="My Chip 7", sms=3), aliases=["chippy"], save=True)
    code = "from autotune_rlm import devices; print(devices.lookup('chippy').sms)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "3"


def test_broken_user_file_is_reported_and_ignored(caplog):
    path = devices.user_file()
    path.parent.mkdir(parents=True)
    path.write_text("{nonsense")
    assert devices.lookup("H100").sms == 132
    assert str(path) in caplog.text


def test_training_data_and_registry_agree():
    from pathlib import Path

    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "devices.json"
    if not path.exists():
        pytest.skip("the training data is not here")
    for name, fields in json.loads(path.read_text()).items():
        device = devices.lookup(name)
        assert device.name == name
        for key in ("arch", "target", "sms"):
            assert getattr(device, key) == fields[key]
