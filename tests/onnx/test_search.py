"""Prediction, search and the bench commands on small tables made here."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("optuna")
from typer.testing import CliRunner

from autotune_rlm.integrations.onnx import predict, search, space
from autotune_rlm.landscapes.architectures import read_architectures
from autotune_rlm.networks import graph_facts
from autotune_rlm.networks._builder import NetworkBuilder
from autotune_rlm.networks.latency import latency_ms, network_work
from autotune_rlm.networks.rendering import network_device
from autotune_rlm.types import Measurement, Prediction, Status

MACRO = space("nasbench_macro")


def _accuracy(config):
    digits = [config[f"b{i}"] for i in range(8)]
    return 60 + sum((2 + (i % 3)) * min(d, 1.5) for i, d in enumerate(digits))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "macro.csv"
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "acc", "latency_ms"])
        for number in rng.choice(3**8, size=140, replace=False):
            digits = np.base_repr(number, 3).zfill(8)
            config = MACRO.parse({"arch": digits})
            macs = MACRO.costs(config)["macs"]
            writer.writerow([digits, _accuracy(config), macs / 1e7 + 0.1 * rng.random()])
    return path


def test_a_table_becomes_landscapes_of_distinct_networks(table):
    read = read_architectures(table)
    assert read.space.name == "nasbench_macro"
    assert len(read) == 140
    accuracy, latency = read.landscapes()
    assert not accuracy.task.minimize
    assert latency.task.minimize
    config = accuracy.candidates[0].config
    assert set(MACRO.parameters) < set(config)
    assert config["net_macs"] > 0


def test_twins_are_one_network_with_the_mean_of_their_values(tmp_path):
    path = tmp_path / "cells.csv"
    end = "+|none~0|none~1|+|skip_connect~0|none~1|{}~2|"
    lines = [
        f"|none~0|{end.format(op)},{value}" for op, value in (("none", 1), ("nor_conv_1x1", 3))
    ]
    path.write_text("arch_str,acc\n" + "\n".join(lines) + "\n")
    read = read_architectures(path)
    assert len(read) == 1
    assert read.target("acc").tolist() == [2.0]


def test_wrong_tables_are_named(tmp_path, table):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no known space"):
        read_architectures(path)
    path.write_text("arch_str,acc\n|conv~0|,2\n")
    with pytest.raises(ValueError, match="row 2 is not of nasbench201"):
        read_architectures(path)
    with pytest.raises(ValueError, match="has no column 'speed'"):
        read_architectures(table).target("speed")


def test_bench_nas_ranks_networks_after_few_shots(table, tmp_path):
    from autotune_rlm.cli.bench import app

    out = tmp_path / "out.json"
    arguments = ["nas", "--test", str(table), "--space", "nasbench_macro", "--target", "acc"]
    arguments += ["--shots", "0", "--shots", "30", "--seeds", "2", "--json", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    data = json.loads(out.read_text())
    assert [(r["shots"], r["seed"]) for r in data["runs"]] == [(0, 0), (0, 1), (30, 0), (30, 1)]
    assert set(data["runs"][0]) == {"target", "shots", "seed", "n_test", "kendall", "spearman"}
    few = [r["kendall"] for r in data["runs"] if r["shots"] == 30]
    flops = [r["kendall"] for r in data["baselines"] if r["method"] == "flops" and r["shots"] == 30]
    assert min(few) > 0.6
    assert np.mean(few) > np.mean(flops)
    assert data["runs"][2]["n_test"] == 110


def test_bench_nas_names_what_is_wrong(table):
    from autotune_rlm.cli.bench import app

    base = ["nas", "--test", str(table), "--target"]
    for arguments, message in (
        ([*base, "speed"], "no column"),
        ([*base, "acc", "--shots", "139"], "too few"),
        ([*base, "acc", "--train", str(table)], "other networks"),
        ([*base, "acc", "--space", "darts"], "space must be"),
        ([*base, "acc", "--method", "gnn"], "--method must be of"),
        ([*base, "acc", "--method", "rlm", "--surrogate", "nowhere"], "neither bundled"),
    ):
        result = CliRunner(env={"COLUMNS": "300"}).invoke(app, arguments)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())


def test_bench_nas_lets_a_language_model_lead(table, tmp_path, monkeypatch):
    """With no shots the model's order is the prediction; unknown spaces are told no choices."""
    import autotune_rlm.surrogate
    from autotune_rlm.cli.bench import app
    from autotune_rlm.types import Prediction

    asked = []

    class Knowing:
        def predict(self, task, candidates, *, observed=()):
            asked.append((task, candidates[0]))
            value = np.array([c.config["net_macs"] for c in candidates])
            ones = np.ones(len(value))
            return Prediction(
                metric=task.metric,
                median=value,
                low=value,
                high=value,
                spread=ones,
                p_valid=ones,
                log_scale=False,
            )

    monkeypatch.setattr(autotune_rlm.surrogate, "load", lambda name: Knowing())
    out = tmp_path / "out.json"
    arguments = ["nas", "--test", str(table), "--target", "latency_ms", "--method", "rlm"]
    arguments += ["--method", "few-shot", "--surrogate", "mine", "--shots", "0", "--seeds", "1"]
    result = CliRunner().invoke(app, [*arguments, "--json", str(out)])
    assert result.exit_code == 0, result.output
    data = json.loads(out.read_text())
    assert data["method"] == "rlm"
    assert data["runs"][0]["kendall"] > 0.95
    assert data["baselines"][0]["method"] == "few-shot"
    (task, candidate), *_ = asked
    assert (task.kernel, task.metric, task.language) == ("network", "latency_ms", "onnx")
    assert not set(candidate.config) & set(MACRO.parameters)


