"""The search for a new key: what is measured, what is kept, what a failure does."""

from __future__ import annotations

import dataclasses
import logging
import time

import pytest
import torch
import triton
from triton_test_kernels import masked, picky, product, scale
from triton_test_support import (
    AutotunerError,
    Oracle,
    Quick,
    X,
    body,
    configs,
    known,
    time_of,
    tuned,
)

from autotune_rlm import ConfigSpace, Store, rlm_autotune
from autotune_rlm.integrations.triton import device
from autotune_rlm.integrations.triton.stub import StubDriver
from autotune_rlm.search.tuner import TuningError
from autotune_rlm.types import Device, Status

GRID = (1,)


class TestBudget:
    def test_only_the_chosen_few_are_measured_with_the_default_among_them(
        self, stub, quick, store_path
    ):
        kernel = tuned(quick, store_path, budget=4)
        kernel[GRID](X, X, 64)
        assert len(stub.benchmarked) <= 4
        assert kernel.configs[0] in kernel.configs_timings
        assert kernel.best_config.kwargs["BLOCK"] == 256
        assert time_of(stub.launches[-1]) == 1.0

    def test_a_fraction_of_the_list(self, stub, quick, store_path):
        kernel = tuned(quick, store_path, budget=0.25, surrogate=Oracle(-1))
        kernel[GRID](X, X, 64)
        assert 1 < len(stub.benchmarked) <= 5

    def test_the_best_of_the_nearest_problem_is_measured_against_a_wrong_model(
        self, stub, quick, store_path
    ):
        tuned(quick, store_path, budget=1.0)[GRID](X, X, 64)
        before = len(stub.benchmarked)
        kernel = tuned(quick, store_path, budget=2, surrogate=Oracle(-1))
        kernel[GRID](X, X, 65)
        assert len(stub.benchmarked) - before == 2
        assert kernel.best_config.kwargs["BLOCK"] == 256

    def test_a_small_list_is_measured_in_full_and_no_model_is_asked(
        self, stub, quick, oracle, store_path
    ):
        few = configs(blocks=(64, 128), warps=(1, 2))
        kernel = tuned(quick, store_path, configs=few, surrogate=oracle)
        kernel[GRID](X, X, 64)
        assert set(kernel.configs_timings) == set(few)
        assert oracle.asked == 0

    def test_a_space_of_thousands(self, stub, quick, store_path):
        space = ConfigSpace(BLOCK=[2**i for i in range(14)], num_warps=[1, 2, 4, 8, 16],
                            num_stages=range(1, 31))  # fmt: skip
        kernel = tuned(quick, store_path, configs=space, budget=6)
        kernel[GRID](X, X, 64)
        assert len(kernel.configs) == space.size == 2100
        assert len(stub.benchmarked) <= 6
        assert (kernel.best_config.kwargs, kernel.best_config.num_warps) == ({"BLOCK": 256}, 2)

    def test_seconds_end_a_search(self, quick, store_path):
        with StubDriver(time_ms=lambda launch: time.sleep(0.05) or time_of(launch)) as stub:
            tuned(quick, store_path, budget=1.0, budget_s=0.1)[GRID](X, X, 64)
            assert 1 <= len(stub.benchmarked) < len(configs())

    def test_mode_full_measures_everything(self, stub, quick, oracle, store_path):
        kernel = tuned(quick, store_path, mode="full", budget=2, surrogate=oracle)
        kernel[GRID](X, X, 64)
        assert set(kernel.configs_timings) == set(configs())
        assert oracle.asked == 0


