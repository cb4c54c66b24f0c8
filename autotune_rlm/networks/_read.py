"""From a model's skeleton to the canonical graph: order, types, and values that shapes determine.

onnx infers shapes for the whole model at once. Where that leaves something open (an operator of
another domain, an unsorted file, a value behind ``Identity``, a body of ``Loop``), each node is
asked again with what is known by then, and nodes whose arguments are all known are run by onnx's
reference evaluator.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from autotune_rlm.networks._foreign import foreign_result
from autotune_rlm.networks._graph import DTYPES, Graph, Node, Tensor
from autotune_rlm.networks._load import STANDARD, subgraphs

if TYPE_CHECKING:
    import onnx

__all__ = ["canonical", "trips"]

_PASS_THROUGH = frozenset({"Identity", "Dropout"})
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"}
    | {"RandomUniform", "RandomUniformLike"}
)
_MOST_VALUES = 1024  # elements of a value that is computed
_MOST_STORED = 128  # and of one that is stored, as ``load_skeleton`` keeps them
_SHOWN = 16  # and of one that is part of the text
_SHOWN_TYPES = (np.dtype(np.int64), np.dtype(np.int32), np.dtype(bool))
_CODES = {name: code for code, name in DTYPES.items()}


def canonical(model: onnx.ModelProto) -> Graph:
    """The canonical graph of a skeleton; see ``read_graph``."""
    from onnx import shape_inference

    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # onnx raises its own errors and plain RuntimeError; nodes are asked below
        inferred = model
    opsets = {o.domain: o.version for o in inferred.opset_import}
    version = max((opsets.get(domain, 0) for domain in STANDARD), default=0)
    try:
        return _Reader(opsets, version).read(inferred.graph, None, {})
    except RecursionError:
        raise ValueError("model: subgraphs are nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"model: a name is no text ({error}); the file is damaged") from None


@dataclass
class _Scope:
    """What is known of the values of a graph; a graph within a graph asks the enclosing one too."""

    tensors: MutableMapping[str, Tensor]
    values: MutableMapping[str, np.ndarray]
    constants: MutableMapping[str, np.ndarray]  # those of the values that a reader wants to see
    types: MutableMapping[str, Any]
    outer: _Scope | None
    weights: set[str] = field(default_factory=set)
    alias: dict[str, str] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    producers: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def within(cls, outer: _Scope | None) -> _Scope:
        if outer is None:
            return cls({}, {}, {}, {}, None)

        def within(known: Any) -> Any:
            return ChainMap({}, *getattr(known, "maps", [known]))

        return cls(
            within(outer.tensors),
            within(outer.values),
            within(outer.constants),
            within(outer.types),
            outer,
        )

    def set(self, name: str, value: np.ndarray) -> None:
        """Keep a value that is known."""
        self.values[name] = value
        if value.dtype in _SHOWN_TYPES and value.size <= _SHOWN:
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


class _Reader:
    """Reads graphs of one model."""

    def __init__(self, opsets: Mapping[str, int], version: int) -> None:
        import onnx

        self._opsets = dict(opsets)
        self._version = version
        self._imports = [onnx.helper.make_opsetid(d, v) for d, v in opsets.items()]

    def read(
        self, proto: onnx.GraphProto, outer: _Scope | None, inputs: Mapping[str, Tensor]
    ) -> Graph:
        """The canonical form of a graph; ``inputs`` are types that are known better than declared."""
        scope = _Scope.within(outer)
        self._declare(proto, scope, inputs)
        outputs = [v.name for v in proto.output]
        if not outputs:
            raise ValueError("model: the graph has no outputs, so nothing in it is computed")
        roots = [scope.resolve(o) for o in outputs]
        order = _postorder(roots, scope, frozenset())
        folded: set[str] = set()
        nodes: dict[int, Node] = {}
        captured: set[str] = set()
        for item in order:
            node = nodes[id(item)] = self._node(item, scope)
            self._infer(item, node, scope)
            if node.graphs:
                captured.update(*(g.captured for g in node.graphs))
            elif self._evaluate(item, node, scope):
                folded.update(o for o in node.outputs if o)
        folded.difference_update(roots)
        if folded:
            order = _postorder(roots, scope, folded)
        live = tuple(nodes[id(item)] for item in order)
        if outer is not None:
            captured.update(roots, *(n.inputs for n in live))
            captured = {i for i in captured - scope.weights if scope.is_weight(i)}
        return Graph(
            nodes=live,
            inputs=tuple(v.name for v in proto.input if v.name not in scope.weights),
            outputs=tuple(roots),
            tensors=scope.tensors,
            weights=frozenset(scope.weights | folded),
            constants=scope.constants,
            opset=self._version,
            captured=frozenset(captured if outer is not None else ()),
        )

    def _declare(self, proto: onnx.GraphProto, scope: _Scope, inputs: Mapping[str, Tensor]) -> None:
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
        scope.given.update(v.name for v in proto.input)
        for node in proto.node:
            names = (node.op_type, node.domain, *node.input, *node.output)
            if not all(isinstance(t, str) for t in names):
                raise ValueError("model: the name of an operator or value is no text; damaged?")
            standard = node.domain in STANDARD
            if node.op_type == "Constant" and standard and len(node.output) == 1:
                self._constant(scope, node)
                continue
            for name in node.output:
                if name and (name in scope.producers or name in scope.weights):
                    raise ValueError(f"model: two nodes produce {name!r}")
                scope.producers[name] = node
            if node.op_type in _PASS_THROUGH and standard and node.input and node.output:
                scope.alias[node.output[0]] = node.input[0]
        scope.producers.pop("", None)

    def _weight(self, scope: _Scope, name: str, tensor: onnx.TensorProto) -> None:
        from onnx import numpy_helper

        scope.weights.add(name)
        found = scope.tensors[name] = Tensor(DTYPES.get(tensor.data_type, "?"), tuple(tensor.dims))
        scope.types.pop(name, None)
        size = found.size()
        if size is None or size > _MOST_STORED or tensor.data_location == tensor.EXTERNAL:
            return
        try:
            scope.set(name, numpy_helper.to_array(tensor))
        except Exception:  # a payload that does not fit the declared shape
            return

    def _constant(self, scope: _Scope, node: onnx.NodeProto) -> None:
        import onnx

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
                if kind != "str" and value.size <= _MOST_STORED:
                    scope.set(name, value.astype(np.int64 if kind == "i64" else np.float32))
            scope.types.pop(name, None)
            return
        raise ValueError(f"model: the Constant {name!r} has no value")

    def _node(self, proto: onnx.NodeProto, scope: _Scope) -> Node:
        import onnx

        standard = proto.domain in STANDARD
        op = proto.op_type if standard else f"{proto.domain}.{proto.op_type}"
        inputs = tuple(scope.resolve(i) if i else "" for i in proto.input)
        attributes: dict[str, Any] = {}
        held = False
        kinds = _attribute_types(proto.op_type, self._version if standard else 1, proto.domain)
        for attribute in proto.attribute:
            if not isinstance(attribute.name, str) or (
                attribute.type != kinds.get(attribute.name, attribute.type)
            ):
                raise ValueError(
                    f"model: attribute {attribute.name!r} of {op} has another type than it must"
                )
            if attribute.HasField("g") or attribute.graphs:
                held = True
            elif attribute.HasField("t"):
                attributes[attribute.name] = _attribute_tensor(attribute.t)
            else:
                value = onnx.helper.get_attribute_value(attribute)
                if value is not None:
                    attributes[attribute.name] = value
        if held:
            attributes.update(self._graphs(proto, op, inputs, attributes, scope))
        return Node(op, inputs, tuple(proto.output), attributes)

    def _graphs(
        self,
        proto: onnx.NodeProto,
        op: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Any],
        scope: _Scope,
    ) -> dict[str, Graph]:
        taken = _taken_branch(op, inputs, scope)
        read: dict[str, Graph] = {}
        for attribute in proto.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for number, graph in enumerate(graphs):
                name = attribute.name if not attribute.graphs else f"{attribute.name}{number}"
                if taken is not None and name != taken:
                    continue
                arguments = [scope.tensors.get(i) for i in inputs]
                names = [v.name for v in graph.input]
                given = dict(_body_inputs(op, names, arguments, attributes, self._version))
                read[name] = self.read(graph, scope, given)
        return read

    def _infer(self, proto: onnx.NodeProto, node: Node, scope: _Scope) -> None:
        """Complete the types of a node's results, where its arguments' are complete."""
        if node.graphs:
            for name, tensor in _held_results(node, scope, self._version):
                scope.tensors[name] = tensor
                scope.types.pop(name, None)
            return
        if all(_is_complete(scope, o) for o in node.outputs if o):
            return
        if not all(_is_complete(scope, i) for i in node.inputs if i):
            return
        for name, kind in self._results(proto, node, scope):
            scope.types[name] = kind
            if (inferred := _tensor(kind)) is not None:
                scope.tensors[name] = inferred
        if node.outputs and not _is_complete(scope, node.outputs[0]):
            view = Graph((), (), (), scope.tensors, frozenset(), {}, self._version)
            found = foreign_result(view, node)
            if found is not None:
                scope.tensors[node.outputs[0]] = found
                scope.types.pop(node.outputs[0], None)

    def _results(
        self, proto: onnx.NodeProto, node: Node, scope: _Scope
    ) -> Iterator[tuple[str, Any]]:
        import onnx
        from onnx import numpy_helper, shape_inference

        domain = "" if proto.domain in STANDARD else proto.domain
        version = self._version if not domain else self._opsets.get(domain, 1)
        pairs = [(i, r) for i, r in zip(proto.input, node.inputs, strict=True) if i]
        try:
            schema = onnx.defs.get_schema(proto.op_type, version, domain)
            kinds = {i: _type(scope, r) for i, r in pairs}
            data = {i: numpy_helper.from_array(v, i) for i, r in pairs
                    if (v := scope.values.get(r)) is not None}  # fmt: skip
            yield from shape_inference.infer_node_outputs(
                schema, proto, kinds, data, opset_imports=self._imports
            ).items()
        except Exception:  # no such operator, or arguments that it does not take: left open
            return

    def _evaluate(self, proto: onnx.NodeProto, node: Node, scope: _Scope) -> bool:
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
        if any(s is None or s > _MOST_VALUES for s in sizes):
            return False
        from onnx.reference import ReferenceEvaluator

        feeds = {i: scope.values[r] for i, r in zip(proto.input, node.inputs, strict=True) if i}
        try:
            with np.errstate(all="ignore"):
                results = ReferenceEvaluator(proto, opsets=self._evaluated).run(None, feeds)
        except Exception:  # the evaluator has no such operator, or the node is not sound
            return False
        if not all(isinstance(r, (np.ndarray, np.generic)) for r in results):
            return False
        for name, result in zip(node.outputs, results, strict=False):
            if name:
                scope.set(name, np.asarray(result))
        return True

    @property
    def _evaluated(self) -> dict[str, int]:
        return {"": self._version, **{d: v for d, v in self._opsets.items() if d not in STANDARD}}


# ---- graphs within graphs


def _taken_branch(op: str, inputs: Sequence[str], scope: _Scope) -> str | None:
    """Name of the branch of an ``If`` whose condition is known."""
    if op != "If" or not inputs or (value := scope.values.get(inputs[0])) is None or not value.size:
        return None
    return "then_branch" if bool(value.ravel()[0]) else "else_branch"


def _body_inputs(
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
    return None


def _held_results(node: Node, scope: _Scope, version: int) -> Iterator[tuple[str, Tensor]]:
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
    view = Graph((), (), (), scope.tensors, frozenset(), scope.values, version)
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


# ---- types and values


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


def _type(scope: _Scope, name: str) -> onnx.TypeProto:
    import onnx

    kind = scope.types.get(name)
    if kind is not None:
        return kind
    tensor = scope.tensors[name]
    return onnx.helper.make_tensor_type_proto(_CODES.get(tensor.dtype, 0), tensor.shape)


def _is_complete(scope: _Scope, name: str) -> bool:
    tensor = scope.tensors.get(name)
    if tensor is not None:
        return tensor.size() is not None and tensor.dtype != "?"
    kind = scope.types.get(name)
    return kind is not None and kind.WhichOneof("value") not in (None, "tensor_type")


@lru_cache(maxsize=2048)
def _attribute_types(op: str, version: int, domain: str) -> Mapping[str, int]:
    """Types (``AttributeProto.AttributeType``) of an operator's attributes; empty where unknown."""
    import onnx

    try:
        schema = onnx.defs.get_schema(op, max(version, 1), "" if domain in STANDARD else domain)
    except onnx.defs.SchemaError:
        return {}
    kinds: dict[str, Any] = {name: a.type for name, a in schema.attributes.items()}
    return {name: int(getattr(kind, "value", kind)) for name, kind in kinds.items()}