def test_bench_optuna_compares_samplers(table, tmp_path):
    from autotune_rlm.cli.bench import app

    out = tmp_path / "out.json"
    arguments = ["optuna", "--table", str(table), "--target", "acc", "--trials", "12"]
    arguments += ["--method", "rlm", "--method", "random", "--method", "evolution"]
    result = CliRunner().invoke(app, [*arguments, "--seeds", "1", "--json", str(out)])
    assert result.exit_code == 0, result.output
    data = json.loads(out.read_text())
    for run in data["runs"]:
        known = [b for b in run["best"] if b is not None]
        assert len(run["best"]) == 12
        assert known == sorted(known)


class _Stopwatch:
    """Latency as a function of the cost, for a machine that is not to be waited for."""

    def __init__(self):
        self.seen = []

    def measure(self, task, candidates):
        for candidate in candidates:
            self.seen.append(candidate.key)
            if candidate.config["b7"] == 2:
                yield candidate, Measurement(status=Status.CRASHED, reason="killed")
            else:
                value = MACRO.costs(candidate.config)["macs"] / 1e7
                yield candidate, Measurement(status=Status.OK, value=value)


def test_search_returns_the_front_within_the_constraint():
    watch = _Stopwatch()
    study = search(
        MACRO,
        {"accuracy": ("maximize", _accuracy), "latency_ms": "minimize"},
        24,
        constraints={"latency_ms": 6.0},
        measurer=watch,
        surrogate=False,
        seed=0,
    )
    assert len(study.trials) == 24
    assert len(watch.seen) == len(set(watch.seen))
    assert study.best_trials
    assert all(t.values[1] <= 6.0 for t in study.best_trials)
    failed = [t for t in study.trials if t.state.name == "FAIL"]
    assert all("killed" in t.user_attrs["error"] for t in failed)
    assert study.best_trials[0].user_attrs["parameters"] > 0


def test_search_answers_from_the_store(tmp_path):
    from autotune_rlm.store import Store

    store = Store(tmp_path / "s.sqlite")
    first, second = _Stopwatch(), _Stopwatch()
    for watch in (first, second):
        search(MACRO, {"latency_ms": "minimize"}, 4, measurer=watch, store=store, seed=3)
    assert first.seen
    assert len(second.seen) < len(first.seen)


def test_search_names_what_is_wrong():
    for arguments, message in (
        (({"accuracy": "maximize"}, 3), "needs a function"),
        (({"macs": "down"}, 3), "minimize or maximize"),
        (({}, 3), "at least one"),
        (({"macs": "minimize"}, 0), "budget"),
    ):
        with pytest.raises(ValueError, match=message):
            search(MACRO, *arguments)
    with pytest.raises(ValueError, match="constraints"):
        search(MACRO, {"macs": "minimize"}, 3, constraints={"speed": 1.0})


