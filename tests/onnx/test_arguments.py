"""Wrong arguments of ``predict`` and ``search`` are named before any work; what is unlikely is said."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("onnx")
optuna = pytest.importorskip("optuna")

from graph_support import X, model, product, weight  # noqa: E402

from autotune_rlm.integrations.onnx import ArchitectureSpace, predict, search, space  # noqa: E402
from autotune_rlm.networks import graph_facts  # noqa: E402
from autotune_rlm.networks.latency import latency_ms, network_work  # noqa: E402
from autotune_rlm.networks.rendering import network_device  # noqa: E402

NET = model([product()], [X], [weight("w", 128, 64)])


class Pairs(ArchitectureSpace):
    """64 combinations, of which those of two equal sizes give a network."""

    name = "pairs"
    parameters = {"a": tuple(range(1, 9)), "b": tuple(range(1, 9))}  # noqa: RUF012

    def valid(self, config):
        return config["a"] == config["b"]

    def build(self, config):
        return model([product()], [X], [weight("w", 128, config["a"])])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": 3}, "metric must be"),
        ({"device": 3}, "device must be"),
        ({"devices": "NVIDIA H100"}, "devices must be a list"),
        ({"devices": [3]}, "each of devices must be"),
        ({"context": 3}, "context must be"),
        ({"surrogate": 3}, "surrogate must be"),
        ({"dims": 3}, "dims must be"),
        ({"dims": {"n": 3}}, "no dynamic dimension named n; it has: none"),
        ({"observed": 3}, "observed must be"),
        ({"observed": {"latency": [(NET, 1.0)]}}, "'latency' is not asked for"),
        ({"observed": {"latency_ms": [(NET,)]}}, "must hold pairs"),
        ({"observed": {"latency_ms": [(NET, "x")]}}, "must be a number"),
        ({"observed": {"latency_ms": [(NET, math.nan)]}}, "must be above 0"),
        ({"observed": {"latency_ms": [(NET, -1.0), (NET, 1.0)]}}, "must be above 0"),
    ],
)
def test_predict_names_what_is_wrong(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        predict(NET, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": "nasbench201"}, r"space\(name\) makes one"),
        ({"objectives": "macs"}, "objectives must be"),
        ({"objectives": {"accuracy": ("maximize", 3)}}, "needs a function"),
        ({"objectives": {"accuracy": ("maximize",)}}, "needs a function"),
        ({"objectives": {"accuracy": len}}, "must minimize or maximize"),
        ({"budget": 2.5}, "budget must be a whole number"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"constraints": 3}, "constraints must be"),
        ({"constraints": {"macs": "few"}}, "the limit of 'macs' must be a number"),
        ({"store": 3}, "store must be"),
        ({"study": 3}, "study must be"),
    ],
)
def test_search_names_what_is_wrong(options, message):
    asked = {"space": Pairs(), "objectives": {"macs": "minimize"}, "budget": 2} | options
    with pytest.raises((TypeError, ValueError), match=message):
        search(**asked)


def test_choices_of_which_few_are_valid_cost_no_budget():
    study = search(Pairs(), {"macs": "minimize"}, 8, seed=0, surrogate=False)
    done = [t for t in study.trials if t.state.name == "COMPLETE"]
    assert {t.params["a"] for t in done} == set(range(1, 9))
    assert all(t.params["a"] == t.params["b"] for t in done)

    class Never(Pairs):
        def valid(self, config):
            return False

    with pytest.raises(ValueError, match="no combination of choices of pairs is valid"):
        search(Never(), {"macs": "minimize"}, 2)


def test_a_value_that_is_no_number_fails_its_trial_with_a_reason():
    study = search(Pairs(), {"accuracy": ("maximize", lambda config: math.nan)}, 2, surrogate=False)
    reasons = [
        trial.user_attrs["error"] for trial in study.trials
    ]  # a twin adds a trial of its own
    assert reasons.count("accuracy is nan") == 2
    assert all(trial.state.name == "FAIL" for trial in study.trials)


def test_a_device_that_is_not_known_is_said():
    with pytest.warns(UserWarning, match="'Commodore 64' is not known"):
        predict(NET, device="Commodore 64", surrogate=False)


@pytest.mark.parametrize("kind", ["noise", "size"])
def test_intervals_hold_where_efficiency_differs_between_networks(kind):
    macro, device = space("nasbench_macro"), network_device("NVIDIA A100")
    rng = np.random.default_rng(1)
    graphs = [macro.graph(macro.sample(rng)) for _ in range(80)]
    size = np.log([graph_facts(g).macs for g in graphs])
    efficiency = 0.1 * rng.standard_normal(80) + 0.5 * (size - size.mean())
    if kind == "noise":
        efficiency = 0.4 * rng.standard_normal(80)
    expected = np.array([latency_ms(network_work(g), device).expected_ms for g in graphs])
    real = expected * np.exp(efficiency)
    inside = []
    for draw in range(4):
        order = np.random.default_rng(draw).permutation(80)
        seen, rest = order[:20], order[20:]
        told = predict(
            [graphs[i] for i in rest],
            device=device,
            observed={"latency_ms": [(graphs[i], float(real[i])) for i in seen]},
            surrogate=False,
        )
        inside.append(np.mean((told.low <= real[rest]) & (real[rest] <= told.high)))
    assert np.mean(inside) > 0.85
