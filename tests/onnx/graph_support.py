"""Small ONNX graphs that the tests of this folder build."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

MICROSOFT = "com.microsoft"
value = h.make_tensor_value_info


def weight(name, *shape, dtype=np.float32):
    return numpy_helper.from_array(np.zeros(shape, dtype), name)


def ints(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def scalar(name, number, dtype=np.int64):
    return numpy_helper.from_array(np.array(number, dtype), name)


def model(nodes, inputs, weights=(), *, out=("y",), opset=18, functions=(), domains=()):
    outputs = [value(o, T.FLOAT, None) if isinstance(o, str) else o for o in out]
    graph = h.make_graph(nodes, "g", inputs, outputs, list(weights))
    opsets = [h.make_opsetid("", opset), *(h.make_opsetid(d, 1) for d in domains)]
    return h.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))


def product(x="x", w="w", y="y"):
    return h.make_node("MatMul", [x, w], [y])


X = value("x", T.FLOAT, [4, 128])


MACS = 4 * 128 * 64


def branch(nodes, out, weights=()):
    return h.make_graph(nodes, "b", [], [value(out, T.FLOAT, None)], list(weights))


def quantised(bits=8):
    """A linear layer as float, in 8 bits and in packed 4 bits: the same layer each time."""
    if bits == 32:
        return model([product()], [X], [weight("w", 128, 64)])
    if bits == 4:
        node = h.make_node(
            "MatMulNBits",
            ["x", "b", "s"],
            ["y"],
            domain=MICROSOFT,
            K=128,
            N=64,
            bits=4,
            block_size=32,
        )
        stored = [weight("b", 64, 4, 16, dtype=np.uint8), weight("s", 256)]
        return model([node], [X], stored, domains=[MICROSOFT])
    nodes = [h.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=1), product()]
    stored = [weight("q", 128, 64, dtype=np.int8), weight("s", 64), weight("z", 64, dtype=np.int8)]
    return model(nodes, [X], stored)