def _attribute_tensor(tensor: onnx.TensorProto) -> Any:
    from onnx import numpy_helper

    shape = Tensor(DTYPES.get(tensor.data_type, "?"), tuple(tensor.dims))
    size = shape.size()
    if shape.dtype in ("i32", "i64") and size is not None and size <= _SHOWN:
        try:
            return numpy_helper.to_array(tensor).tolist()
        except Exception:  # a payload that does not fit the declared shape
            return shape
    return shape


# ---- order


def _postorder(
    roots: Sequence[str], scope: _Scope, folded: frozenset[str] | set[str]
) -> list[onnx.NodeProto]:
    """Nodes inputs first, by a walk from the outputs; independent of names and file order."""
    order: list[onnx.NodeProto] = []
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
                stack.append((producer, _needed(producer)))
    return order


def _needed(node: onnx.NodeProto) -> Iterator[str]:
    yield from filter(None, node.input)
    for graph in subgraphs(node):
        yield from _free(graph)


def _free(graph: onnx.GraphProto) -> Iterator[str]:
    """Values that a graph reads from the enclosing one."""
    own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    own |= {s.values.name for s in graph.sparse_initializer}
    own |= {o for n in graph.node for o in n.output}
    for node in graph.node:
        yield from (name for name in _needed(node) if name not in own)
    yield from (v.name for v in graph.output if v.name not in own)
