"""A model's graph in canonical form: live nodes in an order that no name changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from autotune_rlm.networks._load import load_skeleton

if TYPE_CHECKING:
    import onnx

    from autotune_rlm.networks._load import ModelLike

__all__ = ["Graph", "Node", "Tensor", "read_graph"]

_PASS_THROUGH = frozenset({"Identity", "Dropout"})
_DTYPES = {
    1: "f32", 2: "u8", 3: "i8", 4: "u16", 5: "i16", 6: "i32", 7: "i64", 8: "str", 9: "bool",
    10: "f16", 11: "f64", 12: "u32", 13: "u64", 14: "c64", 15: "c128", 16: "bf16", 17: "f8e4m3",
    18: "f8e4m3uz", 19: "f8e5m2", 20: "f8e5m2uz", 21: "u4", 22: "i4", 23: "f4e2m1", 24: "f8e8m0",
}  # fmt: skip
_BYTES = {"f64": 8, "i64": 8, "u64": 8, "c64": 8, "c128": 16, "f32": 4, "i32": 4, "u32": 4,
          "f16": 2, "bf16": 2, "i16": 2, "u16": 2, "u4": 0.5, "i4": 0.5, "f4e2m1": 0.5}  # fmt: skip


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
    """One operator. ``op`` carries its domain where that is not the standard one."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Live nodes in canonical order and what is known of each value.

    Attributes:
        nodes: In the order in which a walk from the outputs, inputs first, finishes them.
        inputs: Names of the graph's inputs that are no weights.
        outputs: Names of the graph's outputs.
        tensors: Type and shape by value name (``""`` is never a key).
        weights: Names of the values that are stored in the model.
        constants: Values of small integer weights (shapes, axes) as arrays.
        opset: Version of the standard operator set.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    weights: frozenset[str]
    constants: Mapping[str, np.ndarray]
    opset: int

    def tensor(self, name: str) -> Tensor:
        """What is known of a value; an empty ``Tensor`` where nothing is."""
        return self.tensors.get(name, _UNKNOWN)


_UNKNOWN = Tensor()


def read_graph(model: ModelLike | Graph, *, dims: Mapping[str, int] | None = None) -> Graph:
    """The canonical graph of a model, with inferred shapes.

    Args:
        model: An ``onnx.ModelProto``, a path, or bytes; weights are not read.
        dims: Sizes for the dynamic dimensions of the inputs, by symbol.

    Returns:
        The graph. Nodes that no output needs are dropped, ``Identity`` and ``Dropout`` are passed
        through, ``Constant`` nodes count as weights.

    Raises:
        ValueError: The file is cut off, the graph has a cycle, a value that nothing produces or
            two producers of one value, or it has no outputs.
    """
    if isinstance(model, Graph):
        return model
    skeleton = load_skeleton(model)
    if dims:
        _bind(skeleton, dims)
    return _build(skeleton.graph, _infer(skeleton), _opset(skeleton), frozenset())


def _opset(model: onnx.ModelProto) -> int:
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def _bind(model: onnx.ModelProto, dims: Mapping[str, int]) -> None:
    known = set()
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            key = dim.dim_param or f"{value.name}:{axis}"
            known.add(key)
            if key in dims and not dim.HasField("dim_value"):
                dim.dim_value = int(dims[key])
    if unknown := set(dims) - known:
        raise ValueError(
            f"dims: the model has no dynamic dimension named {sorted(unknown)}; it has "
            f"{sorted(known)}"
        )


