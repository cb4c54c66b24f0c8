"""What a search promises: it ends, tries nothing twice, survives what fails, trains few for long."""

from __future__ import annotations

import collections
import logging

import numpy as np
import pytest

pytest.importorskip("onnx")
optuna = pytest.importorskip("optuna")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from autotune_rlm.integrations.onnx import ArchitectureSpace, search, space  # noqa: E402
from autotune_rlm.integrations.onnx._rungs import Rungs  # noqa: E402
from autotune_rlm.networks import graph_facts  # noqa: E402

value = helper.make_tensor_value_info


def chain(widths):
    """A product for each width."""
    nodes, weights, last, inputs = [], [], "x", 8
    for i, width in enumerate(widths):
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"y{i}"]))
        weights.append(numpy_helper.from_array(np.zeros((inputs, width), np.float32), f"w{i}"))
        last, inputs = f"y{i}", width
    ends = [value("x", TensorProto.FLOAT, [2, 8])], [value(last, TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", *ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Chains(ArchitectureSpace):
    """Up to three products; the widths of those beyond the depth do not matter."""

    name = "chains"
    parameters = {"depth": (1, 2, 3), "w0": (4, 8), "w1": (4, 8), "w2": (4, 8)}  # noqa: RUF012
    conditions = {  # noqa: RUF012
        "w1": lambda config: config["depth"] > 1,
        "w2": lambda config: config["depth"] > 2,
    }
    input_shape = (2, 8)
    networks = 2 + 4 + 8

    def build(self, config):
        return chain([config[f"w{i}"] for i in range(config["depth"])])


def counted(trained, fails=lambda config: False):
    def train(config, *epochs):
        trained[(tuple(config.values()), *epochs)] += 1
        if fails(config):
            raise RuntimeError("cannot be trained")
        return float(config["depth"] * config["w0"])

    return train


@pytest.mark.parametrize("batch", [1, 4, 20])
def test_a_finite_space_ends_when_all_networks_were_tried_once(batch, caplog):
    trained = collections.Counter()
    objective = {"accuracy": ("maximize", counted(trained))}
    with caplog.at_level(logging.INFO):
        study = search(Chains(), objective, 60, batch=batch, seed=0, surrogate=False)
    canonical = {tuple(Chains().canonical(dict(t.params)).values()) for t in study.trials}
    assert len(canonical) == Chains.networks
    assert sum(trained.values()) == Chains.networks
    assert "all networks were tried" in caplog.text
    assert "best accuracy" in caplog.text


def test_a_study_that_is_gone_on_with_trains_nothing_again():
    trained = collections.Counter()
    objective = {"accuracy": ("maximize", counted(trained))}
    study = search(Chains(), objective, 6, seed=0, surrogate=False)
    search(Chains(), objective, 60, study=study, surrogate=False)
    assert sum(trained.values()) == Chains.networks
    search(Chains(), objective, 5, study=study, surrogate=False)
    assert sum(trained.values()) == Chains.networks


def test_what_cannot_be_built_or_trained_fails_its_trial_and_is_not_tried_again():
    class Fragile(Chains):
        def build(self, config):
            if config["depth"] == 3:
                raise MemoryError("too deep")
            return super().build(config)

    trained = collections.Counter()
    train = counted(trained, fails=lambda config: config["w0"] == 4)
    study = search(Fragile(), {"accuracy": ("maximize", train)}, 60, seed=0, surrogate=False)
    states = collections.Counter(
        t.state.name for t in study.trials if "twin_of" not in t.user_attrs
    )
    assert states["COMPLETE"] == 1 + 2
    errors = {t.user_attrs["error"] for t in study.trials if t.state.name == "FAIL"}
    assert {"MemoryError: too deep", "RuntimeError: cannot be trained"} <= errors
    assert max(trained.values()) == 1


def test_few_epochs_choose_what_is_trained_longer():
    trained = collections.Counter()
    study = search(
        Chains(), {"accuracy": ("maximize", counted(trained))}, 60, epochs=(1, 3, 9), batch=2,
        seed=0, surrogate=False,
    )  # fmt: skip
    by_epochs = collections.Counter(key[1] for key in trained)
    assert by_epochs[1] == Chains.networks
    assert by_epochs[1] > by_epochs[3] >= by_epochs[9] > 0
    assert study.best_value == 24.0
    states = collections.Counter(t.state.name for t in study.trials)
    assert states["PRUNED"] == by_epochs[1] - by_epochs[9]
    assert study.best_trial.user_attrs["accuracy_1"] == 24.0
    with pytest.raises(ValueError, match="rising"):
        Rungs((3, 3))
    with pytest.raises(ValueError, match="no objective has a function"):
        search(Chains(), {"macs": "minimize"}, 3, epochs=(1, 3))


def test_progress_is_shown_where_asked(capsys):
    search(Chains(), {"macs": "minimize"}, 4, seed=0, surrogate=False, show_progress_bar=True)
    shown = capsys.readouterr().err
    assert "4 of 4 networks" in shown
    assert "best macs" in shown


def test_layers_beyond_the_depth_change_no_transformer():
    known, rng = space("transformer"), np.random.default_rng(0)
    config = {**known.sample(rng), "depth": 2}
    other = {**config, "h7": 3 if config["h7"] != 3 else 6}
    assert known.canonical(config) == known.canonical(other)
    assert known.text(config) == known.text(other)
    assert graph_facts(known.model(config)).operators["Softmax"] == 2


def test_zero_cost_proxies_are_read_where_there_is_a_module():
    torch = pytest.importorskip("torch")
    from autotune_rlm.networks.proxies import zero_cost

    class Mlp(ArchitectureSpace):
        name = "mlp"
        parameters = {"width": (8, 32), "depth": (1, 2)}  # noqa: RUF012
        input_shape = (1, 16)
        zero_cost = True

        def build(self, config):
            torch.manual_seed(0)
            layers, inputs = [], 16
            for _ in range(config["depth"]):
                layers += [torch.nn.Linear(inputs, config["width"]), torch.nn.ReLU()]
                inputs = config["width"]
            return torch.nn.Sequential(*layers, torch.nn.Linear(inputs, 4))

    small = Mlp().hints({"width": 8, "depth": 1})
    assert small == Mlp().hints({"width": 8, "depth": 1})
    assert Mlp().hints({"width": 32, "depth": 2})["log_synflow"] > small["log_synflow"]
    assert Mlp().hints({"width": 32, "depth": 1})["naswot"] > small["naswot"]
    module = Mlp().build({"width": 8, "depth": 1})
    before = [p.clone() for p in module.parameters()]
    zero_cost(module, (1, 16))
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert zero_cost(chain([4]), (2, 8)) == {}
    study = search(Mlp(), {"macs": "minimize"}, 10, seed=0, surrogate=False)
    assert len([t for t in study.trials if "twin_of" not in t.user_attrs]) == 4
