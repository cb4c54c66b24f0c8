"""What a graph costs, computed from shapes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from autotune_rlm.networks._control import trips
from autotune_rlm.networks._graph import Graph, Node
from autotune_rlm.networks._load import ModelLike, load_skeleton
from autotune_rlm.networks._operators import elements, node_macs, parameter_slots


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """Static facts of a network.

    Graphs within it count: of ``If`` the branch that is taken, or the one with most
    multiply-accumulates where the condition is not known; the body of ``Loop`` and ``Scan`` as often
    as it runs, and once, with the node as unknown, where that is not known.

    Attributes:
        parameters: Elements of the weights that training changes, unpacked where several share a
            byte: indices, masks, single numbers, scales and zero points of quantised weights and
            the running statistics of batch normalisation do not count.
        macs: Multiply-accumulates of convolutions and matrix products for one run.
        flops: Twice ``macs`` plus one per element that other operators write.
        activation_bytes: Bytes of all intermediate results.
        peak_bytes: Largest sum of intermediate results alive at once, in canonical order.
        weight_bytes: Bytes of the weights that are stored and read, indices and scales too.
        depth: Operators on the longest path; a body counts once.
        nodes: Operators, those of graphs within it too.
        operators: How often each operator occurs.
        unknown: Operators whose cost is not known: a shape, a number of runs or the operator is not.
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
        dims: Sizes for dynamic dimensions by symbol (or ``"input:axis"`` where there is none). For
            those not given, sizes are assumed: the channels that a convolution reads, the value of
            a symbol that is a sum of others, 1 for the first axis, 224 for the last two of a
            four-dimensional input, 128 for others. ``OnnxRuntimeMeasurer`` takes the same.

    Raises:
        ValueError: The model is damaged or its graph is not sound; see ``read_graph``.
    """
    from autotune_rlm.networks._dims import assumed_dims
    from autotune_rlm.networks._read import canonical

    assumed: dict[str, int] | None = None
    if not isinstance(model, Graph):
        skeleton = load_skeleton(model)
        assumed = assumed_dims(skeleton, dims)
        model = canonical(skeleton, assumed)
    weights = counted_weights(model)
    cost = _cost(model)
    return GraphFacts(
        parameters=weights.parameters,
        macs=cost.macs,
        flops=2 * cost.macs + cost.elementwise,
        activation_bytes=cost.written,
        peak_bytes=cost.peak,
        weight_bytes=weights.bytes,
        depth=cost.depth,
        nodes=sum(cost.operators.values()),
        operators=dict(sorted(cost.operators.items())),
        unknown=cost.unknown,
        dims=assumed or None,
    )


@dataclass
class Weights:
    """Weights that nodes read: elements that training would change, and bytes of all of them."""

    parameters: int = 0
    bytes: int = 0
    captured: set[str] = field(default_factory=set)
    captured_slots: dict[str, Node] = field(default_factory=dict)


def counted_weights(graph: Graph) -> Weights:
    """The weights of a graph and the graphs within it, each counted once.

    Indices, masks, lone numbers, scales and running statistics are no parameters.
    """
    found = Weights()
    read: dict[str, None] = {}
    slots: dict[str, Node] = {}
    for node in graph.nodes:
        read.update(dict.fromkeys(node.inputs))
        slots.update((name, node) for name in parameter_slots(graph, node))
        for inner in node.graphs:
            within = counted_weights(inner)
            found.parameters += within.parameters
            found.bytes += within.bytes
            read.update(dict.fromkeys(within.captured))
            slots.update(within.captured_slots)
    read.update(dict.fromkeys(graph.outputs))
    for name in read:
        if name in graph.captured:
            found.captured.add(name)
            if name in slots:
                found.captured_slots[name] = slots[name]
        if name not in graph.weights:
            continue
        tensor = graph.tensor(name)
        found.bytes += tensor.bytes() or 0 if tensor.shape else 0
        if name in slots and tensor.shape not in ((), None):
            found.parameters += elements(slots[name], name, tensor) or 0
    return found


@dataclass
class _Cost:
    macs: int = 0
    elementwise: int = 0
    written: int = 0
    peak: int = 0
    depth: int = 0
    unknown: int = 0
    operators: Counter[str] = field(default_factory=Counter)


def held(graph: Graph, node: Node) -> tuple[Graph, int | None] | None:
    """The graph within a node that is run, and how often; None where it holds none.

    Of several branches it is the one with most multiply-accumulates, then the one that writes most.
    """
    found = _held(graph, node)
    return None if found is None else found[:2]


def _held(graph: Graph, node: Node) -> tuple[Graph, int | None, _Cost] | None:
    if not (graphs := node.graphs):
        return None
    costs = [_cost(g) for g in graphs]
    dearest = max(range(len(graphs)), key=lambda i: (costs[i].macs, costs[i].written))
    return graphs[dearest], trips(graph, node), costs[dearest]


def _cost(graph: Graph) -> _Cost:
    total = _Cost()
    level: dict[str, int] = {}
    within: dict[int, int] = {}
    for line, node in enumerate(graph.nodes):
        deep = 1
        total.operators[node.op] += 1
        inner = _held(graph, node)
        if inner is None:
            macs = node_macs(graph, node)
            written = [graph.tensor(o).size() for o in node.outputs if o]
            total.unknown += macs is None or any(
                size is None and o in graph.tensors  # not a sequence, map or optional
                for size, o in zip(written, filter(None, node.outputs), strict=True)
            )
            total.macs += macs or 0
            if macs == 0:
                total.elementwise += sum(w or 0 for w in written)
        else:
            body, count, cost = inner
            total.unknown += cost.unknown + (count is None or not _is_steady(node, body))
            runs = 1 if count is None else count
            total.macs += runs * cost.macs
            total.elementwise += runs * cost.elementwise
            total.written += runs * cost.written
            total.operators.update(cost.operators)
            within[line] = cost.peak
            deep += cost.depth
        here = deep + max((level.get(i, 0) for i in node.inputs), default=0)
        level.update(dict.fromkeys(node.outputs, here))
    total.depth = max((level.get(o, 0) for o in graph.outputs), default=0)
    results, total.peak = _memory(graph, within)
    total.written += results
    return total


def _is_steady(node: Node, body: Graph) -> bool:
    """Whether every run of a ``Loop`` costs the same, and none ends it early."""
    if node.op != "Loop":
        return True
    goes_on = body.outputs[0] if body.outputs else ""
    known = body.constants.get(goes_on)
    if goes_on != body.inputs[1] and (known is None or not known.all()):
        return False
    states = zip(body.inputs[2:], body.outputs[1:], strict=False)
    return all(body.tensor(i).shape == body.tensor(o).shape for i, o in states)


def _memory(graph: Graph, within: Mapping[int, int]) -> tuple[int, int]:
    """Bytes of all intermediate results, and of the largest set of them alive at once.

    ``within`` are the peaks of the graphs that a line holds.
    """
    last: dict[str, int] = {}
    for line, node in enumerate(graph.nodes):
        last.update(dict.fromkeys(node.inputs, line))
        for inner in node.graphs:
            last.update(dict.fromkeys(_reads(inner), line))
    last.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    sizes = {n: graph.tensor(n).bytes() or 0 for n in graph.inputs}
    alive = peak = sum(sizes.values())
    total = 0
    for line, node in enumerate(graph.nodes):
        for output in filter(None, node.outputs):
            sizes[output] = graph.tensor(output).bytes() or 0
            total += sizes[output]
            alive += sizes[output]
        peak = max(peak, alive + within.get(line, 0))
        for name in {*node.inputs, *node.outputs}:
            if name in sizes and last.get(name, line) <= line:
                alive -= sizes.pop(name)
    return total, peak


def _reads(graph: Graph) -> set[str]:
    read = {i for node in graph.nodes for i in node.inputs}
    return read.union(*(_reads(g) for node in graph.nodes for g in node.graphs))
