"""Shapes of results that onnx has no inference for, most of them in ONNX Runtime's own domain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autotune_rlm.networks._graph import Graph, Node, Tensor
from autotune_rlm.networks._operators import MICROSOFT, Call, UnknownShape

_Shape = Callable[[Call], tuple[int, ...]]


def _same(call: Call) -> tuple[int, ...]:
    return call.shape(0)


def _product(a: int = 0, b: int = 1) -> _Shape:
    def shape(call: Call) -> tuple[int, ...]:
        left, right = call.shape(a), call.shape(b)
        rows = left[-1 if call.number("transA") else -2]
        columns = right[-2 if call.number("transB") else -1]
        lead = left[:-2] if len(left) >= len(right) else right[:-2]
        return (*lead, rows, columns)

    return shape


def _packed_product(call: Call) -> tuple[int, ...]:
    return (*call.shape(0)[:-1], call.number("N"))


def _joined_width(call: Call) -> tuple[int, ...]:
    sizes = call.node.attributes.get("qkv_hidden_sizes") or [call.shape(1)[-1] // 3] * 3
    return (*call.shape(0)[:-1], int(sizes[2]))


def _attended(call: Call) -> tuple[int, ...]:
    query = call.shape(0)
    if len(query) == 5:
        return query[0], query[1], query[2] * query[4]
    if not call.has(1):
        heads, shared = call.number("num_heads"), call.number("kv_num_heads")
        part = heads / (heads + 2 * shared) if shared else 1 / 3
        return (*query[:2], round(query[2] * part))
    if call.has(2) and not call.number("kv_num_heads"):
        value = call.shape(2)
        return (*query[:2], value[1] * value[3] if len(value) == 4 else value[2])
    return query


def _convolved(weight: int | None, channels_last: bool) -> _Shape:
    """Of a convolution by the weight in this slot, or of pooling (None)."""

    def shape(call: Call) -> tuple[int, ...]:
        attributes, data = call.node.attributes, call.shape(0)
        last = channels_last or bool(call.number("channels_last"))
        spatial = data[1:-1] if last else data[2:]
        channels = data[-1] if last else data[1]
        window = list(attributes.get("kernel_shape") or ())
        if weight is not None:
            channels, _, *window = call.shape(weight)
        n = len(spatial)
        pads = list(attributes.get("pads") or [0] * 2 * n)
        strides = list(attributes.get("strides") or [1] * n)
        dilations = list(attributes.get("dilations") or [1] * n)
        if attributes.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER"):
            sizes = [-(-s // t) for s, t in zip(spatial, strides, strict=True)]
        else:
            up = strides if call.number("ceil_mode") else [1] * n
            sizes = [
                (spatial[i] + pads[i] + pads[n + i] - dilations[i] * (window[i] - 1) - 2 + up[i])
                // strides[i]
                + 1
                for i in range(n)
            ]
        return (data[0], *sizes, channels) if last else (data[0], channels, *sizes)

    return shape


def _to_blocks(call: Call) -> tuple[int, ...]:
    shape = call.shape(0)
    return (shape[0], shape[-1], *shape[1:-1]) if call.number("channels_last") else shape


def _from_blocks(call: Call) -> tuple[int, ...]:
    first, _, *spatial = call.shape(0)
    channels = call.number("channels")
    last = call.number("channels_last")
    return (first, *spatial, channels) if last else (first, channels, *spatial)


def _scaled(call: Call) -> tuple[int, ...]:
    scales = call.node.attributes["scales"]
    return tuple(int(a * b) for a, b in zip(call.shape(0), scales, strict=True))


def _global_mean(call: Call) -> tuple[int, ...]:
    data = call.shape(0)
    ones = (1,) * (len(data) - 2)
    return (data[0], *ones, data[-1]) if call.number("channels_last") else (*data[:2], *ones)


def _embedded(call: Call) -> tuple[int, ...]:
    return (*call.shape(0), call.shape(2)[-1])


def _looked_up(call: Call) -> tuple[int, ...]:
    data = call.shape(0)
    packed = (
        8 // call.number("bits", 4) if call.graph.tensor(call.node.inputs[0]).dtype == "u8" else 1
    )
    axis = call.number("gather_axis") % len(data)
    wide = (*data[:-1], data[-1] * packed)
    return (*wide[:axis], *call.shape(1), *wide[axis + 1 :])


def _broadcast(a: int, b: int) -> _Shape:
    return lambda call: np.broadcast_shapes(call.shape(a), call.shape(b))


_SHAPES: dict[str, _Shape] = {
    **dict.fromkeys(
        (
            "BiasAdd", "BiasGelu", "BiasDropout", "BiasSoftmax", "DequantizeLinear", "FastGelu",
            "Gelu", "GroupNorm", "GatedRMSNorm", "GemmaRotaryEmbedding", "QLinearLeakyRelu",
            "QLinearSigmoid", "QLinearSoftmax", "QuantizeLinear", "QuickGelu",
            "RotaryEmbedding", "ScaledSiLU", "SkipGroupNorm", "SkipLayerNormalization",
            "SkipSimplifiedLayerNormalization", "MoE", "QMoE", "Trilu", "Inverse",
        ),
        _same,
    ),
    **{
        op: _product()
        for op in (
            "FusedMatMul", "TransposeMatMul", "FusedMatMulActivation", "MatMulInteger16",
            "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "FusedGemm", "GemmFastGelu",
        )
    },
    "QGemm": _product(0, 3),
    "MatMulNBits": _packed_product,
    "MatMulBnb4": _packed_product,
    "Attention": _joined_width,
    "QAttention": _joined_width,
    "MultiHeadAttention": _attended,
    "DecoderMaskedMultiHeadAttention": _attended,
    "GroupQueryAttention": _attended,
    "SparseAttention": _attended,
    "FusedConv": _convolved(1, False),
    "NhwcFusedConv": _convolved(1, True),
    "NhwcConv": _convolved(1, True),
    "QLinearConv": _convolved(3, False),
    "nchwc.Conv": _convolved(1, False),
    "nchwc.MaxPool": _convolved(None, False),
    "nchwc.AveragePool": _convolved(None, False),
    "nchwc.GlobalMaxPool": _global_mean,
    "nchwc.GlobalAveragePool": _global_mean,
    "nchwc.ReorderInput": _to_blocks,
    "nchwc.ReorderOutput": _from_blocks,
    "nchwc.Upsample": _scaled,
    "QLinearAdd": _broadcast(0, 3),
    "QLinearMul": _broadcast(0, 3),
    "QLinearGlobalAveragePool": _global_mean,
    "EmbedLayerNormalization": _embedded,
    "QEmbedLayerNormalization": _embedded,
    "GatherBlockQuantized": _looked_up,
}  # fmt: skip
_UNCHANGED = frozenset(
    {"SimplifiedLayerNormalization", "GroupNormalization", "MeanVarianceNormalization"}
)  # type and shape are the first argument's, in the standard domain too
_TYPED_LIKE = {  # slot of the argument whose type the result has, where it is not the first
    "DequantizeLinear": 1, "MatMulIntegerToFloat": 2, "EmbedLayerNormalization": 2,
    "QEmbedLayerNormalization": 7, "GatherBlockQuantized": 2, "QAttention": 3, "QuantizeLinear": 2,
    "QLinearConv": 7, "QGemm": 8, "MatMulInteger16": -1,
}  # fmt: skip


def foreign_result(graph: Graph, node: Node) -> Tensor | None:
    """The first result of an operator that onnx has no inference for; None where not known."""
    op = node.op.removeprefix(MICROSOFT)
    if op in _UNCHANGED:
        return graph.tensor(node.inputs[0])
    if not node.op.startswith(MICROSOFT) or op not in _SHAPES:
        return None
    call = Call(graph, node)
    try:
        shape = _SHAPES[op](call)
    except (UnknownShape, IndexError, KeyError, TypeError, ValueError):
        return None
    slot = _TYPED_LIKE.get(op, 0)
    if slot < 0:
        return Tensor("i32", shape)
    dtype = graph.tensor(node.inputs[slot]).dtype if call.has(slot) else "f32"
    return Tensor(dtype, shape)
