"""The text of a TTIR module as a tree of operations.

MLIR's text is the interface that Triton 3.4 to 3.9 share; their Python bindings differ. Every value
gets a number of its own, because the text uses a name again in sibling regions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

_OP = re.compile(
    r'(?:(%[\w$.\-]+)(?::(\d+))?((?:, %[\w$.\-]+)*) = )?"?([a-z_]\w*(?:\.\w+)+)"?(.*)$'
)
_VALUE = re.compile(r"%[\w$.\-]+(?:#\d+)?")
_ASSIGNED = re.compile(r"(%[\w$.\-]+) = (%[\w$.\-]+(?:#\d+)?)")
_ARGUMENT = re.compile(r"(%[\w$.\-]+): ((?:[^,()<>{}]|<(?:[^<>]|<(?:[^<>]|<[^<>]*>)*>)*>)+)")
_LABEL = re.compile(r"(\^\w+)(?:\((.*)\))?:")
_BYTES = {"f64": 8, "f32": 4, "f16": 2, "bf16": 2, "index": 8}


class Type(NamedTuple):
    """A value's type.

    Attributes:
        shape: Of a tensor; empty for a scalar.
        element: MLIR's name of the element, such as ``"f16"`` or ``"i32"``; of what a pointer or a
            descriptor leads to.
        kind: ``"value"``, ``"pointer"`` (one address per element), ``"block"`` (a block pointer or a
            tensor descriptor: one address for the whole shape).
    """

    shape: tuple[int, ...]
    element: str
    kind: str = "value"

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for n in self.shape:
            size *= n
        return size

    @property
    def bytes(self) -> int:
        """Bytes of an element of the value itself; 8 for an address."""
        return 8 if self.kind != "value" else self.item_bytes

    @property
    def item_bytes(self) -> int:
        """Bytes of an element, behind a pointer where it is one."""
        if self.element in _BYTES:
            return _BYTES[self.element]
        digits = re.search(r"\d+", self.element)
        return max(1, int(digits[0]) // 8) if digits else 4

    @property
    def is_float(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self.kind == "value" and self.element[0] in "fb"


NO_TYPE = Type((), "none")


@dataclass(slots=True)
class Op:
    """One operation: its name, the numbers of its results and operands, its text, its regions."""

    name: str
    results: list[int]
    operands: list[int]
    text: str
    regions: list[list[Block]] = field(default_factory=list)
    attributes: str = ""


@dataclass(slots=True)
class Block:
    """Operations in order; ``arguments`` are the numbers of the block's own values."""

    arguments: list[int] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    label: str = ""


@dataclass(slots=True)
class Function:
    """A function of the module.

    Attributes:
        name: Its symbol.
        is_kernel: Whether it is what is launched.
        blocks: Its body; the first block's arguments are the function's.
        types: Type of each value of the module by its number.
    """

    name: str
    is_kernel: bool
    blocks: list[Block]
    types: list[Type]


def parse_module(text: str) -> dict[str, Function]:
    """The functions of a module by name. Lines that are not understood are operations without type."""
    parser = _Parser()
    for line in text.splitlines():
        parser.line(line.strip())
    return parser.functions


