"""A graph as compact text: one line per operator, repeated blocks folded.

```
onnx 17
in f32[1,3,32,32]
Conv w16x3x3x3 p1 > 1x16x32x32
Relu
3x{
Conv w16x16x3x3 b16 p1
Relu
Add -1 -3
}
out -1
```

A line is operator, arguments, attributes that differ from their defaults, and the shape of the
result where it differs from that of the first argument. Arguments are written by distance (``-3``
is the value of three lines before), ``-1`` alone is left out; far ones and graph inputs by number
(``%17``, ``in0``); weights by shape (``w16x3x3x3``), small integer weights by value. Distances make
equal blocks equal text, so repeats fold. A graph within an operator stands in braces; what it reads
of the enclosing graph is written as that operator would, behind ``^``.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from autotune_rlm.networks._fold import fold
from autotune_rlm.networks._graph import Graph, Node, Tensor, read_graph
from autotune_rlm.networks._load import ModelLike, load_skeleton

_PER_AXIS = frozenset({"kernel_shape", "strides", "dilations", "pads"})
_NEAR = 32  # values up to this many lines back are written by distance
_SHORT = {
    "kernel_shape": "k", "strides": "s", "pads": "p", "dilations": "d", "group": "g",
    "axis": "axis", "axes": "axes", "perm": "perm",
}  # fmt: skip
_SHORT_OPS = {
    "BatchNormalization": "BN", "LayerNormalization": "LN", "GlobalAveragePool": "GlobalAvgPool",
    "AveragePool": "AvgPool", "ConvTranspose": "ConvT",
}  # fmt: skip


def onnx_text(
    model: ModelLike | Graph, *, dims: Mapping[str, int] | None = None, folded: bool = True
) -> str:
    """The canonical, compact text of a network, as the surrogate reads it.

    Equal graphs give equal text: names, the order of nodes in the file, dead nodes, ``Identity``
    and ``Dropout``, and whether weights are inside the file or beside it change nothing. Weights
    are not read.

    Args:
        model: An ``onnx.ModelProto``, a path, bytes, or a ``Graph`` from ``read_graph``.
        dims: Sizes for dynamic dimensions of the inputs, by symbol; others are written ``?0``,
            ``?1``... in order of appearance.
        folded: Whether repeated blocks are folded into ``Nx{ ... }``.

    Returns:
        Lines joined by newlines, without a final newline.

    Raises:
        ValueError: The model is cut off or its graph is not sound; see ``read_graph``.
    """
    graph = read_graph(model, dims=dims)
    lines = [f"onnx {graph.opset}", *_Writer(graph, _Symbols()).lines()]
    return "\n".join(fold(lines) if folded else lines)


def printable_text(model: ModelLike) -> str:
    """The network in the layout of ``onnx.helper.printable_graph``; weights are not read.

    The published Regression Language Models (arXiv 2509.26476) read this layout.
    """
    import onnx

    with warnings.catch_warnings():  # onnx prefers another layout now, the models read this one
        warnings.simplefilter("ignore", DeprecationWarning)
        return onnx.helper.printable_graph(load_skeleton(model).graph)


class _Symbols:
    """Numbers unknown dimensions by first appearance, whatever they are called."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def dim(self, value: int | str) -> str:
        if isinstance(value, int):
            return str(value)
        if value == "?" or value.startswith("unk__"):
            return "?"
        return self._known.setdefault(value, f"?{len(self._known)}")

    def shape(self, shape: Sequence[int | str]) -> str:
        return "x".join(self.dim(d) for d in shape) or "scalar"


