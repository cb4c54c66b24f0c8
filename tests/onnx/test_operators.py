"""What single operators of ONNX cost: products, quantised layers, tables, Identity."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
from graph_support import (
    MACS,
    MICROSOFT,
    X,
    branch,
    ints,
    model,
    product,
    quantised,
    value,
    weight,
)
from onnx import TensorProto as T
from onnx import helper as h

from autotune_rlm.networks import graph_facts, onnx_text

B, S, HEADS, D = 2, 16, 8, 32


def one(op, shapes, *, domain="", opset=23, dtypes=(), weights=(), **attributes):
    names = [f"x{i}" if s is not None else "" for i, s in enumerate(shapes)]
    kinds = [*dtypes, *[T.FLOAT] * len(shapes)]
    inputs = [
        value(n, k, s) for n, k, s in zip(names, kinds, shapes, strict=False) if s is not None
    ]
    node = h.make_node(op, [*names, *(w.name for w in weights)], ["y"], domain=domain, **attributes)
    domains = [domain] if domain else []
    return graph_facts(model([node], inputs, weights, opset=opset, domains=domains))


Q = [B, HEADS, S, D]


FLAT = [B, S, HEADS * D]


SELF = 2 * B * S * S * HEADS * D


@pytest.mark.parametrize(
    ("op", "shapes", "options", "macs"),
    [
        ("Attention", [Q, Q, Q], {}, SELF),
        ("Attention", [FLAT] * 3, {"q_num_heads": HEADS, "kv_num_heads": HEADS}, SELF),
        ("Attention", [Q, Q, Q, None, Q, Q], {}, 2 * SELF),
        ("MultiHeadAttention", [FLAT] * 3, {"domain": MICROSOFT, "num_heads": HEADS}, SELF),
        ("MultiHeadAttention", [[B, S, HEADS, 3, D]], {"domain": MICROSOFT, "num_heads": HEADS}, SELF),
        ("GroupQueryAttention", [FLAT, [B, S, 2 * D], [B, S, 2 * D]],
         {"domain": MICROSOFT, "num_heads": HEADS, "kv_num_heads": 2}, SELF),
        ("Attention", [[B, S, 64], [64, 3 * 64], [3 * 64]], {"domain": MICROSOFT, "num_heads": 8},
         B * S * 64 * 3 * 64 + 2 * B * S * S * 64),
        ("DeformConv", [[1, 4, 8, 8], [6, 4, 3, 3], [1, 18, 6, 6]], {}, 6 * 6 * 6 * 4 * 9),
        ("Einsum", [[B, 4, 8], [B, 8, 16]], {"equation": "bij,bjk->bik"}, B * 4 * 8 * 16),
        ("Einsum", [[B, 3, 4, 8], [8, 16]], {"equation": "...ij,jk->...ik"}, B * 3 * 4 * 8 * 16),
        ("Einsum", [[B, 4, 8]], {"equation": "bij->bji"}, 0),
        ("FusedMatMul", [[B, 8, 4], [B, 8, 16]], {"domain": MICROSOFT, "transA": 1}, B * 4 * 8 * 16),
        ("MatMul", [[8], [8, 16]], {}, 8 * 16),
        ("MatMul", [[3, 1, 4, 8], [5, 8, 16]], {}, 3 * 5 * 4 * 8 * 16),
        ("FusedConv", [[1, 3, 8, 8], [4, 3, 3, 3]],
         {"domain": MICROSOFT, "pads": [1] * 4, "strides": [2, 2]}, 4 * 4 * 4 * 27),
        ("Inverse", [[4, 4]], {"domain": MICROSOFT}, 64),
    ],
)  # fmt: skip
def test_products_are_counted(op, shapes, options, macs):
    facts = one(op, shapes, **options)
    assert (facts.macs, facts.unknown) == (macs, 0)


@pytest.mark.parametrize(
    ("op", "domain"),
    [("PackedAttention", MICROSOFT), ("BeamSearch", MICROSOFT), ("Magic", "mine"), ("Later", "")],
)
def test_operators_without_a_rule_are_unknown(op, domain):
    assert one(op, [[4, 8]], domain=domain).unknown == 1


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_a_quantised_layer_has_the_parameters_and_products_of_the_layer(bits):
    facts = graph_facts(quantised(bits))
    assert (facts.parameters, facts.macs, facts.unknown) == (128 * 64, MACS, 0)


def test_tables_of_integers_and_masks_are_no_parameters():
    nodes = [
        h.make_node("Gather", ["table", "places"], ["e"]),
        h.make_node("Where", ["mask", "e", "e"], ["y"]),
    ]
    stored = [
        weight("table", 100, 8),
        weight("places", 1, 512, dtype=np.int64),
        weight("mask", 1, 512, 8, dtype=bool),
    ]
    facts = graph_facts(model(nodes, [X], stored))
    assert facts.parameters == 800
    assert facts.weight_bytes == 800 * 4 + 512 * 8 + 512 * 8


@pytest.mark.parametrize("place", ["weight", "shape", "branch", "output", "many"])
def test_identity_changes_nothing_wherever_it_stands(place):
    def built(identity):
        def behind(name, where):
            if not identity or where != place:
                return name, []
            count = 3000 if place == "many" else 1
            names = [name, *(f"{name}.{i}" for i in range(count))]
            return names[-1], [
                h.make_node("Identity", [names[i]], [names[i + 1]]) for i in range(count)
            ]

        w, first = behind("w", "weight")
        s, second = behind("s", "shape")
        m, many = behind("x", "many")
        inner, third = behind("x", "branch")
        out, last = behind("t", "output")
        then = branch([*third, product(inner, w, "t"), *last], out)
        other = branch([h.make_node("MatMul", ["x", "w"], ["u"])], "u")
        nodes = [
            *first, *second, *many, h.make_node("Reshape", [m, s], ["r"]),
            h.make_node("If", ["c"], ["z"], then_branch=then, else_branch=other),
            h.make_node("Concat", ["z", "z"], ["y"], axis=0),
        ]  # fmt: skip
        stored = [weight("w", 128, 64), ints("s", 8, 64)]
        return model(nodes, [value("c", T.BOOL, []), X], stored, out=("y", "r"))

    assert onnx_text(built(True)) == onnx_text(built(False))
    assert graph_facts(built(True)) == graph_facts(built(False))


@pytest.mark.parametrize("op", ["GroupNormalization", "MeanVarianceNormalization"])
def test_what_follows_an_operator_that_onnx_infers_no_shape_of_is_known(op):
    scales = [weight("s", 8), weight("b", 8)] if op == "GroupNormalization" else []
    options = {"num_groups": 2} if scales else {}
    nodes = [
        h.make_node(op, ["x", *(w.name for w in scales)], ["n"], **options),
        h.make_node("Conv", ["n", "w"], ["y"]),
    ]
    net = model(
        nodes, [value("x", T.FLOAT, [1, 8, 6, 6])], [*scales, weight("w", 4, 8, 3, 3)], opset=21
    )
    facts = graph_facts(net)
    assert (facts.macs, facts.unknown) == (4 * 8 * 9 * 16, 0)


def test_a_graph_that_onnx_runtime_laid_out_in_blocks_has_the_same_work(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    nodes = [
        h.make_node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
        h.make_node("Relu", ["a"], ["b"]),
        h.make_node("MaxPool", ["b"], ["c"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        h.make_node("Conv", ["c", "w1"], ["d"], group=32),
        h.make_node("AveragePool", ["d"], ["e"], kernel_shape=[2, 2]),
        h.make_node("Conv", ["e", "w2"], ["f"]),
        h.make_node("GlobalAveragePool", ["f"], ["y"]),
    ]
    weights = [weight("w0", 32, 3, 3, 3), weight("w1", 32, 1, 3, 3), weight("w2", 32, 32, 1, 1)]
    net = model(nodes, [value("x", T.FLOAT, [1, 3, 20, 20])], weights)
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "blocks.onnx")
    options.log_severity_level = 4
    runtime.InferenceSession(net.SerializeToString(), options, providers=["CPUExecutionProvider"])
    plain, blocks = graph_facts(net), graph_facts(tmp_path / "blocks.onnx")
    assert (blocks.macs, blocks.parameters) == (plain.macs, plain.parameters)
    assert blocks.unknown == plain.unknown == 0
