"""A network of any space as the same short list of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from autotune_rlm.networks._facts import counted_weights, held
from autotune_rlm.networks._graph import Graph, Node
from autotune_rlm.networks._operators import CONVOLUTIONS, PRODUCTS, node_macs

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
_COUNTED = {
    **dict.fromkeys(_POOLS, "pools"),
    **dict.fromkeys(_MOVES, "moves"),
    **dict.fromkeys(PRODUCTS, "products"),
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
    """The fields of a network, by the names of ``FIELDS``; unknown shapes count as nothing.

    A body counts as often as it runs, see ``graph_facts``.
    """
    tally = _tally(graph)
    count, layers = tally.count, max(tally.layers, 1.0)
    count["parameters"] = counted_weights(graph).parameters
    count["kernel"] = tally.sides / layers
    count["width"] = tally.channels / layers
    end = tally.paths
    count["path_max"], count["path_min"], count["path_mean"], count["paths"] = end
    return {name: float(value) for name, value in count.items()}


_OF_THE_BATCH = ("macs", "macs_pointwise", "macs_grouped", "activation_bytes", "largest_bytes")


def batch_size(graph: Graph) -> int:
    """The leading axis, where all inputs and outputs share it; else 1."""
    shapes = [graph.tensor(name).shape for name in (*graph.inputs, *graph.outputs)]
    sizes = {shape[0] if shape else None for shape in shapes}
    (size,) = sizes if len(sizes) == 1 else (1,)
    return size if isinstance(size, int) and size > 0 else 1


def of_one_sample(fields: Mapping[str, float], batch: int) -> dict[str, float]:
    """The fields of a network at batch 1, of those at another; training tables hold them."""
    return {k: v / batch if k in _OF_THE_BATCH else v for k, v in fields.items()}


@dataclass
class _Tally:
    count: dict[str, float]
    layers: float = 0.0  # convolutions, with the sums of their kernels' sides and their channels
    sides: float = 0.0
    channels: float = 0.0
    paths: _Paths = _START

    def add(self, body: _Tally, runs: int) -> None:
        for name, value in body.count.items():
            if name in ("largest_bytes", "width_max"):
                self.count[name] = max(self.count[name], value)
            elif name != "depth":
                self.count[name] += runs * value
        self.layers += runs * body.layers
        self.sides += runs * body.sides
        self.channels += runs * body.channels


def _tally(graph: Graph) -> _Tally:
    count = dict.fromkeys(FIELDS, 0.0)
    tally = _Tally(count)
    paths: dict[str, _Paths] = {}
    level: dict[str, int] = {}
    for node in graph.nodes:
        kind = _COUNTED.get(node.op, "elementwise")
        passed = int(kind == "products")  # weighted layers
        if node.op in CONVOLUTIONS:
            kind, channels, side = _convolution(graph, node)
            passed = 1
            tally.layers += 1
            tally.sides += side
            tally.channels += channels
            count["width_max"] = max(count["width_max"], channels)
        if passed:
            macs = node_macs(graph, node) or 0
            count["macs"] += macs
            if kind in _MACS_OF:
                count[_MACS_OF[kind]] += macs
        count[kind] += 1
        deep = 1
        if (inner := held(graph, node)) is not None:
            body, runs = _tally(inner[0]), 1 if inner[1] is None else inner[1]
            tally.add(body, runs)
            deep, passed = 1 + int(body.count["depth"]), body.paths.longest
        came = [name for name in node.inputs if name in paths]
        here = paths[came[0]] if len(came) == 1 else _joined([paths[name] for name in came])
        if passed:
            here = _Paths(
                here.longest + passed, here.shortest + passed, here.mean + passed, here.log_number
            )
        deepest = deep + max([level[name] for name in came], default=0)
        for name in node.outputs:
            paths[name], level[name] = here, deepest
            written = graph.tensor(name).bytes() or 0
            count["activation_bytes"] += written
            count["largest_bytes"] = max(count["largest_bytes"], written)
    tally.paths = _joined([paths[o] for o in graph.outputs if o in paths])
    count["nodes"] += len(graph.nodes)
    count["depth"] = max((level.get(o, 0) for o in graph.outputs), default=0)
    return tally


def _convolution(graph: Graph, node: Node) -> tuple[str, float, float]:
    """Its kind, output channels, and side of the kernel."""
    shape = graph.tensor(node.inputs[CONVOLUTIONS[node.op]]).shape or ()
    sizes = [d if isinstance(d, int) else 0 for d in shape]
    groups = int(node.attributes.get("group", 1))
    channels = sizes[1] * groups if "ConvTranspose" in node.op and len(sizes) > 1 else 0
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
