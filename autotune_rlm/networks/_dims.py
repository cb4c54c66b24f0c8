"""Dynamic dimensions of a model's inputs: their names, the sizes that are assumed, binding them."""

from __future__ import annotations

import ast
import numbers
import operator
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autotune_rlm._checks import check_type
from autotune_rlm.networks._load import STANDARD, ModelLike, load_skeleton, subgraphs

if TYPE_CHECKING:
    import onnx

_IMAGE, _OTHER = 224, 128  # pixels of a side; tokens, features and all else

_ARITHMETIC: Mapping[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
}


def dynamic_dims(model: onnx.ModelProto) -> dict[tuple[str, int], str]:
    """Names of the dynamic dimensions of the inputs, by input and axis.

    A dimension is dynamic where it has a symbol, no size, or a size below 1 (some exporters write
    -1 or 0). Without a symbol it is called ``"input:axis"``.
    """
    weights = {t.name for t in model.graph.initializer}
    return {
        (value.name, axis): dim.dim_param or f"{value.name}:{axis}"
        for value in model.graph.input
        if value.name not in weights
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        if dim.dim_value < 1
    }


def assumed_dims(model: onnx.ModelProto, given: Mapping[str, int] | None = None) -> dict[str, int]:
    """Sizes of all dynamic dimensions of a skeleton by name: those given, and assumed ones for the rest.

    Assumed are the channels that a convolution reads, the value of a symbol that is a sum of others
    (``"past + 1"``), 1 for the first axis, 224 for the last two of a four-dimensional input and 128
    for the rest. Facts, predictions and measurements all take their sizes here. A name that the model
    does not have, and a size that is no positive number, is a ValueError.
    """
    names = dynamic_dims(model)
    _check({} if given is None else given, names)
    sizes: dict[str, int] = {}
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in model.graph.input}
    channels = _channels(model)
    for (value, axis), name in names.items():
        if axis == 1 and value in channels:
            size = channels[value]
        else:
            size = 1 if axis == 0 else _IMAGE if ranks[value] == 4 and axis >= 2 else _OTHER
        sizes.setdefault(name, size)
    sizes.update({k: int(v) for k, v in (given or {}).items()})
    for name in sizes:
        if name not in (given or {}) and (told := _evaluated(name, sizes)) is not None:
            sizes[name] = told
    return sizes


def bind(model: onnx.ModelProto, dims: Mapping[str, int] | None) -> None:
    """Give dimensions their sizes, in every declared type of a skeleton; others get their symbol."""
    names = dynamic_dims(model)
    _check({} if dims is None else dims, names)
    sizes = {k: int(v) for k, v in (dims or {}).items()}
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if (value.name, axis) in names:
                dim.dim_param = names[value.name, axis]
    _bind_types(model.graph, sizes, {v.name for v in model.graph.input})


def input_sizes(
    model: ModelLike, dims: Mapping[str, int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs by name, as ``assumed_dims`` completes them; names unknown are ignored."""
    skeleton = load_skeleton(model)
    names = set(dynamic_dims(skeleton).values())
    sizes = assumed_dims(skeleton, {k: v for k, v in (dims or {}).items() if k in names})
    bind(skeleton, sizes)
    return {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in skeleton.graph.input
    }


def _check(given: Mapping[str, int], names: Mapping[tuple[str, int], str]) -> None:
    check_type("dims", given, Mapping)
    if unknown := set(given) - set(names.values()):
        known = ", ".join(sorted(set(names.values()))) or "none"
        raise ValueError(
            f"dims: the model has no dynamic dimension named {', '.join(map(str, unknown))}; it "
            f"has: {known}"
        )
    for name, size in given.items():
        if isinstance(size, bool) or not isinstance(size, numbers.Integral) or size < 1:
            raise ValueError(f"dims: the size of {name!r} must be a positive integer, got {size!r}")


def _bind_types(graph: onnx.GraphProto, sizes: Mapping[str, int], inputs: set[str]) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            size = sizes.get(dim.dim_param)
            if size is None and dim.dim_param:
                size = _evaluated(dim.dim_param, sizes)
            if size is not None:
                dim.dim_value = size
            elif dim.HasField("dim_value") and dim.dim_value < 1:
                dim.Clear()
    for node in graph.node:
        for inner in subgraphs(node):
            _bind_types(inner, sizes, set())


def _channels(model: onnx.ModelProto) -> dict[str, int]:
    """Channels of the inputs that a convolution reads."""
    weights = {t.name: t.dims for t in model.graph.initializer}
    found: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvInteger") and node.domain in STANDARD:
            shape: Sequence[int] = weights.get(node.input[1], ()) if len(node.input) > 1 else ()
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            if len(shape) > 1:
                found.setdefault(node.input[0], shape[1] * groups)
    return found


def _evaluated(expression: str, sizes: Mapping[str, int]) -> int | None:
    """The value of an arithmetic expression of other dimensions; None for anything else."""
    if expression.isidentifier() or len(expression) > 200 or not re.search("[-+*/]", expression):
        return None
    try:
        found = _value(ast.parse(expression, mode="eval").body, sizes)
    except (SyntaxError, KeyError, ZeroDivisionError, RecursionError, ValueError):
        return None
    return found if 0 < found < 2**62 else None


def _value(node: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return int(_ARITHMETIC[type(node.op)](_value(node.left, sizes), _value(node.right, sizes)))
    raise ValueError("not a sum or product of dimensions")
