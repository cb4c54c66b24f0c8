"""Triton's own cache of timings: its autotuner and ours read each other's files."""

from __future__ import annotations

import functools
import json

import pytest
import torch
import triton
import triton.language as tl
from triton_test_support import configs

from autotune_rlm import rlm_autotune
from autotune_rlm.cli import app
from autotune_rlm.landscapes import read_landscapes
from autotune_rlm.store import Store, import_file
from autotune_rlm.types import Status

GRID = (1,)
FEW = configs(blocks=(128, 256), warps=(2, 4))
OURS = functools.partial(rlm_autotune, store=False)


@triton.jit
def doubled(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, 2 * tl.load(x + at, mask=at < n), mask=at < n)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def x():
    return torch.zeros(1024)


def files(cache):
    return sorted(cache.rglob("*.autotune.json"))


def tuned(autotune, x, *, given=FEW, n=8, **options):
    """A kernel after one launch, as a new process would have it."""
    kernel = autotune(configs=given, key=["n"], cache_results=True, **options)(doubled)
    kernel[GRID](x, x.clone(), n)
    return kernel


class TestRoundTrip:
    @pytest.mark.parametrize("first", ["triton", "ours"])
    def test_what_one_measured_the_other_does_not(self, stub, cache, x, first):
        pair = [triton.autotune, OURS] if first == "triton" else [OURS, triton.autotune]
        one = tuned(pair[0], x)
        assert len(files(cache)) == 1
        benchmarked = len(stub.benchmarked)
        other = tuned(pair[1], x)
        assert len(stub.benchmarked) == benchmarked
        assert other.best_config == one.best_config
        assert other.configs_timings == one.configs_timings
        assert files(cache) == files(cache)[:1]

    def test_both_write_the_same_file(self, stub, cache, x, tmp_path, monkeypatch):
        """Name, folder and content, to the byte but for the times' spread."""
        written = []
        for name, autotune in (("a", triton.autotune), ("b", OURS)):
            monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / name))
            tuned(autotune, x)
            (file,) = files(tmp_path / name)
            data = json.loads(file.read_text())
            medians = [(config, times[0]) for config, times in data.pop("configs_timings")]
            medians.sort(key=str)
            written.append((file.relative_to(tmp_path / name), data, medians))
        assert written[0] == written[1]

    def test_the_listener_hears_of_a_hit(self, stub, cache, x, monkeypatch):
        if not hasattr(triton.knobs.autotuning, "listener"):
            pytest.skip("this Triton has no listener")
        heard = []
        monkeypatch.setattr(
            triton.knobs.autotuning, "listener", lambda **told: heard.append(told["cache_hit"])
        )
        tuned(OURS, x)
        tuned(OURS, x)
        assert heard == [False, True]


class TestWhenNothingIsKept:
    @pytest.mark.parametrize("autotune", [triton.autotune, OURS], ids=["triton", "ours"])
    def test_as_in_triton(self, stub, cache, x, autotune):
        hooked = [triton.Config(c.kwargs, num_warps=c.num_warps, pre_hook=print) for c in FEW[:2]]
        for i, options in enumerate(({"key": []}, {"configs": hooked}, {"cache_results": False})):
            given = {"configs": FEW, "key": ["n"], "cache_results": True, **options}
            if options == {"key": []}:
                continue  # the dtypes are a key
            kernel = autotune(**given)(doubled)
            kernel[GRID](x, x.clone(), i)
        assert files(cache) == []

    @pytest.mark.parametrize("autotune", [triton.autotune, OURS], ids=["triton", "ours"])
    def test_the_environment_asks_for_it(self, stub, cache, x, autotune, monkeypatch):
        monkeypatch.setenv("TRITON_CACHE_AUTOTUNING", "1")
        kernel = autotune(configs=FEW, key=["n"])(doubled)
        kernel[GRID](x, x.clone(), 8)
        assert len(files(cache)) == 1

    @pytest.mark.parametrize("autotune", [triton.autotune, OURS], ids=["triton", "ours"])
    def test_another_list_key_or_dtype_is_another_file(self, stub, cache, x, autotune):
        tuned(autotune, x)
        tuned(autotune, x, n=9)
        tuned(autotune, x.half())
        tuned(autotune, x, given=FEW[:3])
        assert len(files(cache)) == 4

    def test_a_choice_of_the_model_is_not_written(self, stub, cache, x, oracle):
        tuned(OURS, x, mode="predict", surrogate=oracle)
        assert files(cache) == []

    def test_a_size_taken_over_is_not_written(self, stub, cache, x, store_path):
        """Its times are those of another size."""
        given = functools.partial(rlm_autotune, store=store_path)
        kernel = given(configs=FEW, key=["n"])(doubled)
        kernel[GRID](torch.zeros(1024), torch.zeros(1024), 8)
        again = given(configs=FEW, key=["n"], cache_results=True)(doubled)
        again[GRID](torch.zeros(1040), torch.zeros(1040), 8)
        assert files(cache) == []

    def test_results_have_to_be_checked(self, stub, cache, x):
        tuned(triton.autotune, x)
        benchmarked = len(stub.benchmarked)
        tuned(OURS, x, check="default")
        assert len(stub.benchmarked) > benchmarked


