"""From a model's skeleton to the canonical graph: order, types, and values that shapes determine.

onnx infers shapes for the whole model at once. Where that leaves something open (an operator of
another domain, an unsorted file, a value behind ``Identity``, a body of ``Loop``), each node is
asked again with what is known by then, and nodes whose arguments are all known are run by onnx's
reference evaluator.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from autotune_rlm.networks._control import body_inputs, held_results, taken_branch
from autotune_rlm.networks._dims import bind
from autotune_rlm.networks._foreign import foreign_result
from autotune_rlm.networks._graph import DTYPES, Graph, Node, Tensor
from autotune_rlm.networks._load import STANDARD, subgraphs
from autotune_rlm.networks._scope import SHOWN, RawGraph, RawNode, Scope, postorder

_PASS_THROUGH = frozenset({"Identity", "Dropout"})
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"}
    | {"RandomUniform", "RandomUniformLike"}
)
_MAX_HELD = 100  # graphs within a graph, for each of which onnx looks at all values around it
_MAX_VALUES = 1024  # elements of a value that is computed
_MAX_STORED = 128  # and of one that is stored, as ``load_skeleton`` keeps them
_CODES = {name: code for code, name in DTYPES.items()}


def canonical(model: onnx.ModelProto, dims: Mapping[str, int] | None = None) -> Graph:
    """The canonical graph of a skeleton, which is changed; see ``read_graph``."""
    bind(model, dims)
    inferred = model
    if sum(1 for n in model.graph.node for _ in subgraphs(n)) <= _MAX_HELD:
        # onnx raises its own errors and plain RuntimeError; nodes are asked below
        with contextlib.suppress(Exception):
            inferred = shape_inference.infer_shapes(model, data_prop=True)
    opsets = {o.domain: o.version for o in inferred.opset_import}
    version = max((opsets.get(domain, 0) for domain in STANDARD), default=0)
    collecting = gc.isenabled()
    gc.disable()  # there are many small objects and no cycles; collections cost a third more
    try:
        return _Reader(opsets, version).read(RawGraph(inferred.graph), None, {})
    except RecursionError:
        raise ValueError("model: subgraphs are nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"model: a name is no text ({error}); the file is damaged") from None
    finally:
        if collecting:
            gc.enable()


class _Reader:
    def __init__(self, opsets: Mapping[str, int], version: int) -> None:
        self._opsets = dict(opsets)
        self._version = version
        # Layers repeat what they compute, and the shapes that follow.
        self._evaluated: dict[Hashable, list[np.ndarray] | None] = {}
        self._inferred: dict[Hashable, list[tuple[int, onnx.TypeProto, Tensor | None]]] = {}
        self._imports = [onnx.helper.make_opsetid(d, v) for d, v in opsets.items()]

    def read(self, raw: RawGraph, outer: Scope | None, inputs: Mapping[str, Tensor]) -> Graph:
        """The canonical form of a graph; ``inputs`` are types that are known better than declared."""
        scope = Scope.within(outer)
        self._declare(raw, scope, inputs)
        if not raw.outputs:
            raise ValueError("model: the graph has no outputs, so nothing in it is computed")
        roots = [scope.resolve(o) for o in raw.outputs]
        order = postorder(roots, scope, frozenset())
        folded: set[str] = set()
        nodes: dict[int, Node] = {}
        captured: set[str] = set()
        for item in order:
            node = nodes[id(item)] = self._node(item, scope)
            self._infer(item.proto, node, scope)
            if node.graphs:
                captured.update(*(g.captured for g in node.graphs))
            elif self._evaluate(item.proto, node, scope):
                folded.update(o for o in node.outputs if o)
        folded.difference_update(roots)
        if folded:
            order = postorder(roots, scope, folded)
        live = tuple(nodes[id(item)] for item in order)
        if outer is not None:
            captured.update(roots, *(n.inputs for n in live))
            captured = {i for i in captured - scope.weights if scope.is_weight(i)}
        return Graph(
            nodes=live,
            inputs=tuple(name for name in raw.inputs if name not in scope.weights),
            outputs=tuple(roots),
            tensors=scope.tensors,
            weights=frozenset(scope.weights | folded),
            constants=scope.constants,
            opset=self._version,
            captured=frozenset(captured if outer is not None else ()),
        )

    def _declare(self, raw: RawGraph, scope: Scope, inputs: Mapping[str, Tensor]) -> None:
        proto = raw.proto
        for value in (*proto.value_info, *proto.output, *proto.input):
            scope.types[value.name] = value.type
            if (tensor := _tensor(value.type)) is not None:
                scope.tensors[value.name] = tensor
        scope.tensors.update(inputs)
        for name in inputs:
            scope.types.pop(name, None)
        for tensor in proto.initializer:
            self._weight(scope, tensor.name, tensor)
        for sparse in proto.sparse_initializer:
            scope.weights.add(sparse.values.name)
            dtype = DTYPES.get(sparse.values.data_type, "?")
            scope.tensors[sparse.values.name] = Tensor(dtype, tuple(sparse.dims))
        scope.given.update(raw.inputs)
        for node in raw.nodes:
            try:
                "".join((node.op_type, node.domain, *node.inputs, *node.outputs))
            except TypeError:  # bytes
                raise ValueError(
                    "model: the name of an operator or value is no text; the file is damaged"
                ) from None
            standard = node.domain in STANDARD
            if node.op_type == "Constant" and standard and len(node.outputs) == 1:
                self._constant(scope, node.proto)
                continue
            for name in node.outputs:
                if name and (name in scope.producers or name in scope.weights):
                    raise ValueError(f"model: two nodes produce {name!r}")
                scope.producers[name] = node
            if node.op_type in _PASS_THROUGH and standard and node.inputs and node.outputs:
                scope.alias[node.outputs[0]] = node.inputs[0]
        scope.producers.pop("", None)

    def _weight(self, scope: Scope, name: str, tensor: onnx.TensorProto) -> None:
        scope.weights.add(name)
        found = scope.tensors[name] = Tensor(DTYPES.get(tensor.data_type, "?"), tuple(tensor.dims))
        scope.types.pop(name, None)
        size = found.size()
        if size is None or size > _MAX_STORED or tensor.data_location == tensor.EXTERNAL:
            return
        try:
            scope.set(name, numpy_helper.to_array(tensor))
        except Exception:  # a payload that does not fit the declared shape
            return

    def _constant(self, scope: Scope, node: onnx.NodeProto) -> None:
        name = node.output[0]
        if name in scope.weights or name in scope.producers:
            raise ValueError(f"model: two nodes produce {name!r}")
        for attribute in node.attribute:
            if attribute.HasField("t"):
                self._weight(scope, name, attribute.t)
            elif attribute.HasField("sparse_tensor"):
                sparse = attribute.sparse_tensor
                dtype = DTYPES.get(sparse.values.data_type, "?")
                scope.weights.add(name)
                scope.tensors[name] = Tensor(dtype, tuple(sparse.dims))
            else:
                value = np.asarray(onnx.helper.get_attribute_value(attribute))
                kind = {"i": "i64", "u": "i64", "f": "f32"}.get(value.dtype.kind, "str")
                scope.weights.add(name)
                scope.tensors[name] = Tensor(kind, value.shape)
                if kind != "str" and value.size <= _MAX_STORED:
                    scope.set(name, value.astype(np.int64 if kind == "i64" else np.float32))
            scope.types.pop(name, None)
            return
        raise ValueError(f"model: the Constant {name!r} has no value")

    def _node(self, raw: RawNode, scope: Scope) -> Node:
        standard = raw.domain in STANDARD
        op = raw.op_type if standard else f"{raw.domain}.{raw.op_type}"
        inputs = tuple(scope.resolve(i) if i else "" for i in raw.inputs)
        attributes: dict[str, Any] = {}
        kinds = _attribute_types(raw.op_type, self._version if standard else 1, raw.domain)
        for attribute in raw.proto.attribute:
            if not isinstance(attribute.name, str) or (
                attribute.type != kinds.get(attribute.name, attribute.type)
            ):
                raise ValueError(
                    f"model: attribute {attribute.name!r} of {op} has another type than it must"
                )
            if attribute.HasField("g") or attribute.graphs:
                continue
            if attribute.HasField("t"):
                attributes[attribute.name] = _attribute_tensor(attribute.t)
            else:
                value = onnx.helper.get_attribute_value(attribute)
                if value is not None:
                    attributes[attribute.name] = value
        if raw.graphs:
            attributes.update(self._graphs(raw, op, inputs, attributes, scope))
        return Node(op, inputs, tuple(raw.outputs), attributes)

    def _graphs(
        self,
        raw: RawNode,
        op: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Any],
        scope: Scope,
    ) -> dict[str, Graph]:
        taken = taken_branch(op, inputs, scope.values)
        read: dict[str, Graph] = {}
        arguments = [scope.tensors.get(i) for i in inputs]
        for name, graph in raw.graphs:
            if taken is None or name == taken:
                given = dict(body_inputs(op, graph.inputs, arguments, attributes, self._version))
                read[name] = self.read(graph, scope, given)
        return read

    def _infer(self, proto: onnx.NodeProto, node: Node, scope: Scope) -> None:
        """Complete the types of a node's results, where its arguments' are complete."""
        if node.graphs:
            for name, tensor in held_results(node, scope.tensors, scope.values, self._version):
                scope.tensors[name] = tensor
                scope.types.pop(name, None)
            return
        if all(_is_complete(scope, o) for o in node.outputs if o):
            return
        if not all(_is_complete(scope, i) for i in node.inputs if i):
            return
        key = _call(proto, [_known(scope, name) for name in node.inputs])
        if key not in self._inferred:
            self._inferred[key] = list(self._results(proto, node, scope))
        for slot, kind, inferred in self._inferred[key]:
            scope.types[node.outputs[slot]] = kind
            if inferred is not None:
                scope.tensors[node.outputs[slot]] = inferred
        if node.outputs and not _is_complete(scope, node.outputs[0]):
            view = Graph((), (), (), scope.tensors, frozenset(), {}, self._version)
            found = foreign_result(view, node)
            if found is not None:
                scope.tensors[node.outputs[0]] = found
                scope.types.pop(node.outputs[0], None)

    def _results(
        self, proto: onnx.NodeProto, node: Node, scope: Scope
    ) -> Iterator[tuple[int, onnx.TypeProto, Tensor | None]]:
        """Which results onnx infers a type of, with it."""
        domain = "" if proto.domain in STANDARD else proto.domain
        version = self._version if not domain else self._opsets.get(domain, 1)
        pairs = [(i, r) for i, r in zip(proto.input, node.inputs, strict=True) if i]
        try:
            schema = onnx.defs.get_schema(proto.op_type, version, domain)
            kinds = {i: _type(scope, r) for i, r in pairs}
            data = {i: numpy_helper.from_array(v, i) for i, r in pairs
                    if (v := scope.values.get(r)) is not None}  # fmt: skip
            found = shape_inference.infer_node_outputs(
                schema, proto, kinds, data, opset_imports=self._imports
            )
            for slot, name in enumerate(proto.output):
                if name in found:
                    yield slot, found[name], _tensor(found[name])
        except Exception:  # no such operator, or arguments that it does not take: left open
            return

    def _evaluate(self, proto: onnx.NodeProto, node: Node, scope: Scope) -> bool:
        """Compute a node's results where shapes determine them; whether that was so."""
        if proto.domain not in STANDARD or node.op in _RANDOM:
            return False
        if node.op in ("Shape", "Size"):
            shape = scope.tensors.get(node.inputs[0], Tensor()).shape if node.inputs else None
            if shape is None or any(isinstance(d, str) for d in shape):
                return False
            value = np.array(shape, dtype=np.int64)
            if node.op == "Size":
                value = np.asarray(value.prod(), dtype=np.int64)
            else:
                end = node.attributes.get("end")
                value = value[node.attributes.get("start", 0) : end]
            scope.set(node.outputs[0], value)
            scope.tensors[node.outputs[0]] = Tensor("i64", value.shape)
            return True
        inputs = [i for i in node.inputs if i]
        if not inputs or any(i not in scope.values for i in inputs):
            return False
        sizes = [scope.tensors.get(o, Tensor()).size() for o in node.outputs if o]
        if any(s is None or s > _MAX_VALUES for s in sizes):
            return False
        given = [scope.values[i] for i in inputs]
        key = _call(proto, [_bytes(scope.values.get(i)) for i in node.inputs])
        if key not in self._evaluated:
            self._evaluated[key] = self._run(proto, given)
        results = self._evaluated[key]
        if results is None:
            return False
        for name, result in zip(node.outputs, results, strict=False):
            if name:
                scope.set(name, result)
        return True

    def _run(self, proto: onnx.NodeProto, given: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        """The results of a node by onnx's evaluator; None where it does not run."""
        opsets = {"": self._version, **{d: v for d, v in self._opsets.items() if d not in STANDARD}}
        feeds = dict(zip(filter(None, proto.input), given, strict=True))
        try:
            with np.errstate(all="ignore"):
                results = ReferenceEvaluator(proto, opsets=opsets).run(None, feeds)
        except Exception:  # the evaluator has no such operator, or the node is not sound
            return None
        if not all(isinstance(r, (np.ndarray, np.generic)) for r in results):
            return None
        return [np.asarray(r) for r in results]


# ---- types and values


def _call(proto: onnx.NodeProto, arguments: Sequence[Hashable]) -> Hashable:
    """What the results of a node follow from: nodes of one key differ in names only."""
    attributes = tuple(a.SerializeToString() for a in proto.attribute)
    outputs = tuple(bool(o) for o in proto.output)
    return proto.domain, proto.op_type, attributes, outputs, tuple(arguments)


def _bytes(value: np.ndarray | None) -> Hashable:
    return None if value is None else (value.dtype.str, value.shape, value.tobytes())


def _known(scope: Scope, name: str) -> Hashable:
    kind = scope.types.get(name)
    known = scope.tensors.get(name) if kind is None else kind.SerializeToString()
    return known, _bytes(scope.values.get(name))


def _tensor(kind: onnx.TypeProto) -> Tensor | None:
    """The tensor that a type declares; None for sequences, optionals and maps."""
    if not kind.HasField("tensor_type"):
        return None
    tensor = kind.tensor_type
    shape: tuple[int | str, ...] | None = None
    if tensor.HasField("shape"):
        shape = tuple(
            int(d.dim_value) if d.HasField("dim_value") else (d.dim_param or "?")
            for d in tensor.shape.dim
        )
    return Tensor(DTYPES.get(tensor.elem_type, "?"), shape)


def _type(scope: Scope, name: str) -> onnx.TypeProto:
    kind = scope.types.get(name)
    if kind is not None:
        return kind
    tensor = scope.tensors[name]
    return onnx.helper.make_tensor_type_proto(_CODES.get(tensor.dtype, 0), tensor.shape)


def _is_complete(scope: Scope, name: str) -> bool:
    tensor = scope.tensors.get(name)
    if tensor is not None:
        return tensor.size() is not None and tensor.dtype != "?"
    kind = scope.types.get(name)
    return kind is not None and kind.WhichOneof("value") not in (None, "tensor_type")


@lru_cache(maxsize=2048)
def _attribute_types(op: str, version: int, domain: str) -> Mapping[str, int]:
    """Types (``AttributeProto.AttributeType``) of an operator's attributes; empty where unknown."""
    try:
        schema = onnx.defs.get_schema(op, max(version, 1), "" if domain in STANDARD else domain)
    except onnx.defs.SchemaError:
        return {}
    kinds: dict[str, Any] = {name: a.type for name, a in schema.attributes.items()}
    return {name: int(getattr(kind, "value", kind)) for name, kind in kinds.items()}


def _attribute_tensor(tensor: onnx.TensorProto) -> Any:
    shape = Tensor(DTYPES.get(tensor.data_type, "?"), tuple(tensor.dims))
    size = shape.size()
    if shape.dtype in ("i32", "i64") and size is not None and size <= SHOWN:
        try:
            return numpy_helper.to_array(tensor).tolist()
        except Exception:  # a payload that does not fit the declared shape
            return shape
    return shape
