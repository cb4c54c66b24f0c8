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
        ("NVIDIA B300 SXM6 AC", "NVIDIA B300"),
        ("NVIDIA GB200", "NVIDIA GB200"),
        ("NVIDIA GB10", "NVIDIA GB10"),
        ("dgx spark", "NVIDIA GB10"),
        (
            "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
            "NVIDIA RTX PRO 6000 Blackwell",
        ),
        (
            "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
            "NVIDIA RTX PRO 6000 Blackwell Max-Q",
        ),
        ("RTX PRO 6000", "NVIDIA RTX PRO 6000 Blackwell"),
        ("rtx-pro-6000", "NVIDIA RTX PRO 6000 Blackwell"),
        ("RTX 6000 Pro", "NVIDIA RTX PRO 6000 Blackwell"),
        ("RTX 6000 Blackwell", "NVIDIA RTX PRO 6000 Blackwell"),
        ("RTX PRO 6000 Max-Q", "NVIDIA RTX PRO 6000 Blackwell Max-Q"),
        ("RTX 6000 Ada", "NVIDIA RTX 6000 Ada Generation"),
        ("Radeon Pro W6600", "AMD Radeon PRO W6600"),
        ("AMD Radeon W7800", "AMD Radeon PRO W7800"),
        ("NVIDIA GeForce RTX 5090", "NVIDIA RTX 5090"),
        ("NVIDIA GeForce RTX 5080", "NVIDIA RTX 5080"),
        ("NVIDIA H20", "NVIDIA H20"),
        ("NVIDIA H800", "NVIDIA H800"),
        ("NVIDIA GH200 480GB", "NVIDIA GH200"),
        ("NVIDIA L20", "NVIDIA L20"),
        ("AMD Instinct MI355X", "AMD MI355X"),
        ("AMD Instinct MI325X", "AMD MI325X"),
        ("AMD Radeon AI PRO R9700", "AMD Radeon AI PRO R9700"),
        ("Orin", "NVIDIA Jetson AGX Orin"),
        ("NVIDIA Thor", "NVIDIA Jetson Thor"),
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


@pytest.mark.parametrize("name", devices.known())
def test_what_a_target_implies_agrees_with_the_data_sheets(name):
    device = devices.lookup(name)
    bare = Device(name=name, target=device.target, sms=device.sms, clock_mhz=device.clock_mhz)
    implied = devices.completed(bare)
    if implied is bare or implied.fp32_tflops is None:
        pytest.skip("a target of no rule")
    assert implied.arch == device.arch
    assert implied.max_shared_kb_per_block == device.max_shared_kb_per_block
    assert implied.shared_kb_per_sm == device.shared_kb_per_sm
    assert implied.fp32_tflops == pytest.approx(device.fp32_tflops, rel=0.2)
    # some cards have half of their architecture's matrix units, or run them below the boost clock;
    # the H20 has less for export
    assert (
        (0.2 if name == "NVIDIA H20" else 0.4)
        < device.fp16_tensor_tflops / implied.fp16_tensor_tflops
        < 1.25
    )


def test_what_is_told_goes_before_what_is_implied():
    told = Device(name="x", target="sm_90", fp32_tflops=1.0, sms=10, clock_mhz=1000.0)
    assert devices.completed(told).fp32_tflops == 1.0
    assert devices.completed(Device(name="y")) == Device(name="y")


def test_the_command_lists_them():
    from typer.testing import CliRunner

    from autotune_rlm.cli import app

    told = CliRunner().invoke(app, ["devices", "--json"])
    assert {d["name"] for d in json.loads(told.stdout)} == set(devices.known())
    (one,) = json.loads(CliRunner().invoke(app, ["devices", "h100", "--json"]).stdout)
    assert one["sms"] == 132
    missing = CliRunner().invoke(app, ["devices", "nonesuch"])
    assert missing.exit_code == 1
    assert "nothing is known of 'nonesuch'" in missing.stderr
