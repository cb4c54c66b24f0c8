"""Helion's search that asks the model: Helion generates and compiles nothing on a device here."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import helion
import numpy as np
import pytest
import torch
from helion.autotuner import PowerOfTwoFragment, cache_classes, search_algorithms
from helion.autotuner.benchmark_provider import BenchmarkProvider, BenchmarkResult
from helion.autotuner.external import _ExternalKernelAdapter, create_user_config_spec
from prediction_support import around

from autotune_rlm import Store
from autotune_rlm._files import run_file
from autotune_rlm.devices import lookup
from autotune_rlm.integrations.helion import RLMSearch, autotuner_fn, register
from autotune_rlm.integrations.helion._read import candidate_of, facts_of_config, task_of
from autotune_rlm.integrations.triton.stub import StubDriver

H100 = lookup("NVIDIA H100")


SEARCHES = run_file(Path(__file__).parents[2] / "benchmarks" / "helion_searches.py", "searches")
matmul = helion.kernel(static_shapes=True)(SEARCHES.matmul)
ARGS = (torch.zeros(256, 256, dtype=torch.float16), torch.zeros(256, 256, dtype=torch.float16))


def slowdown(config):
    wanted = {"block_sizes": 64, "block": 128}
    sizes = config.get("block_sizes", [config.get("block")])
    best = wanted["block_sizes" if "block_sizes" in config else "block"]
    return 1.0 + sum(abs(math.log2(size / best)) for size in sizes)


class Oracle:
    """Knows every time, and keeps what it was asked about."""

    def __init__(self):
        self.seen = []

    def predict(self, task, candidates, *, observed=()):
        self.seen = list(candidates)
        times = np.array([slowdown(c.payload) for c in candidates])
        return around(task, times)


def recorded(asked, fails=lambda config: False):
    class Recorded(BenchmarkProvider):
        mutated_arg_indices = ()

        def __init__(self, **given):
            self.metrics = given["autotune_metrics"]

        def setup(self):
            pass

        def cleanup(self):
            pass

        def benchmark(self, configs, **given):
            asked.append(list(configs))
            self.metrics.num_configs_tested += len(configs)
            return [self.one(config) for config in configs]

        def one(self, config):
            bad = fails(config)
            return BenchmarkResult(
                config=config,
                fn=lambda *args: None,
                perf=math.inf if bad else slowdown(config),
                status="error" if bad else "ok",
                compile_time=0.5,
                completed_at=time.perf_counter(),
            )

    return Recorded


def external(**options):
    tunables = {"block": PowerOfTwoFragment(16, 1024, 16), "num_warps": PowerOfTwoFragment(1, 8, 4)}
    adapter = _ExternalKernelAdapter(
        create_user_config_spec(tunables),
        lambda config: lambda *args: None,
        (),
        device=torch.device("cpu"),
        autotune_random_seed=0,
        autotune_log_level=0,
        autotune_progress_bar=False,
    )
    options = {"store": False, "device": H100, "surrogate": Oracle(), **options}
    return RLMSearch(adapter, (), **options)


def run(search, fails=lambda config: False):
    asked = []
    search._benchmark_provider_cls = recorded(asked, fails)
    search.rebenchmark = lambda *args, **kwargs: None
    search.final_selection = None
    return search.autotune(), asked


class TestSearch:
    def test_the_default_is_first_and_the_best_is_found(self):
        search = external(budget=6, batch=2)
        best, asked = run(search)
        assert asked[0][0] == search.config_spec.default_config()
        assert best["block"] == 128
        assert sum(map(len, asked)) <= 6

    def test_what_fails_is_not_chosen_and_does_not_end_it(self):
        best, _ = run(external(budget=12, batch=3), lambda config: config["block"] == 128)
        assert best["block"] in (64, 256)

    def test_nothing_that_works_is_helions_own_error(self):
        with pytest.raises(helion.exc.NoConfigFound):
            run(external(budget=4, batch=2), lambda config: True)

    def test_measurements_are_kept_and_count(self, tmp_path):
        store = Store(tmp_path / "s.sqlite")
        _, asked = run(external(budget=4, batch=2, store=store))
        (task,) = store.tasks()
        assert len(store.observations(task)) == sum(map(len, asked)) == 4

    @pytest.mark.parametrize("wrong", [{"budget": 0}, {"batch": 0}, {"pool": 0}])
    def test_bad_options_are_refused(self, wrong):
        with pytest.raises(ValueError, match="at least 1"):
            external(**wrong)


class TestReading:
    def test_lists_become_parameters(self):
        config = helion.Config(block_sizes=[64, 32], loop_orders=[[1, 0]], num_warps=8)
        candidate = candidate_of(config)
        assert candidate.config["block_sizes.1"] == 32
        assert candidate.config["loop_orders.0"] == "[1, 0]"
        assert candidate.config["num_warps"] == 8
        assert candidate.payload is config

    def test_the_generated_code_is_read_and_nothing_runs(self):
        with StubDriver() as stub:
            bound = matmul.bind(ARGS)
            small, large = (
                facts_of_config(bound, helion.Config(block_sizes=[size, 64, 32]), ARGS, H100)
                for size in (32, 64)
            )
            task = task_of(bound, ARGS, H100)
        assert stub.launches == []
        assert large["accumulator_words"] == 2 * small["accumulator_words"]
        assert small["programs"] == 8 * 4
        assert task.kernel == "matmul"
        assert task.problem["arg0"]["shape"] == [256, 256]
        assert "hl.tile" in task.source

    def test_a_configuration_that_helion_refuses_has_no_facts(self):
        with StubDriver():
            bound = matmul.bind(ARGS)
            assert facts_of_config(bound, helion.Config(block_sizes=[3]), ARGS, H100) == {}


class TestRegistered:
    def test_it_is_one_of_helions_searches(self, monkeypatch):
        monkeypatch.setitem(search_algorithms, "RLMSearch", None)
        register()
        assert search_algorithms["RLMSearch"] is RLMSearch

    def test_a_kernel_asks_it_with_its_facts(self, monkeypatch):
        # Helion's own caches ask a GPU for its name.
        monkeypatch.setitem(cache_classes, "none", lambda search, autotuner_factory: search)
        oracle = Oracle()
        with StubDriver():
            bound = matmul.bind(ARGS)
            bound.settings.autotune_effort = "quick"
            bound.settings.autotune_cache = "none"
            bound.settings.autotune_random_seed = 0
            search = autotuner_fn(
                bound, ARGS, pool=6, batch=2, budget=4, store=False, device=H100, surrogate=oracle
            )
            assert isinstance(search, RLMSearch)
            best, asked = run(search)
        read = [bool(candidate.facts) for candidate in oracle.seen]
        assert sum(read) > len(read) / 2  # the compiler refuses some
        assert slowdown(best) == min(slowdown(c) for batch in asked for c in batch)


def test_the_comparison_on_kernels_runs_as_far_as_a_gpu(capsys):
    """``benchmarks/helion_searches.py --kernels``: everything but the times."""
    given = argparse.Namespace(searches=["RLMSearch"], budget=2, pool=4)
    register()
    with StubDriver():
        SEARCHES.on_this_gpu(
            given, device="cpu", size=64, perf_of=lambda config: sum(config["block_sizes"])
        )
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ["| matmul", "RLMSearch", "2"],
        ["| softmax", "RLMSearch", "2"],
    ]
