"""``If``, ``Loop`` and ``Scan``: what their graphs are given, how often they run, what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from autotune_rlm.networks._graph import Graph, Node, Tensor


def taken_branch(op: str, inputs: Sequence[str], values: Mapping[str, np.ndarray]) -> str | None:
    """Name of the branch of an ``If`` whose condition is known."""
    if op != "If" or not inputs or (value := values.get(inputs[0])) is None or not value.size:
        return None
    return "then_branch" if bool(value.ravel()[0]) else "else_branch"


def body_inputs(
    op: str,
    names: Sequence[str],
    arguments: Sequence[Tensor | None],
    attributes: Mapping[str, Any],
    version: int,
) -> Iterator[tuple[str, Tensor]]:
    """Types of the inputs of a body, from the arguments of the node that holds it."""
    if op == "Loop":
        given: list[Tensor | None] = [Tensor("i64", ()), Tensor("bool", ()), *arguments[2:]]
    elif op == "Scan":
        first = 1 if version < 9 else 0  # there with lengths and a leading batch axis
        arguments = arguments[first:]
        scanned = int(attributes.get("num_scan_inputs", 0))
        states = len(arguments) - scanned
        axes = list(attributes.get("scan_input_axes") or [0] * scanned)
        given = [_without(t, 0) if first else t for t in arguments[:states]]
        for tensor, axis in zip(arguments[states:], axes, strict=False):
            slim = _without(tensor, 0) if first else tensor
            given.append(_without(slim, axis))
    else:
        return
    for name, tensor in zip(names, given, strict=False):
        if tensor is not None:
            yield name, tensor


def _without(tensor: Tensor | None, axis: int) -> Tensor | None:
    if tensor is None or not tensor.shape:
        return tensor
    shape = list(tensor.shape)
    del shape[axis % len(shape)]
    return Tensor(tensor.dtype, tuple(shape))


def trips(graph: Graph, node: Node) -> int | None:
    """How often a node's body runs; 1 for branches, None where that is not known."""
    if node.op == "If":
        return 1
    if node.op == "Loop":
        most = graph.constants.get(node.inputs[0]) if node.inputs and node.inputs[0] else None
        keep = graph.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if keep is not None and keep.size and not keep.ravel()[0]:
            return 0
        return None if most is None or not most.size else max(0, int(most.ravel()[0]))
    if node.op == "Scan":
        first = 1 if graph.opset < 9 else 0
        scanned = int(node.attributes.get("num_scan_inputs", 0))
        if not 0 < scanned <= len(node.inputs) - first:
            return None
        shape = graph.tensor(node.inputs[-scanned]).shape
        axes = list(node.attributes.get("scan_input_axes") or [0])
        if not shape:
            return None
        sizes = shape[:2] if first else (shape[axes[0] % len(shape)],)
        known = [d for d in sizes if isinstance(d, int)]
        return int(np.prod(known)) if len(known) == len(sizes) else None
    if node.op == "SequenceMap":
        return _elements(graph, node.inputs[0]) if node.inputs else None
    return None


def _elements(graph: Graph, sequence: str) -> int | None:
    """How many tensors of one shape a sequence holds; None where that is not known."""
    maker = graph.producers.get(sequence)
    if maker is None or sequence in graph.inputs:
        return None
    if maker.op == "SequenceConstruct":
        shapes = {graph.tensor(i).shape for i in maker.inputs}
        return len(maker.inputs) if len(shapes) == 1 and None not in shapes else None
    if maker.op == "SplitToSequence" and len(maker.inputs) == 1:
        shape, axis = graph.tensor(maker.inputs[0]).shape, int(maker.attributes.get("axis", 0))
        size = shape[axis % len(shape)] if shape else None
        return size if isinstance(size, int) else None
    return None


def held_results(
    node: Node, tensors: Mapping[str, Tensor], values: Mapping[str, np.ndarray], version: int
) -> Iterator[tuple[str, Tensor]]:
    """Types of the results of ``If``, ``Loop`` and ``Scan``, from those of their graphs."""
    graphs = node.graphs
    ends = [[g.tensors.get(o) for o in g.outputs] for g in graphs]
    if node.op == "If":
        for slot, name in enumerate(node.outputs):
            several = [e[slot] if slot < len(e) else None for e in ends]
            if name and (both := _common(several)) is not None:
                yield name, both
        return
    if node.op not in ("Loop", "Scan") or not graphs or version < 9:
        return
    view = Graph((), (), (), tensors, frozenset(), values, version)
    count = trips(view, node)
    lead: int | str = "?" if count is None else count
    (body,), (results,) = graphs[:1], ends[:1]
    first = 1 if node.op == "Loop" else 0
    scanned = int(node.attributes.get("num_scan_inputs", 0))
    states = len(node.inputs) - (2 if first else scanned)
    axes = list(node.attributes.get("scan_output_axes") or [])
    for slot, name in enumerate(node.outputs):
        found = results[slot + first] if slot + first < len(results) else None
        if not name or found is None:
            continue
        if slot < states:
            before = body.tensors.get(body.inputs[slot + 2 * first]) if (
                slot + 2 * first < len(body.inputs)) else None  # fmt: skip
            yield name, _common([found, before or found]) or found
        elif found.shape is not None:
            axis = axes[slot - states] if slot - states < len(axes) else 0
            shape = list(found.shape)
            shape.insert(axis % (len(shape) + 1), lead)
            yield name, Tensor(found.dtype, tuple(shape))


def _common(several: Sequence[Tensor | None]) -> Tensor | None:
    """What holds for all of them; dimensions that differ are unknown."""
    known = [t for t in several if t is not None]
    if len(known) < len(several) or not known:
        return None
    shapes = [t.shape for t in known]
    if any(s is None for s in shapes) or len({len(s) for s in shapes if s is not None}) > 1:
        return Tensor(known[0].dtype, None)
    merged = tuple(
        d[0] if len(set(d)) == 1 else "?" for d in zip(*(s or () for s in shapes), strict=True)
    )
    return Tensor(known[0].dtype, merged)
