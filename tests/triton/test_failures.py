"""Whom a failure belongs to: what comes up, what is kept, and that no mistake is remembered."""

from __future__ import annotations

import pytest
import torch
import triton
from triton.runtime.errors import OutOfResources
from triton_test_kernels import picky, scale
from triton_test_support import FEW, AutotunerError, Quick, X, body, configs, rows, time_of
from triton_test_support import few as tuned
from triton_test_support import few_grid as good

import autotune_rlm
from autotune_rlm import Store, rlm_autotune
from autotune_rlm.integrations.triton import _autotuner, _errors
from autotune_rlm.measure import errors
from autotune_rlm.measure.triton import job
from autotune_rlm.search.tuner import TuningError
from autotune_rlm.types import Measurement, Status


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(job, "_PAUSES_S", (0.0, 0.0))


def bad_pre(given, reset_only=False):
    given["nope"].zero_()


def bad_post(given, exception):
    raise LookupError("a bug in a hook")


def bad_bench(call, quantiles):
    raise ZeroDivisionError("a bug in a benchmark")


def useless_bench(call, quantiles):
    return None


def bad_prune(listed, named, **kwargs):
    raise LookupError("a bug in the pruner")


MISTAKES = {
    "a grid function with a typo": ({}, lambda m: (m["BLOCK_SIZE"],), (X, X, 64)),
    "a grid function that forgets to return": ({}, lambda m: None, (X, X, 64)),
    "a pre_hook": ({"pre_hook": bad_pre}, good, (X, X, 64)),
    "a post_hook": ({"post_hook": bad_post}, good, (X, X, 64)),
    "a hook of a configuration": (
        {"configs": [triton.Config({"BLOCK": b}, pre_hook=bad_pre) for b in (64, 128)]},
        good,
        (X, X, 64),
    ),
    "a benchmark": ({"do_bench": bad_bench}, good, (X, X, 64)),
    "a benchmark that gives nothing": ({"do_bench": useless_bench}, good, (X, X, 64)),
    "a pruner": ({"prune_configs_by": {"early_config_prune": bad_prune}}, good, (X, X, 64)),
    "a pruner that keeps nothing": (
        {"prune_configs_by": {"early_config_prune": lambda listed, named, **kw: []}},
        good,
        (X, X, 64),
    ),
    "a missing argument": ({}, good, (X, X)),
    "an argument too many": ({}, good, (X, X, 64, 128, 4)),
    "an argument that no kernel takes": ({}, good, (X, object(), 64)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_comes_up_as_under_triton_and_is_never_kept(mistake, stub, store_path):
    options, grid, arguments = MISTAKES[mistake]
    options = {"configs": FEW, "key": ["n"], **options}
    with pytest.raises(Exception) as theirs:
        triton.autotune(**options)(scale)[grid](*arguments)
    with pytest.raises(Exception) as ours:
        rlm_autotune(store=store_path, **options)(scale)[grid](*arguments)
    assert isinstance(ours.value, type(theirs.value))
    assert isinstance(ours.value, AutotunerError) or not isinstance(ours.value, TuningError)
    assert set(rows(store_path).values()) <= {"ok"}
    corrected = tuned(scale, store_path)
    corrected[good](X, X, 64)
    assert corrected.best_config.kwargs["BLOCK"] == 256


def test_a_mistake_in_a_heuristic_comes_up_as_it_is(stub, store_path):
    def wrong(given):
        raise LookupError("a bug in a heuristic")

    kernel = tuned(triton.heuristics({"BLOCK": wrong})(scale), store_path, configs=[
        triton.Config({}, num_warps=w) for w in (1, 2)
    ])  # fmt: skip
    with pytest.raises(LookupError, match="a bug in a heuristic"):
        kernel[(1,)](X, X, 64)
    assert rows(store_path) == {}


def test_interrupting_a_search_leaves_no_note(stub, store_path):
    def interrupted(given):
        if given["BLOCK"] == 128:
            raise KeyboardInterrupt

    kernel = tuned(Quick(body, interrupted), store_path)
    with pytest.raises(KeyboardInterrupt):
        kernel[good](X, X, 64)
    with Store(store_path) as store:
        (task,) = store.tasks()
        assert store.interrupted(task) == []
    tuned(Quick(body), store_path)[good](X, X, 64)
    assert rows(store_path) == {64: "ok", 128: "ok", 256: "ok"}


class TestMachine:
    def test_a_full_memory_comes_up_as_it_is_and_is_forgotten(self, stub, store_path):
        full = [True]

        def hook(given, reset_only=False):
            if full[0] and not reset_only:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 10.00 GiB")

        kernel = tuned(Quick(body), store_path, pre_hook=hook)
        with pytest.raises(torch.OutOfMemoryError):
            kernel[good](X, X, 64)
        assert rows(store_path) == {}
        full[0] = False
        kernel[good](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 256

    def test_what_passes_in_a_moment_costs_nothing(self, stub, store_path):
        left = [2]

        def fails(given):
            left[0] -= 1
            return RuntimeError("CUDA error: out of memory") if left[0] >= 0 else None

        kernel = tuned(Quick(body, fails), store_path)
        kernel[good](X, X, 64)
        assert set(rows(store_path)) == {64, 128, 256}

    def test_one_configuration_without_room_is_passed_over_and_carried_nowhere(
        self, stub, store_path
    ):
        def fails(given):
            return torch.OutOfMemoryError("out of memory") if given["BLOCK"] == 256 else None

        kernel = tuned(Quick(body, fails), store_path)
        kernel[good](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 128
        assert rows(store_path) == {64: "ok", 128: "ok"}
        again = tuned(Quick(body), store_path)
        again[good](X, X, 65)
        assert again.best_config.kwargs["BLOCK"] == 256

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("0 active drivers ([]). There should only be one."),
            OSError(28, "No space left on device"),
            RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        ],
    )
    def test_a_machine_that_cannot_says_so_itself(self, stub, store_path, error):
        kernel = tuned(Quick(body, lambda given: error), store_path)
        with pytest.raises(type(error)) as raised:
            kernel[good](X, X, 64)
        assert raised.value is error
        assert rows(store_path) == {}


class TestBinary:
    def test_where_all_fail_alike_the_first_exception_itself_comes_up(self, stub, store_path):
        def fails(given):
            return OutOfResources(given["BLOCK"], 1, "shared memory")

        for _ in range(2):  # by trying, then against what the store says
            with pytest.raises(OutOfResources) as raised:
                tuned(Quick(body, fails), store_path)[good](X, X, 64)
            assert raised.value.required == 64
        assert set(rows(store_path).values()) == {"out_of_resources"}

    def test_the_compilers_own_error_comes_up_through_the_pool(self, stub, store_path):
        same = [triton.Config({"BLOCK": 32}, num_warps=w) for w in (1, 2, 4)]
        with pytest.raises(triton.CompilationError, match="a block of 32 is too small"):
            tuned(picky, store_path, configs=same)[good](X, X, 64)

    def test_no_launch_fails_for_what_the_store_alone_says(self, stub, store_path):
        tuned(Quick(body), store_path)[good](X, X, 64)
        with Store(store_path) as store:
            (task,) = store.tasks()
            known = [o.candidate for o in store.observations(task)]
            store.clear()
            for candidate in known:  # as a full memory was kept by the first edition
                store.add(task, candidate, Measurement(status=Status.OUT_OF_RESOURCES))
        kernel = tuned(Quick(body), store_path)
        kernel[good](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 256

    def test_a_benchmark_turns_configurations_down_with_an_infinite_time(self, stub, store_path):
        def bench(call, quantiles):
            call()
            time_ms = time_of(stub.launches[-1])
            return [time_ms if time_ms > limit[0] else float("inf")] * 3

        limit = [1.25]
        kernel = tuned(Quick(body), store_path, do_bench=bench)
        kernel[good](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 128
        limit[0] = 1e9
        kernel[good](X, X, 65)  # all of them: Triton takes the first then
        assert kernel.best_config.kwargs["BLOCK"] == 64
        assert list(kernel.configs_timings.values()) == [[float("inf")] * 3] * 3


class TestLaunch:
    BROKEN = RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")

    def broken(self, given):
        return self.BROKEN if given["BLOCK"] == 128 else None

    def test_what_broke_the_device_is_left_out_for_a_day(self, stub, store_path, monkeypatch):
        with pytest.raises(TuningError, match="autotune-rlm store clear --kernel body") as raised:
            tuned(Quick(body, self.broken), store_path)[good](X, X, 64)
        assert raised.value.__cause__ is self.BROKEN
        assert isinstance(raised.value, AutotunerError)
        kernel = tuned(Quick(body, self.broken), store_path)  # as the next process
        kernel[good](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 256
        assert rows(store_path)[128] == "runtime_error"
        monkeypatch.setattr(errors, "_RETRY_S", 0.0)
        longer = [*FEW, *configs(blocks=(512,), warps=(1,))]
        again = tuned(Quick(body), store_path, configs=longer, mode="full")
        again[good](X, X, 64)
        assert rows(store_path)[128] == "ok"

    def test_where_nothing_is_left_what_failed_before_is_tried_again(self, stub, store_path):
        failing = Quick(body, lambda given: RuntimeError("Triton Error [CUDA]: invalid argument"))
        with pytest.raises(RuntimeError, match="invalid argument"):
            tuned(failing, store_path)[good](X, X, 64)
        assert set(rows(store_path).values()) == {"runtime_error"}
        kernel = tuned(Quick(body), store_path)
        kernel[good](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 256

    def test_what_was_measured_before_is_kept(self, stub, store_path):
        def fails(given):
            return self.BROKEN if given["BLOCK"] == 256 else None

        with pytest.raises(TuningError):
            tuned(Quick(body, fails), store_path, mode="full")[good](X, X, 64)
        kept = rows(store_path)
        assert (kept[64], kept[256]) == ("ok", "runtime_error")


class TestPredict:
    @staticmethod
    def fails(given):
        return OutOfResources(1, 0, "shared memory") if given["BLOCK"] == 256 else None

    @pytest.mark.parametrize("capturing", [False, True])
    def test_a_favourite_without_a_binary_gives_way_to_the_next(
        self, stub, store_path, monkeypatch, capturing
    ):
        mode = "tune" if capturing else "predict"
        monkeypatch.setattr(_autotuner, "is_capturing", lambda: capturing)
        for _ in range(2):
            kernel = tuned(Quick(body, self.fails), store_path, mode=mode)
            for _ in range(2):
                assert kernel[good](X, X, 64) == "launched"
            assert kernel.best_config.kwargs["BLOCK"] == 128
            assert len(kernel.cache) == (not capturing)
        assert rows(store_path) == {256: "out_of_resources"}
        assert stub.benchmarked == []

    def test_without_a_store_too(self, stub):
        kernel = tuned(Quick(body, self.fails), False, mode="predict")
        kernel[good](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 128

    def test_where_none_has_a_binary_the_first_error_comes_up(self, stub, store_path):
        failing = Quick(body, lambda given: OutOfResources(given["BLOCK"], 0, "shared memory"))
        kernel = tuned(failing, store_path, mode="predict")
        with pytest.raises(OutOfResources) as raised:
            kernel[good](X, X, 64)
        assert raised.value.required == 256

    def test_any_other_error_of_the_launch_comes_up_at_once(self, stub, store_path):
        tried = []

        def fails(given):
            tried.append(given["BLOCK"])
            return KeyError("a bug of the caller")

        with pytest.raises(KeyError):
            tuned(Quick(body, fails), store_path, mode="predict")[good](X, X, 64)
        assert tried == [256]
        assert rows(store_path) == {}

    def test_a_choice_from_another_machine_that_does_not_fit_here_gives_way(self, stub, store_path):
        tuned(Quick(body), store_path)[good](X, X, 64)
        kernel = tuned(Quick(body, self.fails), store_path)
        kernel[good](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 128

    def test_a_prediction_is_replaced_only_by_something_measured_faster(self, stub, store_path):
        kernel = tuned(Quick(body), store_path, mode="predict")  # 256, predicted at 1.25 ms
        kernel[good](X, X, 64)
        with Store(store_path) as store:
            (request,) = store.requests()
            by_block = {c.config["BLOCK"]: c for c in request.candidates}
            (key,) = kernel.cache
            (later,) = [w.later.best for w in _autotuner.refresher._waiting if w.key == key][-1:]
            for block, time_ms, taken in ((64, 3.0, None), (128, 1.0, 128), (256, 0.9, 256)):
                store.add(request.task, by_block[block], Measurement(status="ok", value=time_ms))
                config = later()
                assert (config and config.kwargs["BLOCK"]) == taken
        fresh = tuned(Quick(body), store_path, mode="predict")
        fresh[good](X, X, 64)
        assert fresh.best_config.kwargs["BLOCK"] == 256


def test_errors_are_tritons_too():
    with pytest.raises(AutotunerError, match=r"^why$"):
        raise _errors.KernelTuningError("why")
    for kind in (TuningError, RuntimeError, ValueError, AutotunerError):
        assert issubclass(_errors.NothingLeftError, kind)


def test_adopted_kernels_fail_alike(stub, store_path):
    with autotune_rlm.enable(store=store_path):
        kernel = triton.autotune(FEW, key=["n"])(scale)
        with pytest.raises(KeyError, match="BLOCK_SIZE"):
            kernel[lambda m: (m["BLOCK_SIZE"],)](X, X, 64)
        kernel[good](X, X, 64)
    assert set(rows(store_path).values()) == {"ok"}
