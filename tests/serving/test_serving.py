"""Configuration files of vLLM and SGLang: names and contents as they write them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prediction_support import around
from typer.testing import CliRunner

from autotune_rlm import Candidate
from autotune_rlm.cli import app
from autotune_rlm.devices import lookup
from autotune_rlm.integrations.serving import BATCHES, ServingFile, check, predict
from autotune_rlm.integrations.serving.programs import PROGRAMS
from autotune_rlm.surrogate.programs import Programs

# Names as they stand in the servers' folders.
NAMES = {
    "vllm": [
        "E=8,N=14336,device_name=NVIDIA_A100-SXM4-80GB.json",
        "E=8,N=7168,device_name=NVIDIA_H200,dtype=fp8_w8a8.json",
        "E=256,N=128,device_name=NVIDIA_H100,dtype=fp8_w8a8,block_shape=[128,128].json",
        "N=7168,K=2304,device_name=AMD_Instinct_MI325X,dtype=fp8_w8a8,block_shape=[128,128].json",
        "N=7168,K=256,device_name=NVIDIA_H20,dtype=int8_w8a8,block_shape=[128,128].json",
    ],
    "sglang": [
        "N=7168,K=128,device_name=NVIDIA_H100_80GB_HBM3,dtype=fp8_w8a8,block_shape=[128, 128].json",
        "E=257,N=256,device_name=NVIDIA_H20-3e,dtype=fp8_w8a8,block_shape=[128, 128]_down.json",
        "E=128,N=768,device_name=NVIDIA_H200,dtype=fp8_w8a8,per_channel_quant=True.json",
    ],
}
CONFIG = {
    "BLOCK_SIZE_M": 64,
    "BLOCK_SIZE_N": 64,
    "BLOCK_SIZE_K": 128,
    "GROUP_SIZE_M": 1,
    "num_warps": 4,
    "num_stages": 3,
}


class FewRows:
    """A surrogate that takes tiles of as many rows as there are tokens, and 64 columns."""

    def predict(self, task, candidates, *, observed=()):
        rows = np.array([c.config["BLOCK_SIZE_M"] for c in candidates], float)
        columns = np.array([c.config["BLOCK_SIZE_N"] for c in candidates], float)
        off = 1 + np.abs(np.log2(rows / max(16, task.problem["M"]))) + np.abs(np.log2(columns / 64))
        return around(task, off, unfamiliar=("it is a stand-in",))


def no_facts(task, candidates):
    return candidates


class TestFile:
    @pytest.mark.parametrize(("server", "name"), [(s, n) for s in NAMES for n in NAMES[s]])
    def test_names_are_those_of_the_servers(self, server, name, tmp_path):
        (tmp_path / name).write_text(json.dumps({"1": CONFIG, "64": CONFIG}))
        file = ServingFile.read(tmp_path / name)
        assert file.name(server) == name
        assert list(file.configs) == [1, 64]

    def test_writing_keeps_what_the_file_says_beside(self, tmp_path):
        name = NAMES["vllm"][0]
        content = {"triton_version": "3.4.0", "16": CONFIG, "2": CONFIG}
        (tmp_path / name).write_text(json.dumps(content))
        written = ServingFile.read(tmp_path / name).write(tmp_path / "out")
        assert written.name == name
        assert json.loads(written.read_text()) == content
        other = ServingFile.read(written).write(tmp_path, server="sglang")
        assert set(json.loads(other.read_text())) == {"2", "16"}  # all keys are sizes for SGLang

    def test_names_say_what_the_server_distinguishes(self):
        given = {"kernel": "fused_moe", "E": 8, "N": 64, "dtype": "fp8_w8a8"}
        file = ServingFile(
            **given, device_name="AMD Radeon/PCIe  W7900", per_channel_quant=True, down=True
        )
        name = "E=8,N=64,device_name=AMD_Radeon_PCIe_W7900,dtype=fp8_w8a8"
        assert file.name("vllm") == f"{name}.json"
        assert file.name("sglang") == f"{name},per_channel_quant=True_down.json"

    def test_entries_that_others_added_meanwhile_stay(self, tmp_path):
        file = ServingFile(kernel="fused_moe", device_name="NVIDIA H200", E=8, N=64)
        with ThreadPoolExecutor(8) as writers:
            list(writers.map(lambda size: file.add({size: CONFIG}, tmp_path), range(1, 33)))
        assert list(ServingFile.read(tmp_path / file.name()).configs) == list(range(1, 33))

    def test_a_server_takes_the_nearest_batch_size(self):
        other = {**CONFIG, "num_warps": 8}
        file = ServingFile(kernel="fused_moe", device_name="NVIDIA H200", E=8, N=64)
        file = file.with_configs({1: CONFIG, 64: other})
        assert file.config(30) == CONFIG
        assert file.config(4000) == other
        with pytest.raises(ValueError, match="no configurations"):
            file.with_configs({}).config(1)

    @pytest.mark.parametrize(
        ("wrong", "match"),
        [
            ({"kernel": "softmax"}, "kernel must be one of"),
            ({"E": None}, "needs E"),
            ({"N": 0}, "needs N"),
            ({"device_name": "a,b"}, "device_name"),
            ({"kernel": "w8a8_block_fp8_matmul", "K": 64, "dtype": "int8_w8a8"}, "is fp8_w8a8"),
        ],
    )
    def test_wrong_sizes_are_refused(self, wrong, match):
        given = {"kernel": "fused_moe", "device_name": "NVIDIA H200", "E": 8, "N": 64}
        with pytest.raises(ValueError, match=match):
            ServingFile(**{**given, **wrong})

    @pytest.mark.parametrize(
        "content", ["[]", "{", '{"1": 2}', '{"1": null}', '{"1": {"BLOCK_SIZE_M": "x"}}']
    )
    def test_damaged_content_is_one_clear_error(self, content, tmp_path):
        path = tmp_path / NAMES["vllm"][0]
        path.write_text(content)
        with pytest.raises(ValueError, match="batch sizes"):
            ServingFile.read(path)

    @pytest.mark.parametrize(
        "name",
        [
            "N=512,K=512,device_name=NVIDIA_H200,dtype=fp8_w8a8_channelwise.json",
            "N=512,K=512,device_name=NVIDIA_H200.json",
        ],
    )
    def test_files_of_other_products_are_refused(self, name, tmp_path):
        (tmp_path / name).write_text(json.dumps({"1": CONFIG}))
        with pytest.raises(ValueError, match="of another kernel"):
            ServingFile.read(tmp_path / name)

    @given(st.text(max_size=40).filter(lambda t: "/" not in t and "\0" not in t))
    def test_other_names_are_refused(self, name):
        with pytest.raises(ValueError, match="no name of such a file"):
            ServingFile.read(f"folder/{name}.txt")


class TestAdvice:
    @pytest.mark.parametrize("device", ["NVIDIA H200", "NVIDIA B300", "AMD MI355X"])
    def test_each_batch_size_gets_the_best_of_the_servers_space(self, device):
        file = ServingFile(kernel="fused_moe", device_name=device, E=8, N=14336)
        entries = list(predict(file, surrogate=FewRows(), facts=no_facts))
        assert [e.batch for e in entries] == list(BATCHES)
        rows = {e.batch: e.config["BLOCK_SIZE_M"] for e in entries}
        assert rows[1] == 16
        assert rows[128] == 128
        assert rows[4096] == 256
        assert set(entries[0].config) == set(CONFIG)
        assert entries[0].unfamiliar == ("it is a stand-in",)
        stages = {e.config["num_stages"] for e in entries}
        assert stages == {2} if device.startswith("AMD") else stages <= {2, 3, 4, 5}

    def test_only_clearly_slow_entries_are_doubted(self):
        file = ServingFile(kernel="w8a8_block_fp8_matmul", device_name="NVIDIA H200", N=7168, K=256)
        file = file.with_configs({64: CONFIG, 16: {**CONFIG, "BLOCK_SIZE_M": 256}})
        (doubt,) = check(file, surrogate=FewRows(), facts=no_facts)
        assert doubt.batch == 16
        assert doubt.better["BLOCK_SIZE_M"] == 16
        assert doubt.slower == pytest.approx(4.0)

    def test_a_configuration_outside_of_the_space_is_judged_too(self):
        odd = {**CONFIG, "BLOCK_SIZE_M": 512}
        file = ServingFile(kernel="w8a8_block_fp8_matmul", device_name="NVIDIA H200", N=64, K=64)
        (doubt,) = check(file.with_configs({16: odd}), surrogate=FewRows(), facts=no_facts)
        assert doubt.config == odd

    @pytest.mark.parametrize(
        ("dtype", "batches", "match"),
        [(None, [0], "batches"), ("fp8", [1], "dtype must be one of")],
    )
    def test_the_file_is_checked_before_the_model_is_asked(self, dtype, batches, match):
        file = ServingFile(kernel="fused_moe", device_name="NVIDIA H200", E=8, N=64, dtype=dtype)
        with pytest.raises(ValueError, match=match):
            next(predict(file, batches=batches, surrogate=FewRows(), facts=no_facts))

    def test_bytes_follow_from_the_dtype_of_either_operand(self):
        def kilobytes(dtype, block_shape=None):
            file = ServingFile(
                **{"kernel": "fused_moe", "device_name": "NVIDIA H100", "E": 8, "N": 512},
                **{"dtype": dtype, "block_shape": block_shape},
            )
            task = file.task(64, lookup("NVIDIA H100"))
            (read,) = Programs(PROGRAMS).candidates(task, [Candidate(CONFIG)])
            return read.facts["moved_kb"]

        both, one, none = kilobytes("fp8_w8a8"), kilobytes("fp8_w8a16"), kilobytes(None)
        assert both < one < none
        assert kilobytes("int8_w8a16") == pytest.approx(one, rel=0.01)
        assert kilobytes("int8_w8a16", (128, 128)) == pytest.approx(one, rel=0.05)

    @pytest.mark.parametrize("kernel", sorted(PROGRAMS))
    def test_the_compiler_reads_our_kernels_of_the_servers_algorithms(self, kernel):
        sizes = {"E": 8, "N": 512} if kernel == "fused_moe" else {"N": 512, "K": 512}
        file = ServingFile(kernel=kernel, device_name="NVIDIA H100", **sizes)
        task = file.task(64, lookup("NVIDIA H100"))
        wide = {**CONFIG, "BLOCK_SIZE_M": 128}
        small, large = Programs(PROGRAMS).candidates(task, [Candidate(CONFIG), Candidate(wide)])
        assert small.facts["programs"] > 0
        assert large.facts["accumulator_words"] == 2 * small.facts["accumulator_words"]


class TestCommand:
    def test_a_file_is_written_for_a_device_that_is_not_here(self, tmp_path):
        arguments = ["fused_moe", "--device", "NVIDIA H200", "--e", "8", "--n", "64"]
        arguments += ["--batches", "1", "--out", str(tmp_path)]
        done = CliRunner().invoke(app, ["serve-configs", "predict", *arguments])
        assert done.exit_code == 0, done.output
        file = ServingFile.read(tmp_path / "E=8,N=64,device_name=NVIDIA_H200.json")
        assert list(file.configs) == [1]
        more = [*arguments[:-4], "--batches", "2", "--out", str(tmp_path)]
        assert CliRunner().invoke(app, ["serve-configs", "predict", *more]).exit_code == 0
        file = ServingFile.read(tmp_path / file.name())
        assert list(file.configs) == [1, 2]
        again = CliRunner().invoke(app, ["serve-configs", "check", str(tmp_path / file.name())])
        assert again.exit_code == 0, again.output
        assert "0 of 2 entries look slow" in again.output

    def test_an_unknown_device_is_told_with_the_nearest_names(self, tmp_path):
        arguments = ["fused_moe", "--device", "NVIDIA H2000", "--n", "64", "--e", "8"]
        done = CliRunner().invoke(app, ["serve-configs", "predict", *arguments])
        assert done.exit_code == 2
        assert "did you mean NVIDIA H200" in done.output

    def test_a_folder_that_takes_no_file_is_told_before_anything_is_ranked(self, tmp_path):
        (tmp_path / "file").write_text("")
        arguments = ["fused_moe", "--device", "NVIDIA H200", "--n", "64", "--e", "8"]
        arguments += ["--out", str(tmp_path / "file" / "below"), "--surrogate", "not needed"]
        done = CliRunner().invoke(app, ["serve-configs", "predict", *arguments])
        assert done.exit_code == 2
        assert "not needed" not in done.output

    @pytest.mark.parametrize(
        "arguments",
        [
            ["softmax", "--device", "NVIDIA H200", "--n", "64"],
            ["fused_moe", "--device", "NVIDIA H200", "--n", "64"],
            ["fused_moe", "--device", "NVIDIA H200", "--n", "64", "--e", "8", "--server", "tgi"],
            ["fused_moe", "--device", "X", "--n", "64", "--e", "8", "--block-shape", "128"],
            ["fused_moe", "--device", "X", "--n", "64", "--e", "8", "--batches", "1,a"],
            ["fused_moe", "--device", "X", "--n", "64", "--e", "8", "--dtype", "fp8"],
        ],
    )
    def test_bad_input_is_one_line_and_nothing_is_written(self, arguments, tmp_path):
        done = CliRunner().invoke(
            app, ["serve-configs", "predict", *arguments, "--out", str(tmp_path)]
        )
        assert done.exit_code == 2
        assert "error:" in done.output
        assert not list(tmp_path.iterdir())
