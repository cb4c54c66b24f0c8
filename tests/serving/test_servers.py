"""The servers' own code reads what is written here, and what they ship is read here."""

from __future__ import annotations

import json

import pytest
from serving_support import loader, server_folder

from autotune_rlm.integrations.serving import BATCHES, ServingFile, nearest
from autotune_rlm.integrations.serving._installed import config_folders, kernel_file

CONFIG = {
    "BLOCK_SIZE_M": 16,
    "BLOCK_SIZE_N": 32,
    "BLOCK_SIZE_K": 64,
    "GROUP_SIZE_M": 1,
    "num_warps": 4,
    "num_stages": 2,
}
CONFIGS = {batch: {**CONFIG, "num_stages": 2 + i % 4} for i, batch in enumerate(BATCHES)}
SERVERS = ("vllm", "sglang")
DEVICES = ("NVIDIA H200", "NVIDIA B300 SXM6 AC", "AMD Instinct MI355X")


class TestFilesReadByTheServers:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("server", SERVERS)
    @pytest.mark.parametrize(
        "more",
        [{}, {"dtype": "fp8_w8a8"}, {"dtype": "fp8_w8a8", "block_shape": (128, 128)}],
        ids=["16 bits", "fp8", "fp8 blocks"],
    )
    def test_experts(self, server, device, more, tmp_path, monkeypatch):
        file = ServingFile(kernel="fused_moe", device_name=device, E=128, N=768, **more)
        file.with_configs(CONFIGS).write(tmp_path, server=server)
        variable = "VLLM_TUNED_CONFIG_FOLDER" if server == "vllm" else "SGLANG_MOE_CONFIG_DIR"
        monkeypatch.setenv(variable, str(tmp_path))
        own = loader(server, "fused_moe", device, tmp_path / "nothing")
        block = more.get("block_shape", (0, 0) if server == "sglang" else (None, None))
        assert own.get_moe_configs(128, 768, more.get("dtype"), *block) == CONFIGS

    def test_a_variant_of_h200_takes_vllms_one_file(self, tmp_path, monkeypatch):
        name = "NVIDIA H200 NVL"
        file = ServingFile(kernel="fused_moe", device_name=name, E=8, N=64)
        file.with_configs(CONFIGS).write(tmp_path)
        monkeypatch.setenv("VLLM_TUNED_CONFIG_FOLDER", str(tmp_path))
        assert loader("vllm", "fused_moe", name, tmp_path).get_moe_configs(8, 64, None) == CONFIGS

    def test_channels_and_the_second_product_of_sglang(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SGLANG_MOE_CONFIG_DIR", str(tmp_path))
        given = {"per_channel_quant": True, "down": True}
        file = ServingFile(
            kernel="fused_moe", device_name=DEVICES[0], E=8, N=64, dtype="fp8_w8a8", **given
        )
        file.with_configs(CONFIGS).write(tmp_path, server="sglang")
        own = loader("sglang", "fused_moe", DEVICES[0], tmp_path / "nothing")
        found = own.get_moe_configs(8, 64, "fp8_w8a8", 0, 0, per_channel_quant=True, down_moe=True)
        assert found == CONFIGS

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(
        ("server", "dtype"), [("vllm", "fp8"), ("sglang", "fp8"), ("sglang", "int8")]
    )
    def test_block_products(self, server, dtype, device, tmp_path):
        kernel = f"w8a8_block_{dtype}_matmul"
        file = ServingFile(kernel=kernel, device_name=device, N=7168, K=2048)
        file.with_configs(CONFIGS).write(tmp_path / "configs", server=server)
        own = loader(server, kernel, device, tmp_path)
        read = getattr(own, f"get_w8a8_block_{dtype}_configs")
        assert read(7168, 2048, 128, 128) == CONFIGS


class TestFilesOfTheServers:
    @pytest.mark.parametrize("server", SERVERS)
    def test_all_are_read_and_written_as_they_are(self, server, tmp_path):
        folder = server_folder(server)
        read, others = 0, []
        for path in sorted(folder.rglob("*device_name=*.json")):
            before = json.loads(path.read_text("utf-8"))
            try:
                file = ServingFile.read(path)
            except ValueError:
                others.append(path)  # of other kernels
                continue
            assert json.loads(file.write(tmp_path, server=server).read_text("utf-8")) == before
            read += 1
        assert read > 100
        triton = [path for path in others if "backend=" not in path.name]
        assert not [path for path in triton if "fused_moe/configs" in str(path)]

    @pytest.mark.parametrize("server", SERVERS)
    def test_the_nearest_file_has_the_shape_first_and_says_what_it_is(self, server):
        server_folder(server)
        folders = config_folders(server)
        assert folders
        file = ServingFile(kernel="fused_moe", device_name="NVIDIA GH200", E=8, N=14336)
        found = nearest(file, server=server)
        assert found is not None
        assert found.file.dtype is None
        assert found.file.E == 8
        assert "H200" in found.reason or "H100" in found.reason


class TestKernelsOfTheServers:
    @pytest.mark.parametrize(
        ("server", "kernel"),
        [
            ("vllm", "fused_moe"),
            ("vllm", "w8a8_block_fp8_matmul"),
            ("sglang", "fused_moe"),
            ("sglang", "w8a8_block_fp8_matmul"),
            ("sglang", "w8a8_block_int8_matmul"),
        ],
    )
    def test_their_text_is_taken_as_it_is(self, server, kernel):
        folder = server_folder(server)
        path, name = kernel_file(server, kernel)
        text = path.read_text("utf-8")
        body = text[text.index(f"def {name}(") :].split("\n\n\n@triton.jit")[0].rstrip()
        assert any(
            body in own.read_text("utf-8") for own in folder.rglob("*.py") if name in _peek(own)
        )
        assert "import vllm" not in text
        assert "import sglang" not in text

    def test_a_kernel_that_a_version_lacks_is_one_clear_error(self):
        server_folder("vllm")
        with pytest.raises(LookupError, match="has no Triton kernel w8a8_block_int8_matmul"):
            kernel_file("vllm", "w8a8_block_int8_matmul")

    def test_a_server_that_is_not_there_is_one_clear_error(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ModuleNotFoundError, match="vllm is not installed here"):
            kernel_file("vllm", "fused_moe")


def _peek(path):
    return path.read_text("utf-8", errors="replace")