class TestStore:
    def test_a_known_key_costs_no_measurement_and_no_model(self, stub, quick, oracle, store_path):
        first = tuned(quick, store_path, budget=5)
        first[GRID](X, X, 64)
        before = len(stub.benchmarked)
        again = tuned(quick, store_path, budget=5, surrogate=oracle)
        again[GRID](X, X, 64)
        assert len(stub.benchmarked) == before
        assert again.best_config == first.best_config
        assert set(again.configs_timings) == set(first.configs_timings)
        assert oracle.asked == 0

    def test_the_key_counts_and_not_the_other_arguments(self, stub, quick, store_path):
        tuned(quick, store_path)[GRID](X, X, 64)
        before = len(stub.benchmarked)
        tuned(quick, store_path)[GRID](torch.zeros(99), X, 64)
        assert len(stub.benchmarked) == before
        tuned(quick, store_path)[GRID](torch.zeros(99, dtype=torch.int8), X, 64)
        assert len(stub.benchmarked) > before

    def test_timings_survive_edits_of_the_list_and_the_pruner(self, stub, quick, store_path):
        tuned(quick, store_path, mode="full")[GRID](X, X, 64)
        before = len(stub.benchmarked)
        longer = [*configs(blocks=(2048,)), *configs()]
        kernel = tuned(quick, store_path, configs=longer, mode="full")
        kernel[GRID](X, X, 64)
        assert len(stub.benchmarked) - before == 3
        prune = {"early_config_prune": lambda listed, named, **kwargs: listed[2:9]}
        tuned(quick, store_path, prune_configs_by=prune)[GRID](X, X, 64)
        assert len(stub.benchmarked) - before == 3

    def test_another_kernel_source_device_or_triton_is_another_task(
        self, stub, store_path, monkeypatch
    ):
        def edited(x, y, n, BLOCK):
            return x + 1

        edited.__name__ = "body"
        tuned(Quick(body), store_path)[GRID](X, X, 64)
        for change in ("source", "device", "triton"):
            before = len(stub.benchmarked)
            options = {"device": "NVIDIA A100"} if change == "device" else {}
            if change == "triton":
                monkeypatch.setattr(triton, "__version__", "9.9.0")
            tuned(Quick(edited if change == "source" else body), store_path, **options)[GRID](
                X, X, 64
            )
            assert len(stub.benchmarked) > before, change

    def test_a_larger_budget_goes_on_where_a_smaller_one_ended(self, stub, quick, store_path):
        wrong = Oracle(-1)
        tuned(quick, store_path, budget=3, surrogate=wrong)[GRID](X, X, 64)
        first = len(stub.benchmarked)
        tuned(quick, store_path, budget=1.0, surrogate=wrong)[GRID](X, X, 64)
        times = [time_of(launch) for launch in stub.benchmarked]
        assert len(times) > first
        named = {(b.constants["BLOCK"], b.options["num_warps"]) for b in stub.benchmarked}
        assert len(named) == len(times)

    def test_every_search_leaves_an_event(self, stub, quick, store_path):
        tuned(quick, store_path, budget=6)[GRID](X, X, 64)
        with Store(store_path) as store:
            (event,) = store.events()
        assert event.kernel == "body"
        assert event.device == "sm_90"
        assert event.n_measured == len(stub.benchmarked)
        assert event.spearman == pytest.approx(1.0)
        assert event.first_choice_regret == 0.0

    def test_a_device_can_be_named(self, stub, quick, store_path):
        tuned(quick, store_path, device="h100")[GRID](X, X, 64)
        with Store(store_path) as store:
            (task,) = store.tasks()
        assert task.device.name == "NVIDIA H100"
        assert task.device.sms == 132

    def test_no_store_is_possible(self, stub, quick):
        kernel = rlm_autotune(configs=configs(), key=["n"], surrogate=Oracle(), store=False)(quick)
        kernel[GRID](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 256


class TestFailures:
    def test_a_failing_configuration_never_ends_a_search(self, stub, store_path):
        errors = {
            128: RuntimeError("PassManager::run failed"),
            256: triton.OutOfResources(300_000, 232_448, "shared memory"),
            512: RuntimeError("Triton Error [CUDA]: invalid argument"),
        }
        kernel = Quick(body, lambda given: errors.get(given["BLOCK"]))
        search = tuned(kernel, store_path, mode="full")
        search[GRID](X, X, 64)
        assert search.best_config.kwargs["BLOCK"] in (64, 1024)
        told = {o.candidate.config["BLOCK"]: o.measurement for o in known(store_path)}
        assert told[128].status is Status.COMPILE_ERROR
        assert told[128].reason == "RuntimeError: PassManager::run failed"
        assert told[512].status is Status.RUNTIME_ERROR
        assert told[256].status is Status.OUT_OF_RESOURCES
        assert "shared memory" in told[256].reason
        assert all(told[b].status.is_failure == (b in errors) for b in told)

    def test_if_the_budget_finds_nothing_that_works_it_goes_on(self, stub, store_path):
        works = configs()[-1].kwargs["BLOCK"]
        kernel = Quick(body, lambda given: None if given["BLOCK"] == works else MemoryError())
        search = tuned(kernel, store_path, budget=2)
        search[GRID](X, X, 64)
        assert search.best_config.kwargs["BLOCK"] == works

    def test_if_all_fail_one_error_lists_the_reasons(self, stub, store_path):
        def fails(given):
            if given["BLOCK"] < 256:
                return triton.OutOfResources(2, 1, "shared memory")
            return RuntimeError(f"Triton Error [CUDA]: no block of {given['BLOCK']}")

        search = tuned(Quick(body, fails), store_path)
        for _ in range(2):
            with pytest.raises(TuningError, match="none of the 18 candidates") as raised:
                search[GRID](X, X, 64)
            assert isinstance(raised.value, AutotunerError)
            assert "9 x out_of_resources: OutOfResources" in str(raised.value)
            assert "3 x runtime_error: RuntimeError: Triton Error [CUDA]: no block of 256" in str(
                raised.value
            )

    def test_what_breaks_the_device_ends_the_search_and_is_remembered(self, stub, store_path):
        broken = RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")
        kernel = Quick(body, lambda given: broken if given["BLOCK"] == 32 else None)
        with pytest.raises(TuningError, match="broke the device"):
            tuned(kernel, store_path, mode="full")[GRID](X, X, 64)
        assert [o.measurement.status for o in known(store_path)] == [Status.RUNTIME_ERROR]

    def test_what_does_not_fit_is_not_tried_for_a_problem_of_equal_binaries(self, stub, store_path):
        tried = []

        def fails(given):
            tried.append(given["BLOCK"])
            return triton.OutOfResources(2, 1, "shared memory") if given["BLOCK"] > 128 else None

        kernel = Quick(body, fails)
        tuned(kernel, store_path, mode="full")[GRID](X, X, 64)
        for n, is_known in ((128, True), (65, False)):
            tried.clear()
            search = tuned(kernel, store_path, mode="full")
            search[GRID](X, X, n)
            assert (max(tried) <= 128) is is_known
            assert search.best_config.kwargs["BLOCK"] == 128

    def test_a_surrogate_that_cannot_be_loaded_costs_a_warning(
        self, stub, quick, store_path, monkeypatch, caplog
    ):
        from autotune_rlm.integrations.triton import resources

        def fail(name):
            raise OSError("no weights")

        monkeypatch.setattr(resources, "_loaded", fail)
        monkeypatch.setattr(resources, "_warned", set())
        with caplog.at_level(logging.WARNING):
            rlm_autotune(configs=configs(), key=["n"], store=store_path)(quick)[GRID](X, X, 64)
        assert "cannot load the surrogate (OSError: no weights)" in caplog.text
        assert len(stub.benchmarked) == 8


class TestRealCompilation:
    """To cubin, through the compile pool, into a driver without a device."""

    def test_the_whole_path(self, stub, store_path):
        kernel = tuned(scale, store_path, configs=configs(blocks=(128, 256, 512)), budget=6)
        kernel[lambda meta: (triton.cdiv(64, meta["BLOCK"]),)](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 256
        observed = known(store_path)
        assert len(observed) <= 6
        facts = observed[0].measurement.facts
        assert facts["registers"] > 0
        assert facts["shared_bytes"] == 0
        assert len(facts["binary_hash"]) == 16

    def test_what_does_not_compile_and_what_does_not_fit(self, store_path):
        x = torch.zeros(1)
        few = configs(blocks=(32, 64, 128), warps=(1,))
        with StubDriver(time_ms=time_of):
            kernel = tuned(picky, store_path, configs=few)
            kernel[GRID](X, X, 64)
            assert kernel.best_config.kwargs["BLOCK"] == 128
        told = {o.candidate.config["BLOCK"]: o.measurement for o in known(store_path)}
        assert told[32].status is Status.COMPILE_ERROR
        assert "a block of 32 is too small" in told[32].reason
        blocks = [{"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": k} for k in (128, 32)]
        with StubDriver(time_ms=time_of, max_shared_bytes=20_000) as stub:
            kernel = tuned(product, store_path, configs=[triton.Config(b) for b in blocks], key=[])
            kernel[GRID](x, x, x)
            assert kernel.best_config.kwargs["BLOCK_K"] == 32
            assert len(stub.benchmarked) == 1
        with Store(store_path) as store:
            (task,) = store.tasks(kernel="product")
            (failed,) = [o for o in store.observations(task) if not o.measurement.ok]
        assert failed.measurement.status is Status.OUT_OF_RESOURCES
        assert failed.measurement.facts["shared_bytes"] > 20_000

    def test_identical_binaries_are_timed_once(self, stub, store_path):
        same = [triton.Config({"BLOCK": 128}, num_warps=1, num_stages=s) for s in (1, 2, 3)]
        kernel = tuned(scale, store_path, configs=same)
        kernel[GRID](X, X, 64)
        assert len(stub.benchmarked) == 1
        assert len(kernel.configs_timings) == 3

    def test_heuristics_below_are_compiled_in_the_pool_too(self, stub, store_path):
        below = triton.heuristics({"EVEN": lambda given: given["n"] % given["BLOCK"] == 0})
        few = configs(blocks=(64, 128), warps=(1,))
        kernel = tuned(below(masked), store_path, configs=few)
        kernel[GRID](X, X, 64)
        assert all("registers" in o.measurement.facts for o in known(store_path))

    def test_warmup_compiles_the_models_choice(self, stub):
        kernel = tuned(scale, False, configs=configs(blocks=(128, 256)), budget=2)
        compiled = kernel.warmup(torch.float32, torch.float32, 64, grid=GRID)
        assert len(compiled) == 2
        assert all(c.metadata.target.arch == 90 for c in compiled)
        assert stub.launches == []


class TestPruningAttributes:
    """torch.compile reads these instead of launching."""

    def test_a_long_list_gives_the_models_choice(self, stub, quick, store_path):
        kernel = tuned(quick, store_path, budget=4)
        kept = kernel.early_config_prune(kernel.configs, {"x": X, "y": X, "n": 64})
        assert len(kept) == 4
        assert kept[0].kwargs["BLOCK"] == 256
        assert kernel.configs[0] in kept
        assert kernel.configs_top_k == 4
        asked = {"x": X, "y": X, "n": 64, **kernel.configs[0].all_kwargs()}
        assert kernel.perf_model(**asked) == pytest.approx(4.25 / 0.99)

    def test_a_short_list_gives_the_users_own(self, quick):
        def prune(listed, named, **kwargs):
            return listed[:1]

        few = configs(blocks=(64,))
        plain = tuned(quick, False, configs=few)
        assert (plain.early_config_prune, plain.perf_model, plain.configs_top_k) == (
            None,
            None,
            1.0,
        )
        pruned = tuned(quick, False, configs=few, prune_configs_by={"early_config_prune": prune})
        assert pruned.early_config_prune is prune

    def test_the_users_pruner_comes_first(self, stub, quick):
        kernel = tuned(
            quick,
            False,
            budget=4,
            prune_configs_by={"early_config_prune": lambda listed, named, **kwargs: listed[:6]},
        )
        kept = kernel.early_config_prune(kernel.configs, {"x": X, "y": X, "n": 64})
        assert len(kept) == 4
        assert all(c.kwargs["BLOCK"] in (32, 64) for c in kept)


def test_a_device_of_the_user(stub, quick, store_path):
    mine = Device(name="Our accelerator", sms=7)
    tuned(quick, store_path, device=mine)[GRID](X, X, 64)
    with Store(store_path) as store:
        (task,) = store.tasks()
    assert task.device == dataclasses.replace(mine)


def test_the_fault_of_an_earlier_kernel_is_the_callers_and_no_configurations(
    stub, quick, store_path, monkeypatch
):
    def synchronize():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    kernel = tuned(quick, store_path, device="NVIDIA H100")
    monkeypatch.setattr(device, "has_accelerator", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", synchronize)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        kernel[GRID](X, X, 64)
    assert stub.launches == []
    with Store(store_path) as store:
        assert store.tasks() == []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    kernel[GRID](X, X, 64)
    assert stub.benchmarked


class TestWhatPeopleSee:
    def test_a_long_search_says_what_it_found(self, stub, quick, store_path, capfd, monkeypatch):
        monkeypatch.setattr("autotune_rlm.search.progress._PATIENCE_S", 0.0)
        tuned(quick, store_path, budget=4)[GRID](X, X, 64)
        said = capfd.readouterr().err
        assert "configurations measured" in said
        assert quick.fn.__name__ in said

    def test_quiet_says_nothing(self, stub, quick, store_path, capfd, monkeypatch):
        monkeypatch.setattr("autotune_rlm.search.progress._PATIENCE_S", 0.0)
        tuned(quick, store_path, budget=4, quiet=True)[GRID](X, X, 64)
        assert "autotune_rlm" not in capfd.readouterr().err
