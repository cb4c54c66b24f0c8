"""A model without its weights: tensors keep name, type and shape, and the values of small ones.

onnx reads the file (external data stays where it is). Functions of the model are inlined by onnx, so
that what follows sees operators only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    import onnx

ModelLike = Union["onnx.ModelProto", str, "os.PathLike[str]", bytes]
"""An ONNX model: the parsed model, the path of its file, or the file's bytes."""

STANDARD = ("", "ai.onnx")
"""Names of the standard operator set."""

_LFS = b"version https://git-lfs"
_KEEP_ELEMENTS = 128  # of a tensor whose values are kept: shapes and axes live there
_MAX_DEPTH = 32  # subgraphs in subgraphs; protobuf itself reads no deeper
_MAX_NODES = 2_000_000  # after inlining; the largest published decoders have about 30,000
_PAYLOAD = frozenset(
    {"raw_data", "float_data", "int32_data", "string_data", "int64_data"}
    | {"double_data", "uint64_data"}
)
_NESTED = {  # fields of each message that may hold a tensor further down
    "ModelProto": {"graph", "functions"},
    "GraphProto": {"node", "initializer", "sparse_initializer"},
    "FunctionProto": {"node"},
    "NodeProto": {"attribute"},
    "AttributeProto": {"t", "g", "tensors", "graphs", "sparse_tensor", "sparse_tensors"},
    "SparseTensorProto": {"values", "indices"},
    "TensorProto": set(),
}


def load_skeleton(model: ModelLike) -> onnx.ModelProto:
    """The model with the values of tensors above 128 elements left out and its functions inlined.

    Takes a ``ModelProto`` (left unchanged), the path of a file in a format that ``onnx.load`` knows, or
    the bytes of one in protobuf.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an ONNX model or is cut off, subgraphs are nested too deeply, or
            functions call themselves or expand to more than 2,000,000 nodes.
        TypeError: ``model`` is none of these.
    """
    import onnx

    what = "the given model"
    if not isinstance(model, onnx.ModelProto):
        model, what = _read(model)
    skeleton = onnx.ModelProto()
    try:
        _copy(model, skeleton, 0)
    except UnicodeDecodeError as error:
        raise ValueError(f"model: a name in {what} is no text ({error}); it is damaged") from None
    if not skeleton.graph.node and not skeleton.graph.output:
        raise ValueError(f"model: {what} holds no ONNX graph; is it another kind of file?")
    return _inlined(skeleton) if skeleton.functions else skeleton


def named_subgraphs(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The graphs that a node holds, by attribute: branches of ``If``, bodies of ``Loop``, ``Scan``."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.name, attribute.g
        for number, graph in enumerate(attribute.graphs):
            yield f"{attribute.name}{number}", graph


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    return (graph for _, graph in named_subgraphs(node))


def _read(model: Any) -> tuple[onnx.ModelProto, str]:
    import onnx

    if isinstance(model, (bytes, bytearray, memoryview)):
        what, content = "what was given", bytes(model)
    elif isinstance(model, (str, os.PathLike)):
        path = Path(model)
        what, content = repr(str(path)), b""
        if not path.is_file():
            raise FileNotFoundError(f"model: there is no file {str(path)!r}")
        if path.stat().st_size == 0:
            raise ValueError(f"model: {what} is empty; export the model again")
        with path.open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                raise ValueError(f"model: {what} is a pointer of Git LFS; run `git lfs pull`")
    else:
        raise TypeError(
            f"model must be an onnx.ModelProto, a path or bytes, got {type(model).__name__}"
        )
    try:
        if content or not isinstance(model, (str, os.PathLike)):
            return onnx.load_model_from_string(content), what
        return onnx.load(path, load_external_data=False), what
    except OSError:
        raise
    except Exception as error:  # protobuf, its text formats and JSON each raise their own
        raise ValueError(
            f"model: {what} is not a whole ONNX model ({type(error).__name__}: {error}); it is cut "
            "off or of another format, export or copy it again"
        ) from None


def _copy(source: Any, target: Any, depth: int) -> None:
    """Copy a message without the payload of large tensors."""
    kind = type(source).__name__
    if depth > _MAX_DEPTH:
        raise ValueError(f"model: subgraphs are nested more than {_MAX_DEPTH} deep")
    if kind == "GraphProto" and depth and source.ByteSize() <= _KEEP_ELEMENTS // 2:
        target.CopyFrom(source)  # too few bytes for a large tensor, even of half bytes
        return
    nested = _NESTED[kind]
    large = kind == "TensorProto" and _is_large(source)
    for field, value in source.ListFields():
        name = field.name
        if (large and name in _PAYLOAD) or name == "training_info":
            continue
        if name in nested:
            if not _is_repeated(value):
                _copy(value, getattr(target, name), depth + (name == "g"))
                continue
            for item in value:
                child = getattr(target, name).add()
                if name in ("node", "attribute") and not _holds_tensors(item):
                    child.CopyFrom(item)
                else:
                    _copy(item, child, depth + (name == "graphs"))
        elif _is_repeated(value):
            getattr(target, name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(target, name).CopyFrom(value)
        else:
            setattr(target, name, value)


def _is_repeated(value: Any) -> bool:
    return hasattr(value, "extend")


def _holds_tensors(item: Any) -> bool:
    attributes = item.attribute if hasattr(item, "op_type") else [item]
    return any(
        a.HasField("t") or a.HasField("g") or a.HasField("sparse_tensor")
        or a.graphs or a.tensors or a.sparse_tensors
        for a in attributes
    )  # fmt: skip


def _is_large(tensor: onnx.TensorProto) -> bool:
    return math.prod(tensor.dims) > _KEEP_ELEMENTS or len(tensor.raw_data) > 16 * _KEEP_ELEMENTS


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its own functions put where they are called, unless that is no network's size."""
    import onnx.inliner

    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    sizes: dict[tuple[str, str, str], int | None] = {}

    def size(nodes: Any, depth: int) -> int:
        if depth > 20 * _MAX_DEPTH:
            raise ValueError("model: functions call each other too deeply")
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            if key in functions:
                if key not in sizes:
                    sizes[key] = None
                    sizes[key] = size(functions[key].node, depth + 1)
                inner = sizes[key]
                if inner is None:
                    raise ValueError(f"model: the function {node.op_type!r} calls itself")
                total += inner
            total += 1 + sum(size(graph.node, depth + 1) for graph in subgraphs(node))
            if total > _MAX_NODES:
                raise ValueError(
                    f"model: its functions expand to more than {_MAX_NODES:,} operators"
                )
        return total

    size(model.graph.node, 0)
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the inliner raises its own errors and plain RuntimeError
        raise ValueError(f"model: onnx cannot inline its functions ({error})") from None