def test_latency_is_measured_here_with_onnx_runtime():
    pytest.importorskip("onnxruntime")
    study = search(MACRO, {"latency_ms": "minimize"}, 2, seed=0, surrogate=False)
    assert all(0 < t.value < 1000 for t in study.trials)


def test_facts_are_exact_and_observations_narrow_the_rest():
    rng = np.random.default_rng(0)
    networks = [MACRO.sample(rng) for _ in range(40)]
    graphs = [MACRO.graph(c) for c in networks]
    real = np.array([MACRO.costs(c)["macs"] / 3e6 for c in networks])
    exact = predict(graphs[:3], ["macs", "peak_memory_mb"])
    assert exact["macs"].median.tolist() == [MACRO.costs(c)["macs"] for c in networks[:3]]
    before = predict(graphs[20:], device="NVIDIA A100", surrogate=False)
    seen = list(zip(graphs[:20], real[:20], strict=True))
    after = predict(
        graphs[20:], device="NVIDIA A100", observed={"latency_ms": seen}, surrogate=False
    )
    assert (after.low < real[20:]).mean() > 0.7
    assert (after.high > real[20:]).mean() > 0.7
    assert after.spread.mean() < before.spread.mean() / 2
    assert np.corrcoef(after.location, np.log(real[20:]))[0, 1] > 0.95
    with pytest.raises(ValueError, match="nothing is known of 'robustness'"):
        predict(graphs[0], "robustness")


class Wrong:
    """A surrogate that takes all networks for about equal, the larger ones for a little faster.

    All that it says is possible on the devices that it is asked about.
    """

    def __init__(self, known):
        self.known = known

    def knows_device(self, device, *, networks=None):
        return (device.name, networks) in self.known

    def predict(self, task, candidates, *, observed=()):
        macs = np.array([c.config["net_macs"] for c in candidates])
        median, ones = 5.0 - 0.01 * np.log(macs), np.ones(len(macs))
        return Prediction(
            metric=task.metric,
            median=median,
            low=median * 0.9,
            high=median * 1.1,
            spread=0.06 * ones,
            p_valid=ones,
        )


def test_latency_on_a_device_that_a_surrogate_does_not_know_is_the_rooflines():
    """Kernels that were timed on a device say nothing of networks there."""
    rng = np.random.default_rng(0)
    graphs = [MACRO.graph(MACRO.sample(rng)) for _ in range(20)]
    macs = np.log(predict(graphs, "macs").median)
    surrogate = Wrong(known=[("NVIDIA H100", "latency_ms"), ("NVIDIA A100", None)])
    known = predict(graphs, device="NVIDIA H100", surrogate=surrogate)
    assert np.corrcoef(known.location, macs)[0, 1] < 0
    told = predict(graphs, device="NVIDIA A100", surrogate=surrogate)
    assert np.corrcoef(told.location, macs)[0, 1] > 0.5
    assert (told.high / told.low > 10).all()
    alone = predict(graphs[3], device="NVIDIA A100", surrogate=surrogate)
    assert alone.median[0] == pytest.approx(told.median[3])
    assert np.allclose(told.median, predict(graphs, device="NVIDIA A100", surrogate=False).median)


class Wild:
    """A surrogate that is sure of what cannot be."""

    def __init__(self, value):
        self.value = value

    def predict(self, task, candidates, *, observed=()):
        value, ones = np.full(len(candidates), self.value), np.ones(len(candidates))
        return Prediction(
            metric=task.metric,
            median=value,
            low=value * 0.9,
            high=value * 1.1,
            spread=0.06 * ones,
            p_valid=ones,
        )


@pytest.mark.parametrize("value", [1e-300, 1e-9, 1.0, 15.0, 1e9, 1e300])
@pytest.mark.parametrize("device", ["NVIDIA H100", "AMD MI250X", "NVIDIA T4", "never heard of"])
def test_latency_stays_within_what_the_figures_allow(value, device):
    graph = MACRO.graph({name: 1 for name in MACRO.parameters})
    bounds = latency_ms(network_work(graph), network_device(device))
    assert 0 < bounds.floor_ms <= bounds.expected_ms <= bounds.ceiling_ms
    told = predict(graph, device=device, surrogate=Wild(value))
    for ends in (told.low, told.median, told.high):
        assert bounds.floor_ms <= ends[0] <= bounds.ceiling_ms
    assert told.low[0] < told.median[0] < told.high[0]


