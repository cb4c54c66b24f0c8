"""What operators cost: multiply-accumulates, and which weights count.

Operators of the standard set that are in no table have no products. Nor have the named ones of ONNX
Runtime's own domain. Every other operator of another domain is unknown.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from autotune_rlm.networks._graph import Graph, Node, Tensor

_REVIEWED_OPSET = 28
"""Operators that the standard set had then were looked at; later ones are unknown."""
MICROSOFT = "com.microsoft."


class UnknownShape(ValueError):
    """A shape that the cost of a node depends on is not known."""


@dataclass(frozen=True)
class Call:
    """A node with the shapes of its arguments and results."""

    graph: Graph
    node: Node

    def has(self, slot: int) -> bool:
        return len(self.node.inputs) > slot and bool(self.node.inputs[slot])

    def shape(self, slot: int) -> tuple[int, ...]:
        shape = self.graph.tensor(self.node.inputs[slot]).shape if self.has(slot) else None
        return _static(shape)

    def out(self, slot: int = 0) -> tuple[int, ...]:
        return _static(self.graph.tensor(self.node.outputs[slot]).shape)

    def number(self, name: str, default: int = 0) -> int:
        return int(self.node.attributes.get(name, default))


def _static(shape: tuple[int | str, ...] | None) -> tuple[int, ...]:
    if shape is None or any(isinstance(d, str) for d in shape):
        raise UnknownShape
    return tuple(int(d) for d in shape)


_Rule = Callable[[Call], int]


def node_macs(graph: Graph, node: Node) -> int | None:
    """Multiply-accumulates of one operator, without the graphs that it holds.

    0 for operators that have none, None where a shape or the operator is unknown.
    """
    rule = _MACS.get(node.op)
    if rule is None:
        return 0 if _is_free(node.op) else None
    try:
        return rule(Call(graph, node))
    except (UnknownShape, IndexError, KeyError, TypeError, ValueError):  # not as it must be
        return None


@functools.lru_cache(maxsize=1024)
def _is_free(op: str) -> bool:
    if op.startswith(MICROSOFT):
        return op.removeprefix(MICROSOFT) in _FREE_MICROSOFT
    if op in _FREE_OTHERS:
        return True
    import onnx

    try:
        onnx.defs.get_schema(op, _REVIEWED_OPSET, "")
    except onnx.defs.SchemaError:
        return False
    return True


# ---- products and convolutions


def _matmul(a: int = 0, b: int = 1) -> _Rule:
    def macs(call: Call) -> int:
        left, right = call.shape(a), call.shape(b)
        k = left[-2 if call.number("transA") and len(left) > 1 else -1]
        if len(left) == 1 or len(right) == 1:
            return math.prod(left) * math.prod(right) // max(k, 1)
        n = right[-2 if call.number("transB") else -1]
        rows = left[-1 if call.number("transA") else -2]
        return math.prod(np.broadcast_shapes(left[:-2], right[:-2])) * rows * k * n

    return macs


def _rows(call: Call) -> int:
    return math.prod(call.shape(0)[:-1])


def _packed_matmul(call: Call) -> int:
    return _rows(call) * call.number("K") * call.number("N")


def _conv(weight: int = 1) -> _Rule:
    return lambda call: math.prod(call.out()) * math.prod(call.shape(weight)[1:])


def _conv_transpose(call: Call) -> int:
    return math.prod(call.shape(0)) * math.prod(call.shape(1)[1:])


def _recurrent(call: Call) -> int:
    return math.prod(call.shape(0)[:2]) * (math.prod(call.shape(1)) + math.prod(call.shape(2)))


def _einsum(call: Call) -> int:
    equation = call.node.attributes.get("equation", b"")
    text = equation.decode() if isinstance(equation, bytes) else str(equation)
    terms = text.replace(" ", "").split("->")[0].split(",")
    if len(terms) != len(call.node.inputs):
        raise UnknownShape
    extents: dict[str, int] = {}
    for slot, term in enumerate(terms):
        shape = call.shape(slot)
        head, dots, tail = term.partition("...")
        covered = len(shape) - len(head) - len(tail)
        if covered < 0 or (covered and not dots):
            raise UnknownShape
        inner = [f".{covered - i}" for i in range(covered)]  # an ellipsis is aligned at its end
        for letter, size in zip([*head, *inner, *tail], shape, strict=True):
            extents[letter] = max(extents.get(letter, 0), size)
    return math.prod(extents.values()) * max(len(terms) - 1, 0)


# ---- attention


def _heads(call: Call, slot: int, heads: int) -> tuple[int, int, int, int]:
    """Batch, heads, tokens and size of a head of a query, key or value of 3 or 4 axes."""
    shape = call.shape(slot)
    if len(shape) == 4:
        return shape
    if len(shape) != 3 or not heads:
        raise UnknownShape
    return shape[0], heads, shape[1], shape[2] // heads


def _attention(call: Call) -> int:
    """The standard operator: query, key, value, mask, past key, past value."""
    batch, heads, queries, size = _heads(call, 0, call.number("q_num_heads"))
    keys = _heads(call, 1, call.number("kv_num_heads"))[2]
    value_size = _heads(call, 2, call.number("kv_num_heads"))[3]
    if call.has(4):
        keys += call.shape(4)[2]
    return batch * heads * queries * keys * (size + value_size)


def _linear_attention(call: Call) -> int:
    """A state of (head size, value size) per head, updated and read once a token."""
    batch, heads, tokens, size = _heads(call, 0, call.number("q_num_heads"))
    value_size = _heads(call, 2, call.number("kv_num_heads") or heads)[3]
    return 2 * batch * heads * tokens * size * value_size


def _joined_attention(weight: int, past: int) -> _Rule:
    """ONNX Runtime's ``Attention`` and ``QAttention``: the projections are part of it."""

    def macs(call: Call) -> int:
        batch, tokens, hidden = call.shape(0)
        width = call.shape(weight)[-1]
        sizes = call.node.attributes.get("qkv_hidden_sizes") or [width // 3] * 3
        keys = tokens + (call.shape(past)[3] if call.has(past) else 0)
        return batch * tokens * (hidden * width + keys * (int(sizes[0]) + int(sizes[2])))

    return macs


def _multi_head_attention(call: Call) -> int:
    """ONNX Runtime's ``MultiHeadAttention`` and its relatives, in their layouts of query and key."""
    query = call.shape(0)
    if len(query) == 5:  # batch, tokens, heads, 3, size: all three in one
        batch, tokens, heads, _, size = query
        return 2 * batch * tokens * tokens * heads * size
    batch, tokens, width = query
    if not call.has(1):
        return 2 * batch * tokens * tokens * width // 3
    key = call.shape(1)
    keys = key[2] if len(key) == 4 else key[1]
    if len(key) == 4 and not call.has(2):
        raise UnknownShape
    value_width = width
    if call.has(2):
        value = call.shape(2)
        value_width = value[1] * value[3] if len(value) == 4 else value[2]
    past = 6
    if call.node.op.endswith(".MultiHeadAttention") and call.has(past):
        keys += call.shape(past)[2]
    return batch * tokens * keys * (width + value_width)


def _grouped_attention(call: Call) -> int:
    batch, tokens, width = call.shape(0)
    heads, shared = call.number("num_heads"), call.number("kv_num_heads")
    if not call.has(1):  # query, key and value in one
        width = width * heads // (heads + 2 * shared)
    keys = tokens
    if call.has(3):
        past = call.shape(3)[2]
        present = [o for o in call.node.outputs[1:2] if o]
        told = call.graph.tensor(present[0]).shape if present else None
        keys = int(told[2]) if told and isinstance(told[2], int) else past + tokens
    return 2 * batch * tokens * keys * width


# ---- others


def _transform(call: Call) -> int:
    """Radix-2 Fourier transform: N/2 log2 N complex products of four real ones each."""
    shape = call.out()
    length = max(shape[-2] if len(shape) > 1 else shape[-1], 2)
    return round(math.prod(shape) * math.log2(length))


def _linear_model(call: Call) -> int:
    rows = call.shape(0)[0] if len(call.shape(0)) > 1 else 1
    return rows * len(call.node.attributes.get("coefficients", ()))


def _support_vectors(call: Call) -> int:
    rows = call.shape(0)[0] if len(call.shape(0)) > 1 else 1
    vectors = call.node.attributes.get("support_vectors") or call.node.attributes["coefficients"]
    return rows * len(vectors)


def _experts(call: Call) -> int:
    """Mixture of experts: each token goes through ``k`` of them, two or three products each."""
    tokens, first = _rows(call), call.shape(2)
    second = call.shape(5 if call.node.op.endswith(".QMoE") else 4)
    per_expert = math.prod(first[1:]) + math.prod(second[1:])
    third = 8 if call.node.op.endswith(".QMoE") else 6
    if call.has(third):
        per_expert += math.prod(call.shape(third)[1:])
    packed = 8 // call.number("expert_weight_bits", 4) if call.node.op.endswith(".QMoE") else 1
    return tokens * call.number("k", 1) * per_expert * packed


def _causal_conv(call: Call) -> int:
    return math.prod(call.shape(0)) * call.shape(1)[-1]


_CONVS: dict[str, _Rule] = {
    "Conv": _conv(),
    "ConvInteger": _conv(),
    "QLinearConv": _conv(3),
    "DeformConv": _conv(),
    "ConvTranspose": _conv_transpose,
    "CausalConvWithState": _causal_conv,
    **{MICROSOFT + op: _conv() for op in ("FusedConv", "NhwcFusedConv", "NhwcConv", "nchwc.Conv")},
    MICROSOFT + "QLinearConv": _conv(3),
    MICROSOFT + "ConvTransposeWithDynamicPads": _conv_transpose,
    MICROSOFT + "CausalConvWithState": _causal_conv,
}
_MATRIX: dict[str, _Rule] = {
    "MatMul": _matmul(),
    "MatMulInteger": _matmul(),
    "QLinearMatMul": _matmul(0, 3),
    "Gemm": _matmul(),
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
    "ai.onnx.preview.FlexAttention": _attention,
    "LinearAttention": _linear_attention,
    "AffineGrid": lambda call: math.prod(call.out()) * call.shape(0)[-1],
    "DFT": _transform,
    "STFT": _transform,
    "Det": lambda call: math.prod(call.shape(0)) * call.shape(0)[-1] // 3,
    "ai.onnx.ml.LinearClassifier": _linear_model,
    "ai.onnx.ml.LinearRegressor": _linear_model,
    "ai.onnx.ml.SVMClassifier": _support_vectors,
    "ai.onnx.ml.SVMRegressor": _support_vectors,
    **{
        MICROSOFT + op: _matmul()
        for op in (
            "FusedMatMul", "TransposeMatMul", "FusedMatMulActivation", "MatMulInteger16",
            "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "FusedGemm", "GemmFastGelu",
            "GemmFloat8", "SparseToDenseMatMul",
        )
    },
    MICROSOFT + "QGemm": _matmul(0, 3),
    MICROSOFT + "QLinearMatMul": _matmul(0, 3),
    **{MICROSOFT + op: _packed_matmul for op in ("MatMulNBits", "MatMulBnb4")},
    MICROSOFT + "DynamicQuantizeLSTM": _recurrent,
    MICROSOFT + "Attention": _joined_attention(1, 4),
    MICROSOFT + "QAttention": _joined_attention(1, 8),
    MICROSOFT + "MultiHeadAttention": _multi_head_attention,
    MICROSOFT + "DecoderMaskedMultiHeadAttention": _multi_head_attention,
    MICROSOFT + "GroupQueryAttention": _grouped_attention,
    MICROSOFT + "SparseAttention": _grouped_attention,
    MICROSOFT + "LinearAttention": _linear_attention,
    MICROSOFT + "MoE": _experts,
    MICROSOFT + "QMoE": _experts,
    MICROSOFT + "Inverse": lambda call: math.prod(call.shape(0)) * call.shape(0)[-1],
}  # fmt: skip
_MACS = {**_CONVS, **_MATRIX}

CONVOLUTIONS: Mapping[str, int] = {
    op: 3 if op.endswith("QLinearConv") else 1 for op in _CONVS if "Causal" not in op
}
"""Convolutions with the slot of their weight."""
PRODUCTS = frozenset(_MATRIX) - {"AffineGrid", "DFT", "STFT", "Det"}

_FREE_MICROSOFT = frozenset({
    "BiasAdd", "BiasDropout", "BiasGelu", "BiasSoftmax", "BiasSplitGelu", "BitmaskBiasDropout",
    "BitmaskDropout", "ComplexMul", "ComplexMulConj", "CropAndResize", "DequantizeLinear",
    "EmbedLayerNormalization", "ExpandDims", "FastGelu", "GatedAdd", "GatedRMSNorm",
    "GatherBlockQuantized", "GatherND", "Gelu", "GemmaRotaryEmbedding", "GridSample",
    "GroupNorm", "IsAllFinite", "MaxpoolWithMask", "MulInteger", "NhwcMaxPool", "Pad",
    "QEmbedLayerNormalization", "QLinearAdd", "QLinearAveragePool", "QLinearConcat",
    "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearReduceMean",
    "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QuantizeLinear", "QuickGelu",
    "RMSNormRotary", "Range", "ReduceSumInteger", "RelativePositionBias", "RemovePadding",
    "RestorePadding", "RotaryEmbedding", "ScaledSiLU", "SkipGroupNorm",
    "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SwiGLU", "TorchEmbedding",
    "Trilu", "Unique", "UnfoldTensor",
    *(f"nchwc.{op}" for op in (
        "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReorderInput",
        "ReorderOutput", "Upsample",
    )),
})  # fmt: skip
_FREE_OTHERS = frozenset({
    "ai.onnx.ml.ArrayFeatureExtractor", "ai.onnx.ml.Binarizer", "ai.onnx.ml.CastMap",
    "ai.onnx.ml.CategoryMapper", "ai.onnx.ml.DictVectorizer", "ai.onnx.ml.FeatureVectorizer",
    "ai.onnx.ml.Imputer", "ai.onnx.ml.LabelEncoder", "ai.onnx.ml.Normalizer",
    "ai.onnx.ml.OneHotEncoder", "ai.onnx.ml.Scaler", "ai.onnx.ml.TreeEnsemble",
    "ai.onnx.ml.TreeEnsembleClassifier", "ai.onnx.ml.TreeEnsembleRegressor",
    "ai.onnx.ml.ZipMap", "ai.onnx.preview.training.Adagrad", "ai.onnx.preview.training.Adam",
    "ai.onnx.preview.training.Momentum",
    "SimplifiedLayerNormalization",  # ONNX Runtime writes it under the standard name
})  # fmt: skip

# ---- weights that count

_SLOTS: Mapping[str, tuple[int, ...]] = {
    "BatchNormalization": (0, 1, 2),  # not the running statistics
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearConv": (0, 3, 8),
    "QLinearMatMul": (0, 3),
    "QuantizeLinear": (0,),
    "DequantizeLinear": (0,),
    "Clip": (0,),
    "Pad": (0,),
    "Resize": (0,),
    "Upsample": (0,),
    **{
        MICROSOFT + op: slots
        for op, slots in {
            "QLinearConv": (0, 3, 8),
            "QGemm": (0, 3, 6),
            "QLinearMatMul": (0, 3),
            "QLinearAdd": (0, 3),
            "QLinearMul": (0, 3),
            "QuantizeLinear": (0,),
            "DequantizeLinear": (0,),
            "MatMulNBits": (0, 1, 5),
            "MatMulBnb4": (0, 1),
            "DynamicQuantizeMatMul": (0, 1, 4),
            "MatMulIntegerToFloat": (0, 1, 6),
            "QAttention": (0, 1, 2),
            "DynamicQuantizeLSTM": (0, 1, 2, 3),
            "QEmbedLayerNormalization": (2, 3, 4, 5, 6),
            "GatherBlockQuantized": (0,),
            "QMoE": (0, 2, 4, 5, 7, 8, 10),
        }.items()
    },
}
_INTEGER_SLOTS: Mapping[str, tuple[int, ...]] = {  # integers of 16 bits and more that are weights
    "QLinearConv": (8,),
    "DequantizeLinear": (0,),
    MICROSOFT + "QLinearConv": (8,),
    MICROSOFT + "QGemm": (6,),
    MICROSOFT + "QAttention": (2,),
    MICROSOFT + "DequantizeLinear": (0,),
}
_INDICES = frozenset({"i16", "i32", "i64", "u16", "u32", "u64", "bool", "str", "?"})


def parameter_slots(graph: Graph, node: Node) -> list[str]:
    """Arguments of a node that are weights if they are stored: no indices, masks or scales."""
    slots = _SLOTS.get(node.op, range(len(node.inputs)))
    wide = _INTEGER_SLOTS.get(node.op, ())
    return [
        name
        for slot in slots
        if slot < len(node.inputs) and (name := node.inputs[slot])
        if slot in wide or graph.tensor(name).dtype not in _INDICES
    ]


def elements(node: Node, name: str, tensor: Tensor) -> int | None:
    """Numbers that a stored weight holds, unpacked where it packs several in a byte."""
    size = tensor.size()
    if tensor.dtype in ("u8", "i8") and node.op.startswith(MICROSOFT):
        op, attributes = node.op.removeprefix(MICROSOFT), node.attributes
        if op in ("MatMulNBits", "MatMulBnb4") and name == node.inputs[1]:
            return int(attributes.get("K", 0)) * int(attributes.get("N", 0))
        bits = {"GatherBlockQuantized": "bits", "QMoE": "expert_weight_bits"}.get(op)
        if bits and size is not None and tensor.dtype == "u8":
            return size * 8 // int(attributes.get(bits, 4))
    return size
