"""Kernel Tuner itself on what we export, and our engine as its strategy, in its simulation mode."""

import json
from importlib import resources

import numpy as np
import pytest

pytest.importorskip("kernel_tuner")

import jsonschema
from kernel_tuner import tune_kernel, util
from kernel_tuner.file_utils import store_output_file
from kernel_tuner.strategies.wrapper import OptAlgWrapper
from prediction_support import around

from autotune_rlm.devices import lookup
from autotune_rlm.integrations.kernel_tuner import RLMStrategy, rlm_strategy
from autotune_rlm.landscapes import Landscape, read_landscapes, write_landscapes
from autotune_rlm.store import Store
from autotune_rlm.types import Candidate, Measurement, Status, Task

LEVELS = {"block_size_x": [16, 32, 64, 128], "tile": [1, 2, 4, 8], "pad": [True, False]}


def value_of(config):
    return 1.0 + abs(np.log2(config["block_size_x"] / 64)) + config["tile"] / 8 + config["pad"] / 4


def recorded(problem, *, fails=lambda config: False, **task):
    configs = [
        {"block_size_x": x, "tile": t, "pad": p}
        for x in LEVELS["block_size_x"]
        for t in LEVELS["tile"]
        for p in LEVELS["pad"]
    ]
    measurements = [
        Measurement(status="out_of_resources", reason="shared memory", compile_s=0.0, cost_s=0.1)
        if fails(c)
        else Measurement(
            status="ok",
            value=value_of(c),
            low=0.9 * value_of(c),
            samples=(value_of(c),) * 3,
            compile_s=0.4,
            cost_s=0.5,
            facts={"registers": 40, "n_spills": None, "is_tma": False},
            state={"clock_mhz": 1500},
        )
        for c in configs
    ]
    device = lookup("NVIDIA A100")
    task = Task(kernel="conv", device=device, problem=problem, language="cuda", **task)
    return Landscape(task, tuple(map(Candidate, configs)), tuple(measurements))


def simulate(path, strategy, **options):
    data = json.loads(path.read_text())
    return tune_kernel(
        data["kernel_name"],
        "__global__ void conv() {}",
        data.get("problem_size", 1),
        [],
        LEVELS,
        cache=str(path),
        simulation_mode=True,
        strategy=strategy,
        strategy_options=options,
        lang="CUDA",
        quiet=True,
    )


class Oracle:
    """Knows the values, but for a factor."""

    def predict(self, task, candidates, *, observed=()):
        median = np.array([1.2 * value_of(c.config) for c in candidates])
        return around(task, median, factor=1.2)


class TestExports:
    @pytest.mark.parametrize(
        ("problem", "size"),
        [
            ({"M": 4096, "N": 512, "dtype": "fp16"}, [4096, 512]),
            ({"M": 1, "N": 2, "K": 3, "L": 4}, [1, 2, 3]),
            ({"dtype": "fp16", "fast": True}, [1]),
            ({"size": 100}, 100),
            ({"size": [64, 32]}, [64, 32]),
            ({}, None),
        ],
    )
    def test_are_replayed_whole(self, tmp_path, problem, size):
        path = tmp_path / "conv.json"
        landscape = recorded(problem, fails=lambda c: c["tile"] == 8)
        write_landscapes(path, [landscape], "kernel-tuner")
        assert json.loads(path.read_text()).get("problem_size") == size
        results, environment = simulate(path, "brute_force")
        assert environment["device_name"] == "NVIDIA A100"
        assert len(results) == len(landscape)
        assert min(r["time"] for r in results if "__error__" not in r) == landscape.best
        failed = [r for r in results if "__error__" in r]
        assert len(failed) == len(LEVELS["block_size_x"]) * 2
        assert all(isinstance(r["__error__"], util.InvalidConfig) for r in failed)
        assert read_landscapes(path)[0] == landscape

    def test_entries_hold_what_kernel_tuner_writes(self, tmp_path):
        path = tmp_path / "conv.json"
        write_landscapes(path, [recorded({"M": 4})], "kernel-tuner")
        times = ("compile_time", "verification_time", "benchmark_time", "strategy_time")
        own = {"time", "times", *times, "framework_time", "timestamp", "registers"}
        data = json.loads(path.read_text())
        assert data["schema_version"] == "1.0.0"
        for key, entry in data["cache"].items():
            assert set(entry) == own | set(LEVELS)
            assert key == ",".join(str(entry[name]) for name in LEVELS)
            np.datetime64(entry["timestamp"][:19])

    def test_become_t4_by_kernel_tuner(self, tmp_path):
        """Kernel Tuner's T4 of our export follows its schema, and says the same when read."""
        path, out = tmp_path / "conv.json", tmp_path / "out.json"
        landscape = recorded({"M": 4})
        write_landscapes(path, [landscape], "kernel-tuner")
        results, _ = simulate(path, "brute_force")
        store_output_file(str(out), results, LEVELS)
        schema = resources.files("kernel_tuner") / "schema/T4/1.0.0/results-schema.json"
        jsonschema.validate(json.loads(out.read_text()), json.loads(schema.read_text()))
        (back,) = read_landscapes(out)
        values = [
            {o.candidate: o.measurement.value for o in x.observations} for x in (back, landscape)
        ]
        assert values[0] == values[1]

    def test_our_t4_follows_its_schema(self, tmp_path):
        path = tmp_path / "conv.json"
        write_landscapes(path, [recorded({"M": 4}, fails=lambda c: c["pad"])], "t4")
        schema = resources.files("kernel_tuner") / "schema/T4/1.0.0/results-schema.json"
        jsonschema.validate(json.loads(path.read_text()), json.loads(schema.read_text()))

    def test_are_continued(self, tmp_path):
        """Kernel Tuner opens our file, appends to it, and we read both."""
        path = tmp_path / "conv.json"
        half = recorded({"M": 4}).take(range(16))
        write_landscapes(path, [half], "kernel-tuner")
        cached = util.read_cache(str(path), open_cache=True)
        more = {"block_size_x": 64, "tile": 4, "pad": True, "time": 9.0, "__error__": None}
        more.pop("__error__")
        util.store_cache("64,4,True", more, str(path), cached["cache"])
        util.close_cache(str(path))
        (back,) = read_landscapes(path)
        assert len(back) == 17
        assert back.take(range(16)).measurements == half.measurements
        assert back.task == half.task