def test_a_surrogate_that_is_a_little_off_keeps_most_of_its_word():
    graph = MACRO.graph({name: 1 for name in MACRO.parameters})
    bounds = latency_ms(network_work(graph), network_device("NVIDIA T4"))
    times = [
        predict(graph, device="NVIDIA T4", surrogate=Wild(factor * bounds.ceiling_ms)).median[0]
        for factor in (0.5, 0.99, 1.01, 1.2, 30.0)
    ]
    assert times[0] == pytest.approx(0.5 * bounds.ceiling_ms)
    assert times[1] == pytest.approx(times[2], rel=0.05)
    assert times[3] > 0.5 * bounds.ceiling_ms
    assert times[4] < (bounds.ceiling_ms * bounds.expected_ms) ** 0.5


def test_a_network_smaller_than_those_of_the_tables_gets_an_interval():
    cell = MACRO.graph({name: 0 for name in MACRO.parameters})
    told = predict(cell, devices=["1080ti", "titanx"])
    for device in ("1080ti", "titanx"):
        bounds = latency_ms(network_work(cell), network_device(device))
        ends = [getattr(told[device], name)[0] for name in ("low", "median", "high")]
        assert bounds.floor_ms < ends[0] < ends[1] < ends[2] < bounds.ceiling_ms


class Asked:
    """A surrogate that says the batch times the multiply-accumulates of one sample."""

    def predict(self, task, candidates, *, observed=()):
        batch = task.problem.get("input", {}).get("batch", 0)
        value = np.array([batch * c.config["net_macs"] for c in candidates], dtype=float)
        ones = np.ones(len(candidates))
        return Prediction(
            metric=task.metric, median=value, low=value, high=value, spread=ones, p_valid=ones
        )


def test_a_surrogate_is_told_the_batch_and_the_fields_of_one_sample():
    def of(batch):
        build = NetworkBuilder((batch, 3, 16, 16))
        return build.graph(build.relu(build.conv("input", 8, 3)))

    one = graph_facts(of(1)).macs
    networks = [of(4), of(1), of(4), of(2)]
    told = predict(networks, "throughput", device="NVIDIA T4", surrogate=Asked())
    assert told.median == pytest.approx([4 * one, one, 4 * one, 2 * one], rel=0.01)
    given = predict(networks, "throughput", context={"batch": 7}, surrogate=Asked())
    assert given.median == pytest.approx(4 * [7 * one], rel=0.01)
    assert predict(networks, "accuracy", surrogate=Asked()).median == pytest.approx(4 * [0.0])


def test_accuracies_stay_within_0_and_100():
    told = predict(MACRO.graph({name: 1 for name in MACRO.parameters}), "accuracy",
                   surrogate=Wild(98.0))  # fmt: skip
    assert (told.low[0], told.median[0], told.high[0]) == (pytest.approx(88.2), 98.0, 100.0)


@pytest.mark.parametrize("surrogate", [None, False])
def test_latency_has_the_right_magnitude_and_order_of_devices(surrogate):
    """A hundred launches of 2 to 100 us, and never slower on the faster device."""
    graph = MACRO.graph({name: 2 for name in MACRO.parameters})
    order = ["NVIDIA T4", "NVIDIA A10G", "NVIDIA L40S", "NVIDIA H100", "NVIDIA H200", "NVIDIA B200"]
    told = [predict(graph, device=d, surrogate=surrogate).median[0] for d in order]
    assert told == sorted(told, reverse=True)
    other = [predict(graph, device=d, surrogate=surrogate).median[0] for d in ("MI250X", "MI300X")]
    count = len(graph.nodes)
    assert all(0.002 * count < ms < 0.1 * count for ms in (*told, *other))


def test_a_fact_that_misses_operators_says_so():
    from onnx import TensorProto, helper

    node = helper.make_node("Magic", ["x"], ["y"], domain="mine")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 4]) for n in "xy"]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    model = helper.make_model(
        helper.make_graph([node], "g", ends[:1], ends[1:]), opset_imports=opsets
    )
    with pytest.warns(UserWarning, match="lower bound for 1 of 1"):
        told = predict(model, "macs")
    assert told.median[0] == 0
    assert told.high[0] == np.inf
    assert predict(model, "parameters").high[0] == 0
