"""A network of any space as the same short list of numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

from autotune_rlm.networks._facts import counted_weights, node_macs
from autotune_rlm.networks._graph import Graph, Node

__all__ = ["FIELDS", "network_fields"]

FIELDS = (
    "parameters",
    "macs",
    "macs_pointwise",
    "macs_grouped",
    "activation_bytes",
    "largest_bytes",
    "nodes",
    "depth",
    "convs",
    "convs_pointwise",
    "convs_grouped",
    "products",
    "kernel",
    "width",
    "width_max",
    "sums",
    "pools",
    "gates",
    "moves",
    "elementwise",
    "path_max",
    "path_min",
    "path_mean",
    "paths",
)
"""Names of the fields, the same for every network.

``parameters``, ``macs``, ``activation_bytes``, ``nodes`` and ``depth`` are those of ``GraphFacts``;
``macs_pointwise`` and ``macs_grouped`` the parts of 1x1 and of grouped convolutions. ``convs``,
``convs_pointwise``, ``convs_grouped``, ``products``, ``sums``, ``pools``, ``gates``, ``moves`` and
``elementwise`` count operators. ``largest_bytes`` is the largest result, ``kernel`` the mean side of
convolutions, ``width`` and ``width_max`` their output channels. ``path_*`` are weighted layers
(convolutions and products) on a path from input to output, ``paths`` the logarithm to base 2 of the
number of paths.
"""

_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool"})
_MOVES = frozenset(
    {"Concat", "Slice", "Split", "Reshape", "Transpose", "Flatten", "Gather", "Pad", "Squeeze"}
    | {"Unsqueeze", "Expand", "Tile", "Resize", "Upsample", "DepthToSpace", "SpaceToDepth"}
)
_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv", "FusedConv", "ConvTranspose"})
_PRODUCTS = frozenset({"MatMul", "MatMulInteger", "Gemm", "Einsum", "LSTM", "GRU", "RNN"})
_COUNTED = {
    **dict.fromkeys(_POOLS, "pools"),
    **dict.fromkeys(_MOVES, "moves"),
    **dict.fromkeys(_PRODUCTS, "products"),
    **dict.fromkeys(("Add", "Sub", "Sum"), "sums"),
    "Mul": "gates",
}
_MACS_OF = {"convs_pointwise": "macs_pointwise", "convs_grouped": "macs_grouped"}


class _Paths(NamedTuple):
    """Paths from the inputs to a value: weighted layers on them, and the log2 of their number."""

    longest: int = 0
    shortest: int = 0
    mean: float = 0.0
    log_number: float = 0.0


_START = _Paths()


def network_fields(graph: Graph) -> dict[str, float]:
    """The fields of a network, by the names of ``FIELDS``; unknown shapes count as nothing."""
    count = dict.fromkeys(FIELDS, 0.0)
    kernels = channels_sum = 0.0
    layers = 0
    paths: dict[str, _Paths] = {}
    level: dict[str, int] = {}
    for node in graph.nodes:
        kind = _COUNTED.get(node.op, "elementwise")
        weighted = kind == "products"
        if node.op in _CONVOLUTIONS:
            kind, channels, side = _convolution(graph, node)
            weighted = True
            layers += 1
            kernels += side
            channels_sum += channels
            count["width_max"] = max(count["width_max"], channels)
        if weighted:
            macs = node_macs(graph, node) or 0
            count["macs"] += macs
            if kind in _MACS_OF:
                count[_MACS_OF[kind]] += macs
        count[kind] += 1
        came = [name for name in node.inputs if name in paths]
        here = paths[came[0]] if len(came) == 1 else _joined([paths[name] for name in came])
        if weighted:
            here = _Paths(here.longest + 1, here.shortest + 1, here.mean + 1.0, here.log_number)
        deepest = 1 + max([level[name] for name in came], default=0)
        for name in node.outputs:
            paths[name], level[name] = here, deepest
            written = graph.tensor(name).bytes() or 0
            count["activation_bytes"] += written
            count["largest_bytes"] = max(count["largest_bytes"], written)
    end = _joined([paths[o] for o in graph.outputs if o in paths])
    count["parameters"] = sum(graph.tensor(w).size() or 0 for w in counted_weights(graph))
    count["nodes"] = len(graph.nodes)
    count["depth"] = max((level.get(o, 0) for o in graph.outputs), default=0)
    count["kernel"] = kernels / max(layers, 1)
    count["width"] = channels_sum / max(layers, 1)
    count["path_max"], count["path_min"], count["path_mean"], count["paths"] = end
    return {name: float(value) for name, value in count.items()}


def _convolution(graph: Graph, node: Node) -> tuple[str, float, float]:
    """Its kind, output channels, and side of the kernel."""
    shape = graph.tensor(node.inputs[3 if node.op == "QLinearConv" else 1]).shape or ()
    sizes = [d if isinstance(d, int) else 0 for d in shape]
    groups = int(node.attributes.get("group", 1))
    channels = sizes[1] * groups if node.op == "ConvTranspose" and len(sizes) > 1 else 0
    channels = channels or (sizes[0] if sizes else 0)
    area = math.prod(sizes[2:])
    kind = "convs_grouped" if groups > 1 else "convs_pointwise" if area == 1 else "convs"
    return kind, float(channels), area ** (1.0 / max(len(sizes) - 2, 1))


def _joined(came: list[_Paths]) -> _Paths:
    if len(came) < 2:
        return came[0] if came else _START
    top = max(p.log_number for p in came)
    shares = [2.0 ** (p.log_number - top) for p in came]
    total = sum(shares)
    return _Paths(
        max(p.longest for p in came),
        min(p.shortest for p in came),
        sum(s * p.mean for s, p in zip(shares, came, strict=True)) / total,
        top + math.log2(total),
    )
