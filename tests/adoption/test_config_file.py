"""Recommended configurations: the file, and what the decorator does with it."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import sys

import pytest
import torch
import triton
from triton_test_support import Oracle, Quick, body, configs
from typer.testing import CliRunner

import autotune_rlm
from autotune_rlm.cli import app
from autotune_rlm.integrations.triton import rlm_autotune
from autotune_rlm.store import Store
from autotune_rlm.store.config_file import (
    SHIPPED,
    ConfigFile,
    Recommendation,
    RecommendedConfig,
    read_configs,
)
from autotune_rlm.types import Candidate, Device, Measurement, Task

X = torch.zeros(64)
GRID = (1,)


def recommended(*blocks, device="sm_90", problem=None, kernel="body", **fields):
    return Recommendation(
        kernel=kernel,
        device=device,
        problem={"n": 64} if problem is None else problem,
        configs=tuple(
            RecommendedConfig(
                config={"BLOCK": block, "num_warps": 4, "num_stages": 3}, time_ms=0.1 + i
            )
            for i, block in enumerate(blocks)
        ),
        **fields,
    )


def task(device="NVIDIA H100", **problem):
    return Task(kernel="body", device=Device(name=device), problem=problem)


def blocks_of(found):
    return [r.config["BLOCK"] for r in found]


class TestFile:
    def test_what_is_saved_is_loaded(self, tmp_path):
        path = tmp_path / "deep" / "configs.json"
        written = ConfigFile([recommended(64, 32, key=("n",), versions={"triton": "3.9"})])
        written.save(path)
        assert ConfigFile.load(path).recommendations == written.recommendations
        assert sorted(p.name for p in path.parent.iterdir()) in (
            ["configs.json"],
            [".configs.json.lock", "configs.json"],
        )

    def test_saving_merges(self, tmp_path):
        path = tmp_path / "configs.json"
        ConfigFile([recommended(64), recommended(128, device="AMD MI300X")]).save(path)
        ConfigFile([recommended(32)]).save(path)
        assert len(ConfigFile.load(path)) == 2
        assert blocks_of(ConfigFile.load(path).find(task("sm_90", n=64))) == [32]
        ConfigFile([recommended(32)]).save(path, merge=False)
        assert len(ConfigFile.load(path)) == 1

    def test_many_processes_save_at_once(self, tmp_path):
        path = tmp_path / "configs.json"
        context = multiprocessing.get_context("fork")
        savers = [context.Process(target=_save, args=(path, n)) for n in range(6)]
        for saver in savers:
            saver.start()
        for saver in savers:
            saver.join()
        assert len(ConfigFile.load(path)) == 6

    def test_the_nearest_problem_comes_first(self):
        known = ConfigFile(
            [
                recommended(64, device="h100", problem={"n": 64, "dtype": "fp16"}),
                recommended(128, device="NVIDIA H100", problem={"n": 4096, "dtype": "fp16"}),
                recommended(256, device="NVIDIA H100", problem={"n": 4096, "dtype": "fp32"}),
                recommended(512, device="NVIDIA A100", problem={"n": 4096, "dtype": "fp32"}),
            ]
        )
        fp32 = {"x": {"dtype": "fp32", "shape": [9]}}
        name = "NVIDIA H100 80GB HBM3"
        assert blocks_of(known.find(task(name, n=5000, **fp32))) == [256, 128, 64]
        assert blocks_of(known.find(task(name, n=100), ["n"]))[0] == 64
        assert known.find(task("NVIDIA T4", n=64)) == []

    def test_the_very_source_comes_first_and_measured_before_predicted(self):
        other = recommended(64, source_hash="0123", module="old")
        same = recommended(128, problem={"n": 9999}, source_hash=task().source_hash)
        measured = recommended(32, problem={"n": 9999}, origin="measured", module="m")
        assert blocks_of(ConfigFile([other, same]).find(task("sm_90", n=64))) == [128, 64]
        assert blocks_of(ConfigFile([same, measured]).find(task("sm_90", n=64))) == [32, 128]

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda d: [], "holds no recommended configurations"),
            (lambda d: {**d, "format": "other"}, "holds no recommended configurations"),
            (lambda d: {**d, "version": 2}, "has version 2 of the format and this package knows 1"),
            (lambda d: {**d, "recommendations": {}}, "recommendations must be a list"),
            (lambda d: {**d, "recommendations": [3]}, r"recommendations\[0\] must be an object"),
            (
                lambda d: _with(d, device=None),
                r"recommendations\[0\]: device must be str, got None",
            ),
            (lambda d: _with(d, device=" "), "kernel and device must not be empty"),
            (lambda d: _with(d, origin="rumour"), "origin must be one of model, measured"),
            (lambda d: _with(d, key=[1]), "key must be a list of names"),
            (lambda d: _with(d, configs=[]), "at least one configuration"),
            (lambda d: _with(d, configs=[{}]), r"configs\[0\] lacks config, time_ms"),
            (
                lambda d: _with(d, configs=[{"config": {}, "time_ms": "1"}]),
                r"configs\[0\]: time_ms must be int or float",
            ),
            (
                lambda d: _with(d, configs=[{"config": {"B": {}}, "time_ms": 1}]),
                "B must be numbers, words or truth values",
            ),
        ],
    )
    def test_errors_name_the_entry(self, tmp_path, change, says):
        path = tmp_path / "configs.json"
        path.write_text(json.dumps(change(ConfigFile([recommended(64)]).to_json())))
        with pytest.raises(ValueError, match=says) as error:
            ConfigFile.load(path)
        assert str(path) in str(error.value)

    def test_no_json_and_no_file(self, tmp_path):
        path = tmp_path / "configs.json"
        with pytest.raises(FileNotFoundError, match="autotune-rlm rank --out makes such a file"):
            ConfigFile.load(path)
        path.write_text("{")
        with pytest.raises(ValueError, match="is no JSON"):
            ConfigFile.load(path)
        with pytest.raises(ValueError, match="is no JSON"):
            ConfigFile([recommended(64)]).save(path)
        assert path.read_text() == "{"

    def test_arguments_that_name_files(self, tmp_path):
        paths = [tmp_path / name for name in ("a.json", "b.json")]
        ConfigFile([recommended(64), recommended(1, problem={"n": 1})]).save(paths[0])
        ConfigFile([recommended(128)]).save(paths[1])
        assert len(read_configs(paths)) == 2
        assert blocks_of(read_configs(os.pathsep.join(map(str, paths))).find(task("sm_90", n=64)))[
            0
        ] == (128)
        assert read_configs(None) is None
        with pytest.raises(TypeError, match="configs_from must be a path"):
            read_configs(3)


def _save(path, n):
    ConfigFile([recommended(64, problem={"n": n})]).save(path)


def _with(data, **fields):
    return {**data, "recommendations": [{**data["recommendations"][0], **fields}]}


class TestDecorator:
    def tuned(self, oracle, **options):
        settings = {"configs": configs(), "key": ["n"], "surrogate": oracle, "store": False}
        return rlm_autotune(**{**settings, **options})(Quick(body))

    def test_predict_takes_the_first_and_asks_no_model(self, stub, oracle):
        known = ConfigFile([recommended(99, 1024, 512)])  # 99 is not in the kernel's list
        kernel = self.tuned(oracle, mode="predict", configs_from=known)
        kernel[GRID](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 1024
        assert (oracle.asked, stub.benchmarked) == (0, [])

    def test_what_was_measured_goes_before_the_file(self, stub, oracle, tmp_path):
        store = str(tmp_path / "s.db")
        self.tuned(oracle, store=store, mode="full")[GRID](X, X, 64)
        known = ConfigFile([recommended(1024)])
        kernel = self.tuned(oracle, mode="predict", configs_from=known, store=store)
        kernel[GRID](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 256

    def test_tune_measures_the_recommended_first(self, stub):
        wrong = Oracle(sign=-1.0)
        known = ConfigFile([recommended(256, 512)])
        self.tuned(wrong, configs_from=known, budget=4)[GRID](X, X, 64)
        tried = [launch.constants["BLOCK"] for launch in stub.benchmarked]
        assert tried[:3] == [32, 256, 512]

    def test_for_other_devices_the_model_decides(self, stub, oracle):
        known = ConfigFile([recommended(1024, device="NVIDIA T4")])
        kernel = self.tuned(oracle, mode="predict", configs_from=known)
        kernel[GRID](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 256

    @pytest.mark.parametrize(
        ("devices", "block"),
        [(("NVIDIA A100", "NVIDIA H200"), 512), (("NVIDIA B200", "AMD MI300X"), 64)],
    )
    def test_of_several_devices_the_nearest_counts(self, stub, oracle, devices, block, caplog):
        known = ConfigFile(
            recommended(b, device=d) for d, b in zip(devices, (64, 512), strict=True)
        )
        kernel = self.tuned(
            oracle, mode="predict", configs_from=known, device="NVIDIA H100", store=False
        )
        with caplog.at_level("INFO", logger="autotune_rlm"):
            kernel[GRID](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == block
        near = devices[(64, 512).index(block)]
        assert f"predicted for {near} with n=64" in caplog.text

    def test_the_pruner_has_the_last_word(self, stub, oracle):
        def prune(configs, named, **kwargs):
            return [c for c in configs if c.kwargs["BLOCK"] < 1024]

        known = ConfigFile([recommended(1024, 512)])
        prunes = {"early_config_prune": prune}
        kernel = self.tuned(oracle, mode="predict", configs_from=known, prune_configs_by=prunes)
        kernel[GRID](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 512

    def test_the_environment_names_the_file(self, stub, oracle, tmp_path, monkeypatch):
        path = tmp_path / "configs.json"
        ConfigFile([recommended(1024)]).save(path)
        monkeypatch.setenv("AUTOTUNE_RLM_CONFIGS_FROM", str(path))
        kernel = self.tuned(oracle, mode="predict")
        kernel[GRID](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 1024
        monkeypatch.setenv("AUTOTUNE_RLM_CONFIGS_FROM", "/no/such.json")
        with pytest.raises(ValueError, match=r"AUTOTUNE_RLM_CONFIGS_FROM='/no/such.json': no rec"):
            kernel[GRID](X, X, 128)

    def test_kernels_of_others_use_it_too(self, stub, oracle, tmp_path):
        path = tmp_path / "configs.json"
        ConfigFile([recommended(1024)]).save(path)
        kernel = triton.autotune(configs=configs(), key=["n"])(Quick(body))
        with autotune_rlm.enable(mode="predict", configs_from=path, surrogate=oracle):
            kernel[GRID](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 1024

    def test_a_wrong_file_is_an_error_where_the_kernel_is_defined(self, tmp_path):
        path = tmp_path / "configs.json"
        path.write_text("{}")
        with pytest.raises(ValueError, match="holds no recommended configurations"):
            rlm_autotune(configs=configs(), key=["n"], configs_from=path)


class TestShipped:
    """A package of kernels carries a file, which is found without being named."""

    @pytest.fixture
    def package(self, tmp_path, monkeypatch):
        folder = tmp_path / "kernels_of_others" / "ops"
        folder.mkdir(parents=True)
        for place in (folder, folder.parent):
            (place / "__init__.py").write_text("")
        (folder / "scaled.py").write_text(_KERNEL)
        monkeypatch.syspath_prepend(str(tmp_path))
        for name in [n for n in sys.modules if n.startswith("kernels_of_others")]:
            monkeypatch.delitem(sys.modules, name)
        return folder.parent

    @pytest.mark.parametrize("place", [".", "ops"])
    def test_it_is_found_beside_the_kernel_or_at_the_top_of_its_package(
        self, stub, package, place, caplog
    ):
        path = package / place / SHIPPED
        far = recommended(32, kernel="scaled", device="NVIDIA H100", problem={"n": 1 << 20})
        near = recommended(512, kernel="scaled", device="NVIDIA H100", problem={"n": 128})
        ConfigFile([far, near]).save(path)
        kernel = importlib.import_module("kernels_of_others.ops.scaled").scaled
        with caplog.at_level("INFO", logger="autotune_rlm"):
            kernel[GRID](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 512
        assert f"{path.resolve()}, predicted for NVIDIA H100 with n=128" in caplog.text
        assert stub.benchmarked == []

    def test_a_damaged_one_costs_a_warning(self, stub, package, caplog):
        (package / SHIPPED).write_text("{")
        kernel = importlib.import_module("kernels_of_others.ops.scaled").scaled
        kernel[GRID](X, X, 64)
        assert "are not used" in caplog.text

    def test_an_empty_list_means_none(self, stub, package, monkeypatch):
        ConfigFile([recommended(512, kernel="scaled", device="NVIDIA H100")]).save(
            package / SHIPPED
        )
        monkeypatch.setenv("AUTOTUNE_RLM_CONFIGS_FROM", "none")
        kernel = importlib.import_module("kernels_of_others.ops.scaled").scaled
        kernel[GRID](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] != 512

    def test_it_is_written_from_what_is_stored(self, tmp_path):
        with Store(tmp_path / "s.db") as store:
            for block, value in ((32, 2.0), (256, 1.0), (512, None)):
                status = "ok" if value else "out_of_resources"
                measurement = Measurement(status=status, value=value)
                store.add(task(n=64), Candidate({"BLOCK": block}), measurement)
        out = tmp_path / "package" / SHIPPED
        given = ["store", "export", str(out), "--store", str(tmp_path / "s.db")]
        done = CliRunner().invoke(app, given)
        assert done.exit_code == 0, done.output
        (found,) = ConfigFile.load(out).recommendations
        assert (found.kernel, found.origin, found.device) == ("body", "measured", "NVIDIA H100")
        assert blocks_of(found.configs) == [256, 32]
        none = CliRunner().invoke(app, [*given, "--kernel", "other"])
        assert "no measured configuration" in none.output


_KERNEL = """
import triton
import triton.language as tl

from autotune_rlm import ConfigSpace
from autotune_rlm.integrations.triton import rlm_autotune


@rlm_autotune(
    configs=ConfigSpace(BLOCK=[32, 64, 128, 512], num_warps=[4], num_stages=[3]),
    key=["n"],
    mode="predict",
    store=False,
    device="NVIDIA H100",
)
@triton.jit
def scaled(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < n), mask=at < n)
"""
