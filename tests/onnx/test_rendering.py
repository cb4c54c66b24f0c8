"""One wording of networks for training and for use."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")

from autotune_rlm.landscapes._network_fields import fields_of
from autotune_rlm.landscapes.columns import column_task
from autotune_rlm.networks import graph_facts, network_fields, read_graph, space
from autotune_rlm.networks.fields import FIELDS
from autotune_rlm.networks.rendering import network_candidate, network_device, network_task

SPACES = ("nasbench201", "nasbench101", "fbnet", "mnasnet", "nasbench_macro")


@pytest.mark.parametrize("name", SPACES)
def test_a_file_has_the_fields_of_the_space_that_built_it(name):
    cells = space(name)
    config = cells.canonical(cells.sample(np.random.default_rng(3)))
    fields = cells.fields(config)
    assert tuple(fields) == FIELDS
    assert network_fields(read_graph(cells.model(config))) == fields
    facts = graph_facts(cells.graph(config))
    for fact in ("parameters", "macs", "activation_bytes", "depth", "nodes"):
        assert fields[fact] == getattr(facts, fact)
    assert fields["path_min"] <= fields["path_mean"] <= fields["path_max"]


def test_paths_of_a_cell_are_counted():
    cells = space("nasbench201")
    skip = dict.fromkeys(cells.parameters, "none") | {"e03": "skip_connect"}
    conv = skip | {"e03": "nor_conv_3x3"}
    both = conv | {"e01": "skip_connect", "e13": "skip_connect"}
    plain, deep, wide = (cells.fields(c) for c in (skip, conv, both))
    assert deep["path_max"] == plain["path_max"] + 15 == wide["path_max"]
    assert wide["path_min"] == plain["path_min"]
    assert wide["paths"] == plain["paths"] + 15
    assert deep["paths"] == plain["paths"]


def test_a_candidate_holds_choices_and_fields_to_three_digits():
    candidate = network_candidate({"macs": 123456.0, "paths": 0.0}, {"e01": "none"}, text="onnx")
    assert dict(candidate.config) == {"e01": "none", "net_macs": 123000.0, "net_paths": 0.0}
    assert candidate.text == "onnx"


def test_fields_are_kept_on_disk_and_a_broken_file_is_made_anew(tmp_path, monkeypatch):
    cells = space("nasbench_macro")
    rng = np.random.default_rng(0)
    configs = [cells.sample(rng) for _ in range(220)]
    first = fields_of(cells, configs, tmp_path)
    (kept,) = tmp_path.iterdir()
    monkeypatch.setattr(type(cells), "fields", lambda *_: pytest.fail("built again"))
    np.testing.assert_array_equal(fields_of(cells, configs[::-1], tmp_path), first[::-1])
    monkeypatch.undo()
    kept.write_bytes(b"PK no archive")
    np.testing.assert_array_equal(fields_of(cells, configs[:2], tmp_path), first[:2])


@pytest.mark.parametrize(
    ("column", "name", "metric", "device", "problem"),
    [
        ("c10_val_ep12", "nasbench201", "accuracy", "none",
         {"dataset": "cifar10", "split": "val", "epochs": 12}),
        ("help_1080ti_256", "nasbench201", "latency_ms", "NVIDIA GTX 1080 Ti",
         {"runtime": "help", "input": {"batch": 256}}),
        ("gold_6240", "fbnet", "latency_ms", "Intel Xeon Gold 6240", {"input": {"batch": 1}}),
        ("throughput_a100", "mnasnet", "throughput", "NVIDIA A100", {"input": {"batch": 1}}),
        ("val_top5", "mnasnet", "accuracy_top5", "none", {"dataset": "imagenet", "split": "val"}),
        ("latency_ms", "nasbench_macro", "latency_ms", "none", {"input": {"batch": 1}}),
    ],
)  # fmt: skip
def test_columns_are_tasks_that_name_metric_device_and_data(column, name, metric, device, problem):
    task = column_task(column, name)
    assert (task.kernel, task.metric, task.device.name) == (name, metric, device)
    assert dict(task.problem) == problem
    assert task.minimize == metric.endswith("_ms")
    assert column_task(column, name, named=False).kernel == "network"


def test_use_words_a_task_as_the_tables_do():
    table = column_task("c100_test_ep12", "nasbench201")
    context = {"dataset": "cifar100", "split": "test", "epochs": 12}
    assert network_task("accuracy", space="nasbench201", context=context, device="pixel3") == table
    measured = column_task("help_pixel3", "nasbench201")
    context = {"runtime": "help", "batch": 1}
    asked = network_task("latency_ms", device="Pixel3", space="nasbench201", context=context)
    assert asked == measured
    assert network_device("A100").sms == 108


def test_the_default_surrogate_is_asked_where_a_checkpoint_names_networks(tmp_path, monkeypatch):
    import json

    import autotune_rlm.surrogate
    from autotune_rlm.integrations.onnx import default

    for name, languages in (("a", ["triton"]), ("b", ["triton", "onnx"]), ("c", [])):
        (tmp_path / "weights" / name).mkdir(parents=True)
        config = json.dumps({"settings": {"languages": languages}})
        (tmp_path / "weights" / name / "config.json").write_text(config)

    class Found:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(default.importlib.util, "find_spec", lambda name: Found)
    monkeypatch.setattr(autotune_rlm.surrogate, "load", lambda: "the weights in use")
    for cached in (default.networks_checkpoint, default.default_surrogate):
        cached.cache_clear()
    try:
        assert default.networks_checkpoint() == tmp_path / "weights" / "b"
        assert default.default_surrogate() == "the weights in use"
        for cached in (default.networks_checkpoint, default.default_surrogate):
            cached.cache_clear()
        (tmp_path / "weights" / "b" / "config.json").unlink()
        assert default.default_surrogate() is None
    finally:
        for cached in (default.networks_checkpoint, default.default_surrogate):
            cached.cache_clear()


def test_predict_asks_a_surrogate_in_the_words_of_training():
    from autotune_rlm.integrations.onnx import predict
    from autotune_rlm.types import Prediction

    asked = []

    class Listening:
        def predict(self, task, candidates, *, observed=()):
            asked.append((task, candidates))
            value = np.array([c.config["net_macs"] for c in candidates])
            ones = np.ones(len(value))
            return Prediction(
                metric=task.metric,
                median=value,
                low=value / 2,
                high=value * 2,
                spread=ones,
                p_valid=ones,
            )

    cells = space("nasbench201")
    rng = np.random.default_rng(0)
    graphs = [cells.graph(cells.sample(rng)) for _ in range(6)]
    predict(graphs, "latency_ms", device="gold_6240", context={"batch": 1}, surrogate=Listening())
    (task, candidates), *_ = asked
    table = column_task("gold_6240", "fbnet", named=False)
    assert task == table
    assert dict(candidates[0].config) == dict(network_candidate(network_fields(graphs[0])).config)
    led = predict(
        graphs[2:],
        "accuracy",
        surrogate=Listening(),
        observed={"accuracy": [(g, float(i)) for i, g in enumerate(graphs[:2])]},
    )
    assert asked[-1][0].device.name == "none"
    assert len(asked[-1][1]) == 6
    assert np.isfinite(led.median).all()