class _Parser:
    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self._types: list[Type] = []
        self._names: dict[str, int] = {}
        self._open: list[Op | None] = []
        self._blocks: list[list[Block]] = []

    def line(self, line: str) -> None:
        if not line or line.startswith(("#", "//", "module")):
            if line.startswith("module"):
                self._open.append(None)
            return
        if line[0] == "}":
            self._close(line)
        elif line[0] == "^":
            self._label(line)
        elif line.startswith("tt.func"):
            self._function(line)
        elif self._blocks:
            self._operation(line)

    def _new(self, name: str, kind: Type) -> int:
        self._names[name] = len(self._types)
        self._types.append(kind)
        return self._names[name]

    def _function(self, line: str) -> None:
        name = re.search(r"@\"?([^\s(\"]+)", line)
        start = line.index("(")
        block = Block()
        for argument, kind in _ARGUMENT.findall(line[start:]):
            block.arguments.append(self._new(argument, parse_type(kind.split(" {")[0].strip())))
        blocks = [block]
        found = Function(name[1] if name else "", " private " not in line, blocks, self._types)
        self.functions[found.name] = found
        if line.endswith("{"):
            self._open.append(None)
            self._blocks.append(blocks)

    def _label(self, line: str) -> None:
        match = _LABEL.match(line)
        block = Block(label=match[1] if match else line)
        for argument, kind in _ARGUMENT.findall(match[2] or "" if match else ""):
            block.arguments.append(self._new(argument, parse_type(kind.strip())))
        blocks = self._blocks[-1]
        if len(blocks) == 1 and not blocks[0].ops and not blocks[0].arguments:
            blocks[0] = block  # the first block of a region may be named
        else:
            blocks.append(block)

    def _close(self, line: str) -> None:
        op = self._open.pop() if self._open else None
        if op is None:
            if self._blocks:
                self._blocks.pop()
            return
        self._blocks.pop()
        if line.endswith("{"):
            self._enter(op)
            return
        rest = line.lstrip("})").strip()
        op.attributes += " " + rest
        if rest.startswith(":") and op.results:
            kinds = _result_types(op.name, f" {rest}", len(op.results))
            for result, kind in zip(op.results, kinds, strict=False):
                self._types[result] = kind

    def _enter(self, op: Op, arguments: list[int] | None = None) -> None:
        blocks = [Block(arguments or [])]
        op.regions.append(blocks)
        self._open.append(op)
        self._blocks.append(blocks)

    def _operation(self, line: str) -> None:
        match = _OP.match(line)
        if match is None:
            return
        result, count, name, rest = match[1], int(match[2] or 1), match[4], match[5]
        labels = [result, *_VALUE.findall(match[3])] if match[3] else []
        count = max(count, len(labels))
        opens = rest.endswith("{")
        arguments: list[int] | None = None
        pairs = _ASSIGNED.findall(rest) if name in ("scf.for", "scf.while") else []
        names = self._names
        if pairs:
            pairs = pairs[1:] if name == "scf.for" else pairs
            arguments = []
            start = rest.find("iter_args") if name == "scf.for" else 0
            head = rest if start < 0 else rest[:start]
            operands = _VALUE.findall(head)[1:4] if name == "scf.for" else []
            numbers = [names[o] for o in operands if o in names]
            carried = [names.get(source, -1) for _, source in pairs]
            numbers += carried
            if name == "scf.for":
                counter = rest.rstrip(" {").rpartition(" : ")[2]
                arguments.append(self._new(_VALUE.findall(head)[0], parse_type(counter)))
            for (target, _), source in zip(pairs, carried, strict=True):
                arguments.append(self._new(target, self._types[source] if source >= 0 else NO_TYPE))
        else:
            numbers = [names[o] for o in _VALUE.findall(rest) if o in names]
        op = Op(name, [], numbers, rest)
        if result:
            kinds = _result_types(name, rest, count)
            for i in range(count):
                label = labels[i] if labels else result if count == 1 else f"{result}#{i}"
                op.results.append(self._new(label, kinds[i] if i < len(kinds) else NO_TYPE))
        self._blocks[-1][-1].ops.append(op)
        if opens:
            self._enter(op, arguments)


def _result_types(name: str, rest: str, count: int) -> list[Type]:
    """The types of an operation's results, from the end of its line."""
    rest = rest.rstrip(" {(")
    if name in ("scf.for", "scf.if", "scf.while"):
        arrow = rest.rpartition(" -> ")[2]
        text = arrow.rpartition(" : ")[0].strip() if name == "scf.for" else arrow
        return [parse_type(t) for t in _split(text.strip())]
    text = rest.rpartition(" : ")[2] if " : " in rest else ""
    return _types_of(name, text, count)


@lru_cache(maxsize=8192)
def _types_of(name: str, text: str, count: int) -> list[Type]:
    if not text:
        return [Type((), "i1")] if name == "arith.constant" else [NO_TYPE] * count
    if " -> " in text:
        kinds = [parse_type(t) for t in _split(text.rpartition(" -> ")[2].strip())]
    elif " to " in text:
        kinds = [parse_type(text.rpartition(" to ")[2].strip())]
    else:
        all_kinds = [parse_type(t) for t in _split(text.strip())]
        kinds = [all_kinds[0] if name == "tt.addptr" else all_kinds[-1]]
        if name in ("arith.cmpi", "arith.cmpf"):
            kinds = [Type(kinds[0].shape, "i1")]
        elif name == "tt.load":
            kinds = [all_kinds[0]._replace(kind="value")]
        elif name == "tt.advance":
            kinds = [all_kinds[0]]
    return kinds * count if len(kinds) == 1 else kinds


def _split(text: str) -> list[str]:
    """The parts of a list of types."""
    text = text.strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        if letter in "<([":
            depth += 1
        elif letter in ")]" or (letter == ">" and text[i - 1] != "-"):
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    parts.append(text[start:].strip())
    return parts


@lru_cache(maxsize=4096)
def parse_type(text: str) -> Type:
    """The type that a text of MLIR means; an unknown one has the element ``"none"``."""
    text = text.strip()
    if match := re.match(r"(?:!tt\.tensordesc)?<(tensor<.*>|\d+x.*)>$", text):
        inner = match[1] if match[1].startswith("tensor<") else f"tensor<{match[1]}>"
        return parse_type(inner)._replace(kind="block")
    if match := re.match(r"(?:!tt\.ptr)?<(.*)>$", text):
        inner = parse_type(match[1].partition(", ")[0] if "tensor<" not in match[1] else match[1])
        return inner._replace(kind="block" if inner.shape else "pointer")
    if match := re.match(r"tensor<((?:\d+x)*)(.*)>$", text):
        shape = tuple(int(n) for n in match[1].split("x") if n)
        inner = parse_type(match[2].partition(", #")[0])
        return Type(shape, inner.element, inner.kind)
    if re.match(r"(?:f|bf|i|si|ui)\d+|f8E\w+|index$", text):
        return Type((), text.lower() if text.startswith("f8") else text)
    return NO_TYPE
