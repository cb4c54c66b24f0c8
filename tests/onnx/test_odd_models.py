"""Models as strangers have them: old and future operator sets, sequences, training, packed weights."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from autotune_rlm.networks import graph_facts, onnx_text  # noqa: E402

node, FLOAT, INT64 = helper.make_node, TensorProto.FLOAT, TensorProto.INT64


def value(name, shape=None, dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def weight(name, *shape, dtype=np.float32):
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def packed(name, dtype, shape, size):
    return helper.make_tensor(name, dtype, shape, bytes(size), raw=True)


def made(nodes, inputs, outputs=None, weights=(), *, opset=17, ir=8, functions=(), domains=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs or [value("y")], list(weights))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir, functions=list(functions))


X, W = value("x", [4, 16]), weight("w", 16, 32)
PRODUCT = [node("MatMul", ["x", "w"], ["y"])]
MACS = 4 * 16 * 32


def with_training():
    model = made(PRODUCT, [X], weights=[W])
    model.training_info.add().algorithm.CopyFrom(model.graph)
    return model


def sparse():
    model = made(PRODUCT, [X], [value("y", [4, 32])])
    values, indices = helper.make_tensor("w", FLOAT, [2], [1, 2]), [1, 5]
    place = helper.make_tensor("place", INT64, [2], indices)
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, place, [16, 32]))
    return model


def function_with_an_attribute():
    opset = [helper.make_opsetid("", 17)]
    body = [node("Gemm", ["a", "w"], ["b"])]
    function = helper.make_function("f", "layer", ["a", "w"], ["b"], body, opset, ["transB"])
    attribute = function.node[0].attribute.add()
    attribute.name = attribute.ref_attr_name = "transB"
    attribute.type = onnx.AttributeProto.INT
    call = node("layer", ["x", "w"], ["y"], domain="f", transB=1)
    return made([call], [X], weights=[weight("w", 32, 16)], functions=[function], domains=["f"])


def mapped(*names):
    body = helper.make_graph(
        [node("MatMul", ["e", "w"], ["o"])], "b", [value("e", [4, 16])], [value("o", [4, 32])]
    )
    nodes = [
        node("SequenceConstruct", list(names), ["s"]),
        node("SequenceMap", ["s"], ["t"], body=body),
        node("ConcatFromSequence", ["t"], ["y"], axis=0),
    ]
    return made(nodes, [X, value("other", [5, 16])], [value("y", [9, 32])], [W])


def one(op, weights, *, shape=(4, 16), dtype=FLOAT, inputs=("x", "w"), **options):
    settings = {k: options.pop(k) for k in ("opset", "ir", "domains") if k in options}
    nodes = [node(op, list(inputs), ["y"], **options)]
    return made(nodes, [value("x", shape, dtype)], [value("y", None, dtype)], weights, **settings)


MODELS = {
    "first opset": (lambda: made(PRODUCT, [X], weights=[W], opset=1, ir=3), {"macs": MACS}),
    "future opset": (lambda: made(PRODUCT, [X], weights=[W], opset=99, ir=99), {"macs": MACS}),
    "no columns": (lambda: one("MatMul", [weight("w", 16, 0)]), {"macs": 0, "unknown": 0}),
    "training": (with_training, {"macs": MACS, "parameters": 512}),
    "sparse": (sparse, {"macs": MACS}),
    "attribute of a function": (function_with_an_attribute, {"macs": MACS}),
    "bfloat16": (
        lambda: one(
            "MatMul",
            [packed("w", TensorProto.BFLOAT16, [16, 32], 1024)],
            dtype=TensorProto.BFLOAT16,
        ),
        {"macs": MACS, "parameters": 512},
    ),
    "int4": (
        lambda: made(
            [
                node("DequantizeLinear", ["w", "s"], ["f"], axis=0, block_size=16),
                node("MatMul", ["x", "f"], ["y"]),
            ],
            [X],
            weights=[packed("w", TensorProto.INT4, [16, 32], 256), weight("s", 1, 32)],
            opset=21,
            ir=10,
        ),
        {"macs": MACS, "parameters": 512},
    ),
    "sequence": (
        lambda: made(
            [
                node("SplitToSequence", ["x"], ["s"], axis=0),
                node("SequenceAt", ["s", "i"], ["a"]),
                node("MatMul", ["a", "w"], ["y"]),
            ],
            [X],
            weights=[W, numpy_helper.from_array(np.array(0), "i")],
        ),
        {"macs": 16 * 32, "unknown": 0},
    ),
    "map over a sequence": (
        lambda: mapped("x", "x", "x"),
        {"macs": 3 * MACS, "parameters": 512, "unknown": 0},
    ),
    "map over several shapes": (lambda: mapped("x", "other"), {"unknown": 1}),
    "optional": (
        lambda: made(
            [
                node("Optional", ["x"], ["o"]),
                node("OptionalGetElement", ["o"], ["a"]),
                node("MatMul", ["a", "w"], ["y"]),
            ],
            [X],
            weights=[W],
            opset=18,
        ),
        {"macs": MACS, "unknown": 0},
    ),
    "gradient": (
        lambda: one(
            "Gradient",
            [],
            inputs=["x"],
            domain="ai.onnx.preview.training",
            domains=["ai.onnx.preview.training"],
            xs=["x"],
            y="x",
        ),
        {"unknown": 1},
    ),
    "transposed weight": (
        lambda: made(
            [node("Transpose", ["w"], ["t"]), node("MatMul", ["x", "t"], ["y"])],
            [X],
            weights=[weight("w", 32, 16)],
        ),
        {"macs": MACS, "parameters": 512},
    ),
    "one weight twice": (
        lambda: made(
            [node("MatMul", ["x", "v"], ["a"]), node("MatMul", ["a", "v"], ["y"])],
            [X],
            weights=[weight("v", 16, 16)],
        ),
        {"macs": 2 * 4 * 16 * 16, "parameters": 256},
    ),
    "strided": (
        lambda: one(
            "Conv", [weight("w", 8, 3, 3, 3)], shape=(1, 3, 13, 13),
            auto_pad="SAME_UPPER", strides=[2, 2],
        ),
        {"macs": 8 * 3 * 9 * 7 * 7},
    ),
    "deformable": (
        lambda: one(
            "DeformConv", [weight("w", 64, 8, 3, 3), weight("o", 1, 18, 6, 6)],
            shape=(1, 8, 8, 8), inputs=("x", "w", "o"), opset=19,
        ),
        {"macs": 64 * 8 * 9 * 6 * 6},
    ),
    "gru both ways": (
        lambda: one(
            "GRU", [weight("w", 2, 60, 10), weight("r", 2, 60, 20)], shape=(3, 2, 10),
            inputs=("x", "w", "r"), hidden_size=20, direction="bidirectional",
        ),
        {"macs": 2 * 3 * 2 * 60 * (10 + 20)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_facts_are_right_or_unknown(name):
    build, expected = MODELS[name]
    model = build()
    facts = graph_facts(model)
    assert {key: getattr(facts, key) for key in expected} == expected
    assert onnx_text(model)


def test_weights_in_a_file_that_is_not_there_are_not_needed(tmp_path):
    model = made(PRODUCT, [X], weights=[W])
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    (tmp_path / "weights").unlink()
    facts = graph_facts(path)
    assert (facts.macs, facts.parameters) == (MACS, 512)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    file = tmp_path / "net.onnx"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        graph_facts(file)
