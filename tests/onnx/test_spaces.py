"""Architecture spaces: published parameter counts, canonical forms, runnable networks."""

from __future__ import annotations

import csv
import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from autotune_rlm.networks import graph_facts, onnx_text  # noqa: E402
from autotune_rlm.networks.spaces import SPACES, ArchitectureSpace, space  # noqa: E402

DATA = Path(__file__).parents[3] / "shared" / "data" / "nas"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the recorded tables are not here")


def _rows(name, n):
    with gzip.open(DATA / name, "rt") as file:
        return list(itertools.islice(csv.DictReader(file), n))


@pytest.mark.parametrize("name", SPACES)
def test_networks_are_valid_models_with_the_text_and_costs_of_their_graph(name):
    known = space(name)
    config = known.sample(np.random.default_rng(0))
    model = known.model(config)
    onnx.checker.check_model(model, full_check=True)
    assert onnx_text(model) == known.text(config)
    facts = graph_facts(model)
    costs = known.costs(config)
    assert costs == {key: getattr(facts, key) for key in costs}
    assert facts.unknown == 0


@pytest.mark.parametrize("name", SPACES)
def test_samples_mutants_and_children_are_valid(name):
    known, rng = space(name), np.random.default_rng(1)
    a, b = known.sample(rng), known.sample(rng)
    for config in (a, b, known.mutate(a, rng, changes=2), known.cross(a, b, rng)):
        assert known.check(config) == config
        canonical = known.canonical(config)
        assert known.canonical(canonical) == canonical
        assert known.text(canonical) == known.text(config)
    assert known.mutate(a, rng) != a


def test_the_all_convolution_cell_has_its_published_size():
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+"
    cell += "|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    known = space("nasbench201")
    config = known.from_string(cell)
    assert known.to_string(config) == cell
    assert known.costs(config)["parameters"] == 1_531_546


@needs_data
def test_nasbench101_parameters_equal_the_published_ones():
    known = space("nasbench101")
    for row in _rows("nasbench101_30k.csv.gz", 60):
        assert known.costs(known.parse(row))["parameters"] == int(row["trainable_parameters"])


@needs_data
def test_mnasnet_parameters_equal_the_published_ones():
    known = space("mnasnet")
    for row in _rows("accel_nasbench.csv.gz", 60):
        parameters = known.costs(known.parse(row))["parameters"]
        assert parameters / 1e6 == pytest.approx(float(row["params"]), abs=1e-6)


def test_a_cell_whose_edges_lead_nowhere_is_the_empty_cell():
    known = space("nasbench201")
    dead = known.from_string("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_1x1~2|")
    assert set(known.canonical(dead).values()) == {"none"}
    assert known.text(dead) == known.text(known.canonical(dead))


def test_wrong_configurations_are_named():
    known = space("nasbench_macro")
    with pytest.raises(ValueError, match="needs"):
        known.check({})
    with pytest.raises(ValueError, match="b0 must be one of"):
        known.check({f"b{i}": 7 for i in range(8)})
    with pytest.raises(ValueError, match="space must be one of"):
        space("darts")
    assert known.parse({"arch": "00120210"})["b3"] == 2
    assert known.parse({"arch": "120210"}) == known.parse({"arch": "00120210"})


def test_a_space_of_modules_is_exported():
    torch = pytest.importorskip("torch")

    class Mlp(ArchitectureSpace):
        name = "mlp"
        parameters = {"width": (8, 16), "depth": (1, 2)}  # noqa: RUF012
        input_shape = (1, 4)

        def build(self, config):
            layers = [torch.nn.Linear(4, config["width"]), torch.nn.ReLU()]
            layers += [torch.nn.Linear(config["width"], config["width"])] * config["depth"]
            return torch.nn.Sequential(*layers)

    facts = Mlp().facts({"width": 8, "depth": 1})
    assert facts.parameters == 4 * 8 + 8 + 8 * 8 + 8


def test_cells_count_their_paths_and_only_those_that_arrive():
    small = space("nasbench201")
    none = {name: "none" for name in small.parameters}
    assert not small.counts(none)
    cell = none | {"e01": "nor_conv_3x3", "e13": "skip_connect", "e03": "skip_connect"}
    assert small.counts(cell) == {"nor_conv_3x3": 1, "": 1}
    assert small.counts(cell | {"e02": "avg_pool_3x3"}) == small.counts(cell)  # leads nowhere
    both = cell | {"e02": "nor_conv_3x3", "e23": "skip_connect"}
    assert small.counts(both) == {"nor_conv_3x3": 2, "": 1}

    graph = space("nasbench101")
    config = {name: 0 for name in graph.parameters if name[0] == "e"}
    config |= {f"op{v}": "none" for v in range(1, 6)}
    config |= {"e01": 1, "e12": 1, "e26": 1, "e06": 1}
    config |= {"op1": "conv1x1-bn-relu", "op2": "maxpool3x3"}
    assert graph.counts(config) == {"conv1x1-bn-relu maxpool3x3": 1, "": 1}


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201"])
def test_equal_networks_have_equal_paths(name):
    known, rng = space(name), np.random.default_rng(0)
    for _ in range(20):
        config = known.sample(rng)
        assert known.counts(config) == known.counts(known.canonical(config))
