"""What is known of the values of a graph, and the order of its nodes."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from autotune_rlm.networks._graph import Tensor
from autotune_rlm.networks._load import named_subgraphs

if TYPE_CHECKING:
    import onnx

SHOWN = 16  # elements of a value that is part of the text
_SHOWN_TYPES = (np.dtype(np.int64), np.dtype(np.int32), np.dtype(bool))


class RawNode:
    """A ``NodeProto`` with the fields that are read several times; each access of protobuf costs."""

    __slots__ = ("domain", "graphs", "inputs", "needed", "op_type", "outputs", "proto")

    def __init__(self, proto: onnx.NodeProto) -> None:
        self.proto = proto
        self.op_type, self.domain = proto.op_type, proto.domain
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.graphs = [(name, RawGraph(g)) for name, g in named_subgraphs(proto)]
        self.needed = [i for i in self.inputs if i]  # from the graph that it is in, all together
        for _, graph in self.graphs:
            self.needed += graph.free


class RawGraph:
    """A ``GraphProto`` with its nodes; ``free`` are the values that it reads from the enclosing one."""

    __slots__ = ("free", "inputs", "nodes", "outputs", "proto")

    def __init__(self, proto: onnx.GraphProto) -> None:
        self.proto = proto
        self.nodes = [RawNode(n) for n in proto.node]
        self.inputs, self.outputs = [v.name for v in proto.input], [v.name for v in proto.output]
        own = {*self.inputs, *(t.name for t in proto.initializer)}
        own.update(s.values.name for s in proto.sparse_initializer)
        read: list[str] = []
        for node in self.nodes:
            own.update(node.outputs)
            read += node.needed
        self.free = [name for name in (*read, *self.outputs) if name and name not in own]


class _Layers(ChainMap[str, Any]):
    """A ``ChainMap`` whose look-ups take a third of the time: models have thousands of graphs."""

    def get(self, key: str, default: Any = None) -> Any:
        for layer in self.maps:
            if key in layer:
                return layer[key]
        return default

    def __contains__(self, key: object) -> bool:
        return any(key in layer for layer in self.maps)


def _maps(known: MutableMapping[str, Any]) -> list[Any]:
    return known.maps if isinstance(known, ChainMap) else [known]


@dataclass
class Scope:
    """What is known of the values of a graph; a graph within a graph asks the enclosing one too."""

    tensors: MutableMapping[str, Tensor]
    values: MutableMapping[str, np.ndarray]
    constants: MutableMapping[str, np.ndarray]  # those of the values that a reader wants to see
    types: MutableMapping[str, Any]
    outer: Scope | None
    weights: set[str] = field(default_factory=set)
    alias: dict[str, str] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    producers: dict[str, RawNode] = field(default_factory=dict)

    @classmethod
    def within(cls, outer: Scope | None) -> Scope:
        if outer is None:
            return cls({}, {}, {}, {}, None)

        return cls(
            _Layers({}, *_maps(outer.tensors)),
            _Layers({}, *_maps(outer.values)),
            _Layers({}, *_maps(outer.constants)),
            _Layers({}, *_maps(outer.types)),
            outer,
        )

    def set(self, name: str, value: np.ndarray) -> None:
        self.values[name] = value
        if value.dtype in _SHOWN_TYPES and value.size <= SHOWN:
            self.constants[name] = value

    def has(self, name: str) -> bool:
        here = name in self.weights or name in self.given or name in self.producers
        return here or (self.outer is not None and self.outer.has(name))

    def is_weight(self, name: str) -> bool:
        if name in self.weights:
            return True
        own = name in self.producers or name in self.given
        return not own and self.outer is not None and self.outer.is_weight(name)

    def resolve(self, name: str) -> str:
        """The value behind ``Identity`` and ``Dropout``, in the enclosing graphs too."""
        path = []
        while name in self.alias:
            path.append(name)
            name = self.alias[name]
            if len(path) > len(self.alias):
                raise ValueError(f"model: the graph has a cycle through {name!r}")
        for passed in path:
            self.alias[passed] = name
        own = name in self.weights or name in self.given or name in self.producers
        return name if own or self.outer is None else self.outer.resolve(name)


def postorder(
    roots: Sequence[str], scope: Scope, folded: frozenset[str] | set[str]
) -> list[RawNode]:
    """Nodes inputs first, by a walk from the outputs; independent of names and file order."""
    order: list[RawNode] = []
    walked: dict[int, bool] = {}  # False: being walked, True: done
    for root in roots:
        stack: list[tuple[Any, Iterator[str]]] = [(None, iter((root,)))]
        while stack:
            node, needed = stack[-1]
            name = next(needed, None)
            if name is None:
                stack.pop()
                if node is not None:
                    walked[id(node)] = True
                    order.append(node)
                continue
            name = scope.resolve(name)
            if name in folded:
                continue
            producer = scope.producers.get(name)
            if producer is None:
                if not scope.has(name):
                    raise ValueError(
                        f"model: {name!r} is read, but no node, input or initialiser gives it"
                    )
                continue
            done = walked.get(id(producer))
            if done is False:
                raise ValueError(
                    f"model: the graph has a cycle through the {producer.op_type} that gives "
                    f"{name!r}; ONNX graphs must be acyclic (use Loop or Scan for recurrence)"
                )
            if done is None:
                walked[id(producer)] = False
                stack.append((producer, iter(producer.needed)))
    return order
