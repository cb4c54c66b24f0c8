"""What a graph costs, computed from shapes alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autotune_rlm.networks._graph import Graph, Node, read_graph
from autotune_rlm.networks._load import ModelLike, load_skeleton

__all__ = ["GraphFacts", "counted_weights", "graph_facts", "node_macs"]

_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv", "FusedConv"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_PRODUCTS = frozenset({"ConvTranspose", "MatMul", "MatMulInteger", "Gemm", "Einsum"})
_MATRIX_OPS = _CONVOLUTIONS | _RECURRENT | _PRODUCTS


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """Static facts of a network.

    Attributes:
        parameters: Elements of the weights that training changes: integers, single numbers and the
            running statistics of batch normalisation do not count.
        macs: Multiply-accumulates of convolutions and matrix products for one run.
        flops: Twice ``macs`` plus one per element that other operators write.
        activation_bytes: Bytes of all intermediate results.
        peak_bytes: Largest sum of intermediate results alive at once, in canonical order.
        weight_bytes: Bytes of the weights.
        depth: Operators on the longest path.
        nodes: Operators.
        operators: How often each operator occurs.
        unknown: Operators whose cost is not known because a shape is not.
        dims: Sizes that were assumed for dynamic dimensions.
    """

    parameters: int
    macs: int
    flops: int
    activation_bytes: int
    peak_bytes: int
    weight_bytes: int
    depth: int
    nodes: int
    operators: Mapping[str, int]
    unknown: int = 0
    dims: Mapping[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def graph_facts(model: ModelLike | Graph, *, dims: Mapping[str, int] | None = None) -> GraphFacts:
    """Static facts of a network, from inferred shapes; weights are not read.

    Args:
        model: An ``onnx.ModelProto``, a path, bytes, or a ``Graph`` from ``read_graph``.
        dims: Sizes for dynamic dimensions by symbol (or ``"input:axis"`` where there is none).
            Those not given are assumed: 1 for the first axis, 224 for the last two of a
            four-dimensional input, 128 for others.

    Raises:
        ValueError: The model is cut off or its graph is not sound; see ``read_graph``.
    """
    assumed: dict[str, int] | None = None
    if not isinstance(model, Graph):
        model = load_skeleton(model)
        assumed = {**_assumed(model), **(dims or {})}
        graph = read_graph(model, dims=assumed)
    else:
        graph = model
    real = [graph.tensor(name) for name in counted_weights(graph)]
    macs = elementwise = unknown = 0
    for node in graph.nodes:
        cost = node_macs(graph, node)
        written = [graph.tensor(o).size() for o in node.outputs if o]
        if cost is None or None in written:
            unknown += 1
        macs += cost or 0
        if cost == 0:
            elementwise += sum(w or 0 for w in written)
    total, peak = _memory(graph)
    return GraphFacts(
        parameters=sum(t.size() or 0 for t in real),
        macs=macs,
        flops=2 * macs + elementwise,
        activation_bytes=total,
        peak_bytes=peak,
        weight_bytes=sum(t.bytes() or 0 for t in real),
        depth=_depth(graph),
        nodes=len(graph.nodes),
        operators=dict(sorted(Counter(n.op for n in graph.nodes).items())),
        unknown=unknown,
        dims=assumed or None,
    )


def counted_weights(graph: Graph) -> set[str]:
    """Weights that training would change: no integers, no running statistics, no lone numbers."""
    used: set[str] = set()
    for node in graph.nodes:
        inputs = node.inputs[:3] if node.op == "BatchNormalization" else node.inputs
        used.update(i for i in inputs if i in graph.weights and i not in graph.constants)
    return {name for name in used if graph.tensor(name).shape not in ((), None)}


def _assumed(model: Any) -> dict[str, int]:
    weights = {t.name for t in model.graph.initializer}
    sizes: dict[str, int] = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        shape = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(shape):
            if not dim.HasField("dim_value"):
                size = 1 if axis == 0 else 224 if len(shape) == 4 and axis >= 2 else 128
                sizes.setdefault(dim.dim_param or f"{value.name}:{axis}", size)
    return sizes


def node_macs(graph: Graph, node: Node) -> int | None:
    """Multiply-accumulates; 0 for operators that have none, None where a shape is unknown."""
    if node.op not in _MATRIX_OPS:
        return 0
    out = graph.tensor(node.outputs[0]).size()
    if node.op == "Conv":
        weight_size = graph.tensor(node.inputs[1]).size()
        if out is None or not weight_size:
            return None
        return out * (weight_size // int(graph.tensor(node.inputs[1]).shape[0]))  # type: ignore[index]
    shapes = [graph.tensor(i).shape for i in node.inputs if i]
    if out is None or any(s is None or any(isinstance(d, str) for d in s) for s in shapes[:2]):
        return None
    sizes = [tuple(int(d) for d in s or ()) for s in shapes]
    if node.op in _CONVOLUTIONS:
        weight = sizes[3] if node.op == "QLinearConv" and len(sizes) > 3 else sizes[1]
        return out * math.prod(weight[1:])
    if node.op == "ConvTranspose":
        read = math.prod(sizes[0])
        return read * math.prod(sizes[1][1:])
    if node.op in ("MatMul", "MatMulInteger"):
        return out * sizes[0][-1]
    if node.op == "Gemm":
        return out * sizes[0][0 if node.attributes.get("transA") else -1]
    if node.op in _RECURRENT:
        steps = sizes[0][0] * sizes[0][1]
        per_step = math.prod(sizes[1]) + math.prod(sizes[2])
        return steps * per_step
    return _einsum_macs(node, sizes)


def _einsum_macs(node: Node, sizes: list[tuple[int, ...]]) -> int | None:
    equation = node.attributes.get("equation", b"")
    text = equation.decode() if isinstance(equation, bytes) else str(equation)
    terms = text.replace(" ", "").split("->")[0].split(",")
    if "." in text or len(terms) != len(sizes):
        return None
    extents: dict[str, int] = {}
    for term, shape in zip(terms, sizes, strict=True):
        if len(term) != len(shape):
            return None
        extents.update(zip(term, shape, strict=True))
    return math.prod(list(extents.values()))


def _depth(graph: Graph) -> int:
    level: dict[str, int] = {}
    for node in graph.nodes:
        here = 1 + max((level.get(i, 0) for i in node.inputs), default=0)
        level.update(dict.fromkeys(node.outputs, here))
    return max((level.get(o, 0) for o in graph.outputs), default=0)


def _memory(graph: Graph) -> tuple[int, int]:
    """Bytes of all intermediate results, and of the largest set of them alive at once."""
    last: dict[str, int] = {}
    for line, node in enumerate(graph.nodes):
        last.update(dict.fromkeys(node.inputs, line))
    last.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    sizes = {n: graph.tensor(n).bytes() or 0 for n in graph.inputs}
    alive = peak = sum(sizes.values())
    total = 0
    for line, node in enumerate(graph.nodes):
        for output in filter(None, node.outputs):
            sizes[output] = graph.tensor(output).bytes() or 0
            total += sizes[output]
            alive += sizes[output]
        peak = max(peak, alive)
        for name in {*node.inputs, *node.outputs}:
            if name in sizes and last.get(name, line) <= line:
                alive -= sizes.pop(name)
    return total, peak