class TestStrategy:
    @pytest.fixture
    def cache(self, tmp_path):
        path = tmp_path / "conv.json"
        landscape = recorded({"M": 4096, "N": 512}, fails=lambda c: c["tile"] == 8)
        write_landscapes(path, [landscape], "kernel-tuner")
        return path

    def test_spends_the_budget_on_the_best_predicted(self, cache):
        results, _ = simulate(cache, rlm_strategy(surrogate=Oracle()), max_fevals=5)
        assert len({tuple(r[n] for n in LEVELS) for r in results}) == 5
        first = {n: results[0][n] for n in LEVELS}
        assert first == {"block_size_x": 64, "tile": 1, "pad": False}

    def test_measures_all_where_it_may(self, cache):
        results, _ = simulate(cache, rlm_strategy(surrogate=Oracle()), max_fevals=500)
        assert len(results) == 32

    def test_x0_comes_first(self, cache):
        x0 = [16, 8, True]
        results, _ = simulate(cache, rlm_strategy(surrogate=Oracle()), max_fevals=3, x0=x0)
        assert [results[0][n] for n in LEVELS] == x0

    def test_learns_failures_and_knows_what_it_tunes(self, cache):
        strategy = RLMStrategy(surrogate=Oracle())
        simulate(cache, OptAlgWrapper(strategy), max_fevals=32)
        task = strategy.search.task
        assert (task.kernel, task.device) == ("conv", lookup("NVIDIA A100"))
        assert task.problem == {"size": [4096, 512]}
        assert "__global__" in task.source
        statuses = {o.candidate.config["tile"]: o.measurement for o in strategy.search.observations}
        assert statuses[8].status is Status.OUT_OF_RESOURCES
        assert statuses[1].value is not None

    def test_a_policy_may_stop_early(self, cache):
        from autotune_rlm.search.policy import Policy

        stops = rlm_strategy(surrogate=Oracle(), policy=Policy(min_gain=0.5, patience=1))
        results, _ = simulate(cache, stops, max_fevals=32)
        assert len(results) < 32

    def test_a_simulation_leaves_the_store_alone(self, cache):
        with Store(":memory:") as store:
            simulate(cache, rlm_strategy(surrogate=Oracle(), store=store), max_fevals=4)
            assert store.info().n_tasks == 0

    def test_a_large_space_is_sampled(self, cache, caplog):
        simulate(cache, rlm_strategy(surrogate=Oracle(), most=8), max_fevals=500)
        assert "8 of 32 configurations are ranked" in caplog.text

    def test_the_bundled_model_beats_chance(self, cache):
        """The model has never seen this kernel; what it is told of it is enough."""
        results, _ = simulate(cache, rlm_strategy(), max_fevals=10)
        values = sorted(value_of(c) for c in configs_of(cache))
        best = min(r["time"] for r in results if "__error__" not in r)
        assert best <= values[3]

    def test_most_must_be_positive(self):
        with pytest.raises(ValueError, match="most must be at least 1"):
            RLMStrategy(most=0)


def configs_of(path):
    return [c.config for c in read_landscapes(path)[0].candidates]