class _Writer:
    """Writes the lines of a graph; ``outer`` writes a value of the enclosing graph."""

    def __init__(
        self, graph: Graph, symbols: _Symbols, outer: Callable[[str], str] | None = None
    ) -> None:
        self._graph, self._symbols, self._outer = graph, symbols, outer
        self._inputs = {name: f"in{number}" for number, name in enumerate(graph.inputs)}
        self._at: dict[str, tuple[int, int]] = {}  # line and slot of what was written so far

    def lines(self) -> list[str]:
        graph = self._graph
        written: list[str] = []
        for name in graph.inputs:
            tensor = graph.tensor(name)
            dims = ["*"] if tensor.shape is None else list(map(self._symbols.dim, tensor.shape))
            written.append(f"in {tensor.dtype}[{','.join(dims)}]")
        for line, node in enumerate(graph.nodes):
            written.append(self._line(node, line))
            self._at.update({name: (line, slot) for slot, name in enumerate(node.outputs) if name})
        end = len(graph.nodes)
        return [*written, "out " + " ".join(self._reference(o, end) for o in graph.outputs)]

    def _line(self, node: Node, line: int) -> str:
        graph, symbols = self._graph, self._symbols
        parts = [_SHORT_OPS.get(node.op, node.op)]
        arguments = [self._reference(i, line) for i in node.inputs]
        if parts[0] == "BN":
            arguments = arguments[:1]
        while arguments and arguments[-1] == "_":
            arguments.pop()
        others = arguments[1:]
        if arguments[:1] == ["-1"] and not any(a.startswith(("-", "%", "in")) for a in others):
            arguments = others
        parts += arguments
        nested = []
        for name, value in sorted(node.attributes.items()):
            if isinstance(value, Graph):
                inner = _Writer(value, symbols, lambda name: self._reference(name, line)).lines()
                nested.append(f"{name}{{" + "; ".join(inner) + "}")
            elif not _is_default(node, name, value, graph):
                parts.append(_attribute(name, value, symbols))
        first = graph.tensor(node.inputs[0]) if node.inputs and node.inputs[0] else Tensor()
        results = []
        for output in node.outputs:
            result = graph.tensors.get(output)
            if result is None or result.shape is None:
                results.append("*" if output else "")
                continue
            text = symbols.shape(result.shape)
            same = first.shape is not None and text == symbols.shape(first.shape)
            kind = "" if result.dtype in (first.dtype, "?") else result.dtype
            results.append("" if same and not kind else f"{kind}:{text}" if kind else text)
        if any(r not in ("", "*") for r in results):
            parts.append("> " + " ".join(r or "=" for r in results))
        elif len(node.outputs) > 1:
            parts.append(f"> {len(node.outputs)}")
        return " ".join(parts + nested)

    def _reference(self, name: str, line: int) -> str:
        graph = self._graph
        if not name:
            return "_"
        if name in self._at:
            source, slot = self._at[name]
            back = line - source
            text = f"-{back}" if back <= _NEAR else f"%{source}"
            return f"{text}.{slot}" if slot else text
        if name in graph.constants:
            values = np.ravel(graph.constants[name]).tolist()
            return "[" + ",".join(map(str, values)) + "]"
        if name in graph.weights:
            tensor = graph.tensor(name)
            kind = "w" if tensor.dtype == "f32" else f"w{tensor.dtype}:"
            if tensor.shape is not None and len(tensor.shape) == 1 and kind == "w":
                kind = "b"
            return kind + self._symbols.shape(tensor.shape or ())
        if name in self._inputs or self._outer is None:
            return self._inputs.get(name, "?")
        text = self._outer(name)
        return text if name in graph.captured or text.startswith("[") else f"^{text}"


def _attribute(name: str, value: Any, symbols: _Symbols) -> str:
    text = _value(value, symbols)
    if name in _PER_AXIS and len(set(value)) == 1:
        text = str(value[0])
    short = _SHORT.get(name)
    return f"{short}{text}" if short and len(short) == 1 else f"{name}={text}"


def _value(value: Any, symbols: _Symbols) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Tensor):
        return f"{value.dtype}:{symbols.shape(value.shape or ())}"
    if isinstance(value, (list, tuple, np.ndarray)):
        items = [_value(v, symbols) for v in value]
        return f"[{len(items)}]" if len(items) > 16 else "[" + ",".join(items) + "]"
    return str(value) if isinstance(value, (int, str)) else type(value).__name__


def _is_default(node: Node, name: str, value: Any, graph: Graph) -> bool:
    if name == "kernel_shape" and node.op in ("Conv", "ConvTranspose"):
        weight = graph.tensor(node.inputs[1]).shape if len(node.inputs) > 1 else None
        return weight is not None and list(weight[2:]) == list(value)
    if name in ("strides", "dilations"):
        return all(v == 1 for v in value)
    if name in ("pads", "output_padding"):
        return not any(value)
    if name == "auto_pad":
        return value in (b"NOTSET", "NOTSET")
    return _schema_defaults(node.op, graph.opset).get(name, _MISSING) == value


_MISSING = object()


@functools.lru_cache(maxsize=1024)
def _schema_defaults(op: str, opset: int) -> Mapping[str, Any]:
    import onnx

    try:
        schema = onnx.defs.get_schema(op, max(opset, 1), "")
    except Exception:  # an operator of another domain, or one that no known opset has
        return {}
    return {
        name: onnx.helper.get_attribute_value(attribute.default_value)
        for name, attribute in schema.attributes.items()
        if attribute.default_value is not None and attribute.default_value.name
    }
