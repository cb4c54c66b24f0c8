"""Measuring with the servers' own kernels: in Triton's interpreter, and through the stub driver."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving_support import server_folder
from test_serving import CONFIG, FewRows, no_facts
from typer.testing import CliRunner

from autotune_rlm import Measurement, Store
from autotune_rlm.cli import app
from autotune_rlm.devices import lookup
from autotune_rlm.integrations.serving import ServingFile, measure
from autotune_rlm.integrations.serving._default import rule_of_thumb
from autotune_rlm.integrations.serving._installed import kernel_file
from autotune_rlm.integrations.serving._workload import bench

PRODUCT = {"M": 20, "N": 100, "K": 320, "block_shape": [128, 128]}
EXPERTS = {"M": 10, "N": 64, "E": 4, "hidden_size": 128, "top_k": 2}
SMALL = {**CONFIG, "BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 32, "BLOCK_SIZE_K": 64, "num_stages": 2}
CASES = [
    ("w8a8_block_fp8_matmul", {**PRODUCT, "dtype": "fp8_w8a8"}),
    ("w8a8_block_int8_matmul", {**PRODUCT, "dtype": "int8_w8a8"}),
    ("fused_moe", EXPERTS),
    ("fused_moe", {**EXPERTS, "gemm": "down"}),
    ("fused_moe", {**EXPERTS, "dtype": "fp8_w8a8"}),
    ("fused_moe", {**EXPERTS, "dtype": "fp8_w8a8", "block_shape": [128, 128]}),
    ("fused_moe", {**EXPERTS, "dtype": "fp8_w8a8", "per_channel_quant": True}),
    ("fused_moe", {**EXPERTS, "dtype": "int8_w8a16"}),
    ("fused_moe", {**EXPERTS, "dtype": "int8_w8a8"}),
    ("fused_moe", {**EXPERTS, "dtype": "int8_w8a8", "block_shape": [128, 128]}),
]


def _path(folder):
    return os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(folder)])


def factory(server, kernel, problem):
    server_folder(server)
    try:
        path, function = kernel_file(server, kernel)
    except LookupError as error:
        pytest.skip(str(error))
    return bench(file=str(path), function=function, kernel=kernel, problem=problem, device="cpu")


class TestTheServersKernels:
    @pytest.mark.parametrize("server", ["vllm", "sglang"])
    def test_compute_what_the_product_in_32_bits_says(self, server):
        folder = server_folder(server)
        configs = [SMALL, {**SMALL, "BLOCK_SIZE_M": 32, "GROUP_SIZE_M": 4}]
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("run_kernels.py")), server],
            input=json.dumps({"cases": CASES, "configs": configs}),
            env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": _path(folder.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout)
        assert [case for case, wrong in results if wrong] == []
        lacking = 2 if server == "vllm" else 0  # it has no kernel of 8-bit integer blocks
        assert len(results) == 2 * len(CASES) - lacking

    @pytest.mark.parametrize("server", ["vllm", "sglang"])
    def test_compile_for_a_gpu_that_is_not_here(self, server, stub):
        make = factory(server, "w8a8_block_fp8_matmul", {**PRODUCT, "dtype": "fp8_w8a8"})
        job = make(SMALL)
        assert job.spec().constexprs["BLOCK_SIZE_N"] == 32
        job.call.run()
        (launch,) = stub.launches
        assert launch.grid == (2 * 4, 1, 1)

    def test_an_argument_that_nobody_knows_is_named(self, tmp_path):
        path = tmp_path / "kernel.py"
        path.write_text(
            "import triton\nimport triton.language as tl\n\n\n"
            "@triton.jit\ndef kernel(A, B, C, As, Bs, M, N, K, flux):\n    pass\n"
        )
        make = bench(
            file=str(path),
            function="kernel",
            kernel="w8a8_block_fp8_matmul",
            problem={**PRODUCT, "dtype": "fp8_w8a8"},
            device="cpu",
        )
        with pytest.raises(LookupError, match="takes flux, which is not known here"):
            make(SMALL)


@pytest.fixture
def stub():
    from autotune_rlm.integrations.triton.stub import StubDriver

    with StubDriver() as driver:
        yield driver


@pytest.fixture
def cluster(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 starves where a machine is busy
    options = {"address": "local", "num_cpus": 1, "object_store_memory": 100 * 2**20}
    ray.init(**options, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Pretended:
    """Measures without a kernel: the fewer columns above 32, the slower; failures on request."""

    def __init__(self, fails=lambda config: False):
        self.fails, self.asked = fails, []

    def measure(self, task, candidates):
        for candidate in candidates:
            self.asked.append((task.problem["M"], dict(candidate.config)))
            if self.fails(candidate.config):
                yield candidate, Measurement(status="out_of_resources", reason="too much")
            else:
                value = 1.0 + abs(candidate.config["BLOCK_SIZE_N"] - 32) / 32
                yield candidate, Measurement(status="ok", value=value, cost_s=0.5)


FILE = ServingFile(kernel="w8a8_block_fp8_matmul", device_name="NVIDIA H200", N=512, K=512)
INT4 = ServingFile(kernel="fused_moe", device_name="NVIDIA H200", E=8, N=64, dtype="int4_w4a16")
GIVEN = {"surrogate": FewRows(), "facts": no_facts, "device": lookup("NVIDIA H200"), "quiet": True}


def run(file=FILE, measurer=None, **given):
    measurer = measurer or Pretended()
    return list(
        measure(file, **{**GIVEN, **given}, measurer=lambda task: contextlib.nullcontext(measurer))
    )


class TestMeasure:
    def test_the_servers_own_choice_is_first_and_the_result_not_slower(self):
        measurer = Pretended()
        (found,) = run(measurer=measurer, batches=[16], budget=6)
        default = rule_of_thumb(FILE, 16, GIVEN["device"], "vllm")
        assert measurer.asked[0] == (16, dict(default.config))
        assert found.default_ms is not None
        assert found.time_ms <= found.default_ms
        assert found.measured == 6
        assert found.saved_s > 100

    def test_neighbouring_batch_sizes_and_other_files_are_tried_at_once(self):
        measurer = Pretended()
        own = {**SMALL, "BLOCK_SIZE_N": 32, "BLOCK_SIZE_K": 128}
        other = FILE.with_configs({1: {**own, "num_warps": 8}})
        first, second = run(
            FILE.with_configs({16: own}), measurer, first=[other], batches=[16, 32], budget=4
        )
        assert measurer.asked[1:3] == [(16, own), (16, {**own, "num_warps": 8})]
        assert measurer.asked[5] == (32, dict(first.config))
        assert second.time_ms == 1.0

    def test_a_killed_run_goes_on_where_it_was(self, tmp_path):
        store = Store(tmp_path / "store.sqlite")
        whole = run(store=store, batches=[1, 16], budget=5)
        assert [f.measured for f in whole] == [5, 5]
        measurer = Pretended()
        again = run(measurer=measurer, store=store, batches=[1, 16, 32], budget=5)
        assert [(f.measured, f.reused) for f in again] == [(0, 5), (0, 5), (5, 0)]
        assert {batch for batch, _ in measurer.asked} == {32}
        assert [f.config for f in again[:2]] == [f.config for f in whole]

    def test_what_does_not_fit_is_left_out(self):
        (found,) = run(
            measurer=Pretended(lambda config: config["BLOCK_SIZE_N"] > 64), batches=[16], budget=6
        )
        assert found.config["BLOCK_SIZE_N"] <= 64
        assert found.default_ms is None
        assert found.failed >= 1

    @pytest.mark.parametrize(
        ("given", "match"),
        [
            ({"batches": [0]}, "batches"),
            ({"budget": 0}, "budget"),
            ({"server": "tgi"}, "server must be one of"),
            ({"file": INT4}, "int4_w4a16 runs on another kernel"),
        ],
    )
    def test_bad_input_is_refused_before_anything_is_measured(self, given, match):
        measurer = Pretended()
        with pytest.raises(ValueError, match=match):
            run(measurer=measurer, **given)
        assert not measurer.asked

    def test_without_a_gpu_it_says_what_can_be_done(self):
        with pytest.raises(ValueError, match="no GPU here"):
            next(measure(FILE))

    def test_no_tile_is_longer_than_what_shares_a_scale(self):
        from autotune_rlm.integrations.serving._spaces import space

        blocks = ServingFile(
            kernel="fused_moe",
            device_name="NVIDIA H200",
            E=8,
            N=64,
            dtype="fp8_w8a8",
            block_shape=(128, 128),
        )
        plain = dataclasses.replace(blocks, block_shape=None)
        sizes = {c.config["BLOCK_SIZE_K"] for c in space(blocks, lookup("NVIDIA H200"))}
        assert sizes == {64, 128}
        assert len(space(plain, lookup("NVIDIA H200"))) == 1920


class TestCommand:
    @pytest.mark.parametrize("server", ["vllm", "sglang"])
    def test_the_whole_way_on_the_interpreter(self, server, tmp_path):
        server_folder(server)
        arguments = ["serve-configs", "measure", "fused_moe", "--n", "32", "--e", "2"]
        arguments += ["--hidden-size", "64", "--top-k", "1", "--dtype", "fp8_w8a8"]
        arguments += ["--batches", "4", "--budget", "2", "--interpreter", "--server", server]
        arguments += ["--store", str(tmp_path / "s.sqlite"), "--out", str(tmp_path)]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert "2 configurations measured" in done.output
        (path,) = tmp_path.rglob("E=2,N=32*.json")
        assert list(ServingFile.read(path).configs) == [4]
        again = CliRunner().invoke(app, arguments)
        assert "0 configurations measured" in again.output

    def test_the_whole_way_on_a_ray_cluster(self, cluster, tmp_path):
        """The workers get the kernel's text, and the written file has what they measured."""
        server_folder("sglang")
        arguments = ["serve-configs", "measure", "fused_moe", "--n", "32", "--e", "2"]
        arguments += ["--hidden-size", "64", "--top-k", "1", "--dtype", "fp8_w8a8"]
        arguments += ["--batches", "4", "--budget", "2", "--interpreter", "--server", "sglang"]
        arguments += ["--ray", "auto", "--ray-workers", "1"]
        arguments += ["--store", str(tmp_path / "s.sqlite"), "--out", str(tmp_path)]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert "2 configurations measured" in done.output
        (path,) = tmp_path.rglob("E=2,N=32*.json")
        (config,) = ServingFile.read(path).configs.values()
        with Store(tmp_path / "s.sqlite") as store:
            (task,) = store.tasks()
            found = store.observations(task)
        assert task.device.target == "interpreter"
        assert all(o.measurement.ok and o.measurement.state["host"] for o in found)
        best = min(found, key=lambda o: o.measurement.value)
        assert dict(best.candidate.config).items() <= config.items()

    def test_options_of_a_cluster_without_one_are_refused(self, tmp_path):
        arguments = ["fused_moe", "--n", "64", "--e", "8", "--out", str(tmp_path)]
        arguments += ["--device", "NVIDIA H200"]
        done = CliRunner().invoke(app, ["serve-configs", "measure", *arguments])
        assert done.exit_code == 2
        assert "go with --ray" in done.output

    def test_without_a_gpu_it_ends_with_one_line(self, tmp_path):
        arguments = ["fused_moe", "--n", "64", "--e", "8", "--out", str(tmp_path)]
        done = CliRunner().invoke(app, ["serve-configs", "measure", *arguments])
        assert done.exit_code == 2
        assert "no GPU here" in done.output

    def test_the_nearest_file_is_written_under_this_gpus_name(self, tmp_path):
        there = ServingFile(kernel="fused_moe", device_name="NVIDIA H100 80GB HBM3", E=8, N=14336)
        there.with_configs({1: CONFIG}).write(tmp_path / "known")
        far = ServingFile(kernel="fused_moe", device_name="AMD Instinct MI300X", E=8, N=14336)
        far.with_configs({1: {**CONFIG, "num_warps": 8}}).write(tmp_path / "known")
        arguments = ["fused_moe", "--device", "B300", "--n", "7168", "--e", "8"]
        arguments += ["--configs", str(tmp_path / "known"), "--out", str(tmp_path)]
        done = CliRunner().invoke(app, ["serve-configs", "nearest", *arguments])
        assert done.exit_code == 0, done.output
        assert "E=8, N=14336 on NVIDIA H100 80GB HBM3" in done.output
        assert "B300 is called 'NVIDIA B300 SXM6 AC' by its driver" in done.output
        file = ServingFile.read(tmp_path / "E=8,N=7168,device_name=NVIDIA_B300_SXM6_AC.json")
        assert file.configs == {1: CONFIG}
