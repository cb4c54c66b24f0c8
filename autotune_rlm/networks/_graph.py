"""A model's graph in canonical form: live nodes in an order that no name changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from autotune_rlm.networks._load import ModelLike

DTYPES = {
    1: "f32", 2: "u8", 3: "i8", 4: "u16", 5: "i16", 6: "i32", 7: "i64", 8: "str", 9: "bool",
    10: "f16", 11: "f64", 12: "u32", 13: "u64", 14: "c64", 15: "c128", 16: "bf16", 17: "f8e4m3",
    18: "f8e4m3uz", 19: "f8e5m2", 20: "f8e5m2uz", 21: "u4", 22: "i4", 23: "f4e2m1", 24: "f8e8m0",
    25: "u2", 26: "i2", 27: "f6e2m3", 28: "f6e3m2",
}  # fmt: skip
"""Short names of ``onnx.TensorProto.DataType``."""
_BYTES = {"f64": 8, "i64": 8, "u64": 8, "c64": 8, "c128": 16, "f32": 4, "i32": 4, "u32": 4,
          "f16": 2, "bf16": 2, "i16": 2, "u16": 2, "u4": 0.5, "i4": 0.5, "f4e2m1": 0.5,
          "u2": 0.25, "i2": 0.25, "f6e2m3": 0.75, "f6e3m2": 0.75}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """Type and shape of a value. A dimension that is not known is its symbol or ``"?"``."""

    dtype: str = "f32"
    shape: tuple[int | str, ...] | None = None

    def size(self) -> int | None:
        """Number of elements; None where a dimension is unknown."""
        return _size(self.shape)

    def bytes(self) -> int | None:
        """Bytes in memory; None where a dimension is unknown."""
        size = _size(self.shape)
        return None if size is None else math.ceil(size * _BYTES.get(self.dtype, 1))


@lru_cache(maxsize=4096)
def _size(shape: tuple[int | str, ...] | None) -> int | None:
    if shape is None or any(isinstance(d, str) for d in shape):
        return None
    return math.prod(int(d) for d in shape)


@dataclass(frozen=True)
class Node:
    """One operator. ``op`` carries its domain where that is not the standard one.

    An attribute that is a graph is a ``Graph``: the branches of ``If`` (only the one that is taken,
    where the condition is known), the body of ``Loop``, ``Scan`` and ``SequenceMap``.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def graphs(self) -> tuple[Graph, ...]:
        return tuple(v for v in self.attributes.values() if isinstance(v, Graph))


@dataclass(frozen=True)
class Graph:
    """Live nodes in canonical order and what is known of each value.

    Attributes:
        nodes: In the order in which a walk from the outputs, inputs first, finishes them.
        inputs: Names of the graph's inputs that are no weights.
        outputs: Names of the graph's outputs.
        tensors: Type and shape by value name (``""`` is never a key), for a graph within a graph
            those of the enclosing one too.
        weights: Names of the values that are stored in the model.
        constants: Values of small integer weights (shapes, axes) and of what follows from them, as
            arrays.
        opset: Version of the standard operator set.
        captured: Weights of an enclosing graph that are read here.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    weights: frozenset[str]
    constants: Mapping[str, np.ndarray]
    opset: int
    captured: frozenset[str] = frozenset()

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that gives a value, by the value's name."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def tensor(self, name: str) -> Tensor:
        """What is known of a value; an empty ``Tensor`` where nothing is."""
        return self.tensors.get(name, _UNKNOWN)


_UNKNOWN = Tensor()


def read_graph(model: ModelLike | Graph, *, dims: Mapping[str, int] | None = None) -> Graph:
    """The canonical graph of a model, with inferred shapes.

    Args:
        model: An ``onnx.ModelProto``, a path, or bytes; weights are not read.
        dims: Sizes for the dynamic dimensions of the inputs, by symbol (or ``"input:axis"`` where
            there is none, or where it is written -1 or 0).

    Returns:
        The graph. Nodes that no output needs are dropped, ``Identity`` and ``Dropout`` are passed
        through, ``Constant`` nodes count as weights, functions of the model are inlined, and what
        follows from known shapes alone (``Shape``, ``Gather``, ``Range``...) is a constant.

    Raises:
        ValueError: The file is damaged, the graph has a cycle, a value that nothing produces or
            two producers of one value, or it has no outputs.
    """
    if isinstance(model, Graph):
        return model
    from autotune_rlm.networks._load import load_skeleton
    from autotune_rlm.networks._read import canonical

    return canonical(load_skeleton(model), dims)