class TestOurs:
    def test_a_finished_search_of_the_store_is_written(self, stub, cache, x, store_path):
        given = functools.partial(rlm_autotune, store=store_path)
        kernel = given(configs=FEW, key=["n"])(doubled)
        kernel[GRID](x, x.clone(), 8)
        assert files(cache) == []
        tuned(given, x)
        assert len(files(cache)) == 1

    def test_what_is_read_teaches(self, stub, cache, x, store_path):
        tuned(triton.autotune, x)
        tuned(functools.partial(rlm_autotune, store=store_path), x)
        tuned(functools.partial(rlm_autotune, store=store_path), x)
        with Store(store_path) as store:
            ((task, n),) = [(t, len(store.observations(t, every=True))) for t in store.tasks()]
        assert n == len(FEW)
        assert task.problem == {"n": 8, "dtypes": ["torch.float32", "torch.float32"]}
        assert "tl.load" in task.source

    def test_in_full_mode_a_part_does_not_do(self, stub, cache, x):
        tuned(OURS, x, given=configs(), budget=2)
        before = len(stub.benchmarked)
        tuned(OURS, x, given=configs(), mode="full")
        tried = {(b.constants["BLOCK"], b.options["num_warps"]) for b in stub.benchmarked[before:]}
        assert len(tried) == len(configs())

    @pytest.mark.parametrize("text", ["", "{}", '{"configs_timings": [[1, 2]]}'])
    def test_a_damaged_file_is_measured_again(self, stub, cache, x, text, caplog):
        tuned(OURS, x)
        (file,) = files(cache)
        file.write_text(text)
        benchmarked = len(stub.benchmarked)
        tuned(OURS, x)
        assert len(stub.benchmarked) == 2 * benchmarked
        assert "is not read" in caplog.text
        assert json.loads(files(cache)[0].read_text())["configs_timings"]

    def test_times_of_failures_are_kept_as_triton_does(self, stub, cache, x):
        def bench(call, quantiles):
            call()
            launch = stub.launches[-1]
            return [float("inf")] * 3 if launch.constants["BLOCK"] == 128 else [1.0, 0.9, 1.1]

        tuned(OURS, x, do_bench=bench)
        (landscape,) = read_landscapes(cache)
        assert landscape.ok.tolist() == [c.config["BLOCK"] != 128 for c in landscape.candidates]


class TestImport:
    def test_a_cache_folder_is_read_in_bulk(self, stub, cache, x, tmp_path):
        kernel = tuned(triton.autotune, x)
        tuned(triton.autotune, x.half(), n=16)
        (found, half) = sorted(read_landscapes(cache, device="NVIDIA A100"), key=lambda f: f.id)
        assert {f.task.kernel for f in (found, half)} == {"doubled"}
        assert {str(f.task.problem["dtypes"][0]) for f in (found, half)} == {
            "torch.float32",
            "torch.float16",
        }
        assert {f.task.problem["key0"] for f in (found, half)} == {8, 16}
        assert found.task.device.sms == 108
        assert found.best == kernel.configs_timings[kernel.best_config][0]
        assert set(found.candidates[0].config) == {"BLOCK", "num_warps", "num_stages"}
        with Store(tmp_path / "s.db") as store:
            assert import_file(store, cache, device="NVIDIA A100") == (2 * len(FEW), 0)
            assert import_file(store, cache, device="NVIDIA A100") == (0, 2 * len(FEW))

    def test_the_target_is_told_by_the_binaries(self, stub, cache, x):
        doubled.device_caches.clear()  # so that it is compiled into this cache
        tuned(triton.autotune, x)
        (landscape,) = read_landscapes(cache)
        target = triton.runtime.driver.active.get_current_target()
        assert landscape.task.device.target == f"sm_{target.arch}"
        other = next(cache.rglob("doubled.json"))
        metadata = json.loads(other.read_text())
        metadata["target"]["arch"] = 80
        (cache / "other").mkdir()
        (cache / "other" / "doubled.json").write_text(json.dumps(metadata))
        assert read_landscapes(cache)[0].task.device.name == "unknown"

    def test_from_the_command_line(self, stub, cache, x, tmp_path):
        from typer.testing import CliRunner

        tuned(triton.autotune, x)
        store = str(tmp_path / "s.db")
        found = CliRunner().invoke(
            app, ["store", "import", str(cache), "--device", "NVIDIA A100", "--store", store]
        )
        assert "added 4 measurements" in found.output

    def test_malformed(self, tmp_path):
        file = tmp_path / "k.autotune.json"
        no_times = '{"configs_timings": [[{"kwargs": {}}, []]]}'
        for text in ("", "[]", '{"configs_timings": [[{}, [1, 2, 3]]]}', no_times):
            file.write_text(text)
            with pytest.raises(ValueError, match=r"k\.autotune\.json"):
                read_landscapes(file)

    def test_a_failure_has_no_time(self, tmp_path):
        file = tmp_path / "k.autotune.json"
        config = {"kwargs": {"B": 1}, "num_warps": 4, "num_stages": 3, "num_ctas": 2, "maxnreg": 64}
        pairs = [[config, [float("inf")] * 3], [config | {"num_warps": 8}, [2.0, 1.5, 2.5]]]
        file.write_text(json.dumps({"key": [7, "torch.int8"], "configs_timings": pairs}))
        (found,) = read_landscapes(file)
        assert [m.status for m in found.measurements] == [Status.RUNTIME_ERROR, Status.OK]
        assert (found.measurements[1].low, found.measurements[1].high) == (1.5, 2.5)
        assert found.candidates[0].config["num_ctas"] == 2
        assert found.candidates[0].config["maxnreg"] == 64
