"""A model without its weights: tensors keep name, type and shape, and small integer values.

Weights are never read: in a file the payload of every large tensor is skipped on the wire (protobuf
fields are length-prefixed), and external data stays where it is. Layout of the messages:
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    import onnx

__all__ = ["ModelLike", "load_skeleton"]

ModelLike = Union["onnx.ModelProto", str, "os.PathLike[str]", bytes]

_KEEP_BYTES = 1024  # a tensor's payload up to this size is kept: shapes and axes live there

# Fields of each message that may hold a tensor further down: {message: {field: child message}}.
_NESTED = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_TENSOR_PAYLOAD = {4, 5, 6, 7, 9, 10, 11}


def load_skeleton(model: ModelLike) -> onnx.ModelProto:
    """The model with the payload of large tensors left out.

    Args:
        model: An ``onnx.ModelProto`` (left unchanged), the path of a model file, or its bytes.

    Returns:
        A new ``ModelProto`` that holds everything but tensor payloads above 1 KiB.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an ONNX model, or is cut off.
        TypeError: ``model`` is none of these.
    """
    import onnx

    if isinstance(model, onnx.ModelProto):
        return _copy_skeleton(model)
    if isinstance(model, (bytes, bytearray, memoryview)):
        return _parse(memoryview(model), "the given bytes")
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(
            f"model must be an onnx.ModelProto, a path or bytes, got {type(model).__name__}"
        )
    path = Path(model)
    if not path.is_file():
        raise FileNotFoundError(f"model: there is no file {str(path)!r}")
    if path.stat().st_size == 0:
        raise ValueError(f"model: {str(path)!r} is empty; export the model again")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        return _parse(view, repr(str(path)))


def _parse(view: memoryview, what: str) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        skeleton = onnx.ModelProto.FromString(b"".join(_strip(view, "model")))
    except (DecodeError, _Malformed) as error:
        raise ValueError(
            f"model: {what} is not a whole ONNX model ({error}); it is cut off or of another "
            "format, export or copy it again"
        ) from None
    if not skeleton.graph.node and not skeleton.graph.output:
        raise ValueError(f"model: {what} holds no ONNX graph; is it another kind of file?")
    return skeleton


class _Malformed(ValueError):
    pass


def _strip(view: memoryview, message: str) -> Iterator[bytes]:
    """The wire bytes of a message with the payloads of large tensors dropped."""
    nested = _NESTED.get(message, {})
    position, end = 0, len(view)
    while position < end:
        start = position
        tag, position = _varint(view, position)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            _, position = _varint(view, position)
        elif wire == 1:
            position += 8
        elif wire == 5:
            position += 4
        elif wire == 2:
            size, position = _varint(view, position)
            body, position = position, position + size
            if position > end:
                raise _Malformed(f"a field of {size} bytes reaches beyond the end")
            if size > _KEEP_BYTES:
                if message == "tensor" and field in _TENSOR_PAYLOAD:
                    continue
                if field in nested:
                    child = b"".join(_strip(view[body:position], nested[field]))
                    yield _encode(tag) + _encode(len(child)) + child
                    continue
        else:
            raise _Malformed(f"unknown wire type {wire}")
        if position > end or field == 0:
            raise _Malformed("a field reaches beyond the end" if field else "field number 0")
        yield bytes(view[start:position])


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(view) or shift > 63:
            raise _Malformed("a number reaches beyond the end")
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _encode(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _copy_skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    copy = onnx.ModelProto()
    for descriptor, value in model.ListFields():
        if descriptor.name == "graph":
            _copy_graph(model.graph, copy.graph)
        elif descriptor.name == "functions":
            copy.functions.extend(model.functions)
        elif isinstance(value, (int, str, bytes, float)):
            setattr(copy, descriptor.name, value)
        else:
            getattr(copy, descriptor.name).extend(value)
    return copy


def _copy_graph(source: onnx.GraphProto, target: onnx.GraphProto) -> None:
    for descriptor, value in source.ListFields():
        name = descriptor.name
        if name == "node":
            for node in source.node:
                _copy_node(node, target.node.add())
        elif name == "initializer":
            for tensor in source.initializer:
                _copy_tensor(tensor, target.initializer.add())
        elif name == "sparse_initializer":
            for sparse in source.sparse_initializer:
                slim = target.sparse_initializer.add()
                slim.dims.extend(sparse.dims)
                _copy_tensor(sparse.values, slim.values)
                _copy_tensor(sparse.indices, slim.indices)
        elif isinstance(value, str):
            setattr(target, name, value)
        else:
            getattr(target, name).extend(value)


def _copy_node(source: onnx.NodeProto, target: onnx.NodeProto) -> None:
    if source.ByteSize() <= _KEEP_BYTES:
        target.CopyFrom(source)
        return
    for descriptor, value in source.ListFields():
        if descriptor.name != "attribute":
            if isinstance(value, str):
                setattr(target, descriptor.name, value)
            else:
                getattr(target, descriptor.name).extend(value)
    for attribute in source.attribute:
        slim = target.attribute.add()
        if attribute.HasField("t"):
            slim.name, slim.type = attribute.name, attribute.type
            _copy_tensor(attribute.t, slim.t)
        elif attribute.HasField("g"):
            slim.name, slim.type = attribute.name, attribute.type
            _copy_graph(attribute.g, slim.g)
        else:
            slim.CopyFrom(attribute)


def _copy_tensor(source: onnx.TensorProto, target: onnx.TensorProto) -> None:
    payload = len(source.raw_data) or 4 * max(
        len(source.float_data),
        len(source.int32_data),
        2 * len(source.int64_data),
        2 * len(source.double_data),
        2 * len(source.uint64_data),
        len(source.string_data),
    )
    if payload <= _KEEP_BYTES:
        target.CopyFrom(source)
        return
    target.name, target.data_type = source.name, source.data_type
    target.dims.extend(source.dims)