def _infer(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Types and shapes of all values. A model that inference rejects keeps what it declares."""
    from onnx import shape_inference

    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # shape inference raises its own errors and plain RuntimeError
        inferred = model
    graph = inferred.graph
    tensors: dict[str, Tensor] = {}
    for value in (*graph.value_info, *graph.output, *graph.input):
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type"):
            continue
        shape: tuple[int | str, ...] | None = None
        if kind.HasField("shape"):
            shape = tuple(
                int(d.dim_value) if d.HasField("dim_value") else (d.dim_param or "?")
                for d in kind.shape.dim
            )
        tensors[value.name] = Tensor(_DTYPES.get(kind.elem_type, "?"), shape)
    return tensors


def _build(
    proto: onnx.GraphProto, tensors: dict[str, Tensor], opset: int, outer: frozenset[str]
) -> Graph:
    tensors = dict(tensors)
    weights: set[str] = set()
    constants: dict[str, np.ndarray] = {}
    alias: dict[str, str] = {}
    producers: dict[str, onnx.NodeProto] = {}

    def add_weight(name: str, tensor: onnx.TensorProto) -> None:
        weights.add(name)
        tensors[name] = Tensor(_DTYPES.get(tensor.data_type, "?"), tuple(tensor.dims))
        value = _small_integers(tensor)
        if value is not None:
            constants[name] = value

    for tensor in proto.initializer:
        add_weight(tensor.name, tensor)
    for sparse in proto.sparse_initializer:
        weights.add(sparse.values.name)
        dtype = _DTYPES.get(sparse.values.data_type, "?")
        tensors[sparse.values.name] = Tensor(dtype, tuple(sparse.dims))
    for node in proto.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            _add_constant(node, add_weight, weights, tensors, constants)
            continue
        for name in node.output:
            if name and (name in producers or name in weights):
                raise ValueError(f"model: two nodes produce {name!r}")
            producers[name] = node
        if node.op_type in _PASS_THROUGH and node.domain in ("", "ai.onnx") and node.input:
            alias[node.output[0]] = node.input[0]

    def resolve(name: str) -> str:
        seen = set()
        while name in alias and name not in seen:
            seen.add(name)
            name = alias[name]
        if name in seen:
            raise ValueError(f"model: the graph has a cycle through {name!r}")
        return name

    inputs = tuple(v.name for v in proto.input if v.name not in weights)
    outputs = tuple(v.name for v in proto.output)
    if not outputs:
        raise ValueError("model: the graph has no outputs, so nothing in it is computed")
    order = _postorder(
        [resolve(o) for o in outputs], producers, {*inputs, *weights}, outer, resolve
    )
    nodes = tuple(_node(n, resolve, opset, outer | set(tensors) | set(producers)) for n in order)
    resolved = tuple(resolve(o) for o in outputs)
    return Graph(nodes, inputs, resolved, tensors, frozenset(weights), constants, opset)


def _postorder(
    roots: list[str],
    producers: Mapping[str, onnx.NodeProto],
    sources: set[str],
    outer: frozenset[str],
    resolve: Callable[[str], str],
) -> list[onnx.NodeProto]:
    """Nodes inputs first, by a walk from the outputs; independent of names and file order."""
    order: list[onnx.NodeProto] = []
    state: dict[int, int] = {}  # 1: being walked, 2: done
    for root in roots:
        stack: list[tuple[str, int]] = [(root, 0)]
        while stack:
            name, step = stack.pop()
            node = producers.get(name)
            if node is None:
                if name and name not in sources and name not in outer:
                    raise ValueError(
                        f"model: {name!r} is read, but no node, input or initialiser gives it"
                    )
                continue
            key = id(node)
            if step == 0 and state.get(key) == 2:
                continue
            if step == 0 and state.get(key) == 1:
                raise ValueError(
                    f"model: the graph has a cycle through the {node.op_type} that gives {name!r}; "
                    "ONNX graphs must be acyclic (use Loop or Scan for recurrence)"
                )
            state[key] = 1
            needed = [resolve(i) for i in (*node.input, *_captured(node)) if i]
            if step < len(needed):
                stack.append((name, step + 1))
                stack.append((needed[step], 0))
            else:
                state[key] = 2
                order.append(node)
    return order


def _captured(node: onnx.NodeProto) -> list[str]:
    """Values of the enclosing graph that a node's subgraphs read."""
    captured = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            inner = attribute.g
            own = {v.name for v in inner.input} | {t.name for t in inner.initializer}
            own |= {o for n in inner.node for o in n.output}
            captured += [
                i for n in inner.node for i in (*n.input, *_captured(n)) if i and i not in own
            ]
            captured += [v.name for v in inner.output if v.name not in own]
    return captured


def _node(
    proto: onnx.NodeProto,
    resolve: Callable[[str], str],
    opset: int,
    outer: frozenset[str] | set[str],
) -> Node:
    import onnx

    op = proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
    attributes: dict[str, Any] = {}
    for attribute in proto.attribute:
        if attribute.HasField("g"):
            attributes[attribute.name] = _build(attribute.g, {}, opset, frozenset(outer))
        elif attribute.HasField("t"):
            tensor = attribute.t
            value = _small_integers(tensor)
            shape = Tensor(_DTYPES.get(tensor.data_type, "?"), tuple(tensor.dims))
            attributes[attribute.name] = shape if value is None else value.tolist()
        else:
            attributes[attribute.name] = onnx.helper.get_attribute_value(attribute)
    return Node(op, tuple(resolve(i) for i in proto.input), tuple(proto.output), attributes)


def _add_constant(
    node: onnx.NodeProto,
    add_weight: Callable[[str, onnx.TensorProto], None],
    weights: set[str],
    tensors: dict[str, Tensor],
    constants: dict[str, np.ndarray],
) -> None:
    import onnx

    name = node.output[0]
    for attribute in node.attribute:
        if attribute.HasField("t"):
            add_weight(name, attribute.t)
            return
        if attribute.name == "sparse_value":
            weights.add(name)
            tensors[name] = Tensor("f32", tuple(attribute.sparse_tensor.dims))
            return
        value = np.asarray(onnx.helper.get_attribute_value(attribute))
        weights.add(name)
        integer = value.dtype.kind in "iu"
        kind = "i64" if integer else "f32" if value.dtype.kind == "f" else "str"
        tensors[name] = Tensor(kind, value.shape)
        if integer:
            constants[name] = value
        return


def _small_integers(tensor: onnx.TensorProto) -> np.ndarray | None:
    """The values of an integer tensor of up to 16 elements; None for anything else or unread."""
    from onnx import numpy_helper

    if tensor.data_type not in (6, 7) or int(np.prod(tensor.dims, dtype=np.int64)) > 16:
        return None
    if tensor.data_location == tensor.EXTERNAL:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except Exception:  # a payload that does not fit the declared shape
        return None
