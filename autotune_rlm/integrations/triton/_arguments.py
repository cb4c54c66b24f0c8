"""What the arguments of a kernel that nobody describes are like, read from its program text.

A pointer is what ``tl.load``, ``tl.store`` and their like are given, directly or through variables and
device functions. A pointer whose loaded values become addresses holds integers. The rest are numbers,
flags, words and dtypes, by how they are used and named, with sizes as they are common in practice.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotune_rlm.measure.triton.layers import unwrap

from ._source import parse
from .task import describe

_ADDRESSED = re.compile(r"load|store|atomic_\w+|make_block_ptr|make_tensor_descriptor|prefetch")
_SAME_POINTER = ("advance", "multiple_of", "max_contiguous", "to", "cast")
_SIZE, _COUNT, _WIDTH, _BLOCK, _STRIDE = 4096, 16, 128, 64, 4096
_FLAG = re.compile(r"(?i)(use|is|has|store|save|do|with|need|enable|even|compute|output|return)_.*")
_FLOAT = re.compile(
    r"(?i).*(scale|scaling|eps|alpha|beta|gamma|^lr|decay|prob|softcap|temperature|limit)"
)
_BLOCK_NAME = re.compile(r".*(BLOCK|TILE|GROUP|CHUNK|SPLIT|NUM_|_LEN).*|B[A-Z]\d?|N[A-Z]")
_COUNT_NAME = re.compile(r"B|H[A-Z]?|G|HQ|(?i:.*(batch|head|group|expert|num_|n_h|top_?k).*)")
_VARLEN = re.compile(r"(?i).*(cu_?seq|chunk_indices|split_indices|varlen).*")


@dataclass
class Uses:
    """How a kernel uses its arguments, by name."""

    pointers: set[str] = field(default_factory=set)  # given to loads and stores
    integers: set[str] = field(default_factory=set)  # pointers to integers
    words: dict[str, str] = field(default_factory=dict)  # what an argument is compared with
    flags: set[str] = field(default_factory=set)  # tested for truth, and nothing else
    dtypes: set[str] = field(default_factory=set)  # used as an element type
    descriptors: set[str] = field(default_factory=set)  # loaded from and stored to by methods


def default_arguments(kernel: Any, names: Sequence[str], dtype: str = "fp16") -> dict[str, Any]:
    """A plausible value of each argument in ``names``, as in ``Task.problem``.

    ``dtype`` is that of the tensors that do not hold integers. ValueError where one is a tensor
    descriptor, whose blocks the caller decides.
    """
    jit = unwrap(kernel)
    uses = uses_of(jit)
    if described := sorted(uses.descriptors & set(names)):
        raise ValueError(
            f"{jit.fn.__name__} takes tensor descriptors ({', '.join(described)}), whose blocks only "
            "the caller knows"
        )
    parameters = inspect.signature(jit.fn).parameters
    strides = last_strides(names)
    found: dict[str, Any] = {}
    for name in names:
        default = parameters[name].default
        constant = "constexpr" in str(parameters[name].annotation)
        if name in uses.pointers and not constant:
            kind = "i32" if name in uses.integers else dtype
            found[name] = None if _VARLEN.fullmatch(name) else {"dtype": kind, "align": 16}
        elif default is not inspect.Parameter.empty:
            found[name] = describe(default)
        elif name.lower().startswith("stride"):
            found[name] = 1 if name in strides else _STRIDE
        elif name in uses.words:
            found[name] = uses.words[name]
        elif name in uses.dtypes:
            found[name] = dtype
        elif name in uses.flags or _FLAG.fullmatch(name):
            found[name] = False
        else:
            found[name] = _number(name, constant)
    return found


def last_strides(names: Sequence[str]) -> set[str]:
    """The last of ``stride_am, stride_ak`` and its like: by convention that of adjacent elements."""
    by_tensor: dict[str, list[str]] = {}
    for name in names:
        if found := re.fullmatch(r"strides?_?([a-z])\w+", name.lower()):
            by_tensor.setdefault(found[1], []).append(name)
    return {group[-1] for group in by_tensor.values() if len(group) > 1}


def uses_of(jit: Any) -> Uses:
    """How a ``@triton.jit`` function uses its arguments; nothing where there is no source."""
    return _uses(jit, ())


def _uses(jit: Any, above: tuple[Any, ...]) -> Uses:
    tree = parse(jit)
    if tree is None or jit.fn in above or len(above) > 4:
        return Uses()
    reader = _Reader(jit, (*above, jit.fn))
    before = -1
    while reader.knows != before:  # loops carry pointers from one round to the next
        before = reader.knows
        reader.visit(tree)
    uses = reader.uses
    uses.integers &= uses.pointers
    uses.flags = reader.tested - reader.computed
    return uses


class _Reader(ast.NodeVisitor):
    def __init__(self, jit: Any, above: tuple[Any, ...]) -> None:
        self._globals = jit.fn.__globals__
        self._above = above
        self._arguments = list(jit.arg_names)
        self._bases: dict[str, list[str]] = {name: [name] for name in self._arguments}
        self._loaded: dict[str, set[str]] = defaultdict(set)
        self._direct: dict[str, set[str]] = defaultdict(set)
        self.uses = Uses()
        self.tested: set[str] = set()
        self.computed: set[str] = set()

    @property
    def knows(self) -> int:
        """How much is known; does not fall."""
        found = (
            self.uses.pointers,
            self.uses.integers,
            *self._bases.values(),
            *self._loaded.values(),
        )
        return sum(map(len, found))

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._bind(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._bind(node.target, node.value)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._loaded[node.target.id] |= self._origins(node.value)
        self.generic_visit(node)

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        self.tested |= {name.id for name in _truths(node.test)} & set(self._arguments)
        self.generic_visit(node)

    visit_IfExp = visit_If

    def visit_Compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        words = [s.value for s in sides if isinstance(s, ast.Constant) and isinstance(s.value, str)]
        for side in sides:
            if isinstance(side, ast.Name) and words:
                self.uses.words.setdefault(side.id, words[0])
            elif isinstance(side, ast.Name) and not isinstance(node.ops[0], (ast.Is, ast.IsNot)):
                self.computed.add(side.id)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.computed |= {s.id for s in (node.left, node.right) if isinstance(s, ast.Name)}
        if isinstance(node.op, (ast.BitAnd, ast.BitOr, ast.RShift, ast.LShift)):
            self.uses.integers |= {o for s in (node.left, node.right) for o in self._read_from(s)}
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = _called(node)
        given = [*node.args, *(k.value for k in node.keywords)]
        if name in ("to", "cast") and node.args:
            self._note_dtype(node.args[-1])
        for keyword in node.keywords:
            if keyword.arg == "dtype":
                self._note_dtype(keyword.value)
        owner = getattr(node.func, "value", None)
        if name in ("load", "store") and isinstance(owner, ast.Name):
            self.uses.descriptors |= {owner.id} & set(self._arguments)
        if name == "range":
            self.uses.integers |= self._origins(*given)
        elif _ADDRESSED.fullmatch(name) and given:
            bases = self._base(given[0])[:1]
            self.uses.pointers |= set(bases)
            rest = given[1:] if name.startswith("make_") else []
            self.uses.integers |= self._origins(given[0], *rest) - set(bases)
        else:
            self._helper(node)
        self.generic_visit(node)

    def _helper(self, node: ast.Call) -> None:
        for uses, name, value in self._passed(node):
            if name in uses.pointers:
                bases = self._base(value)[:1]
                self.uses.pointers |= set(bases)
                self.uses.integers |= set(bases) if name in uses.integers else set()
            if isinstance(value, ast.Name):
                self.tested |= {value.id} & set(self._arguments) if name in uses.flags else set()
                if name in uses.words:
                    self.uses.words.setdefault(value.id, uses.words[name])
                if name in uses.dtypes:
                    self._note_dtype(value)

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple):
            values = value.elts if isinstance(value, ast.Tuple) else [value] * len(target.elts)
            for part, its in zip(target.elts, values, strict=False):
                self._bind(part, its)
        elif isinstance(target, ast.Name):
            bases = self._bases.setdefault(target.id, [])
            bases += [b for b in self._base(value) if b not in bases]
            self._loaded[target.id] |= self._origins(value)
            self._direct[target.id] |= self._read_from(value)

    def _base(self, node: ast.expr) -> list[str]:
        """The arguments that ``node`` may be an address from, the likeliest first."""
        if isinstance(node, ast.Name):
            return [b for b in self._bases.get(node.id, ()) if b in self._arguments]
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
            return [*self._base(node.left), *self._base(node.right)]
        if isinstance(node, ast.IfExp):
            return [*self._base(node.body), *self._base(node.orelse)]
        if isinstance(node, ast.Subscript):
            return self._base(node.value)
        if isinstance(node, ast.Call):
            name = _called(node)
            if name in _SAME_POINTER and isinstance(node.func, ast.Attribute):
                of_tl = isinstance(node.func.value, ast.Name) and node.func.value.id == "tl"
                inner = node.args[0] if of_tl and node.args else node.func.value
                return self._base(inner)
            if name.startswith("make_") and (node.args or node.keywords):
                return self._base(node.args[0] if node.args else node.keywords[0].value)
        return []

    def _origins(self, *nodes: ast.expr) -> set[str]:
        """The arguments that values in ``nodes`` were loaded from."""
        found: set[str] = set()
        for child in (part for node in nodes for part in _values(node)):
            if isinstance(child, ast.Name):
                found |= self._loaded.get(child.id, set())
            elif isinstance(child, ast.Call):
                found |= self._read_from(child)
                for uses, name, value in self._passed(child):  # it may return what it loads
                    found |= set(self._base(value)[:1]) if name in uses.pointers else set()
        return found

    def _passed(self, node: ast.Call) -> Iterator[tuple[Uses, str, ast.expr]]:
        """What a call of a device function passes: its uses, its argument, the value."""
        function: Any = (
            self._globals.get(_called(node)) if isinstance(node.func, ast.Name) else None
        )
        if not hasattr(function, "arg_names"):
            return
        try:
            uses = _uses(unwrap(function), self._above)
        except TypeError:
            return
        passed = dict(zip(function.arg_names, node.args, strict=False))
        passed |= {k.arg: k.value for k in node.keywords if k.arg}
        for name, value in passed.items():
            yield uses, name, value

    def _read_from(self, node: ast.expr) -> set[str]:
        """The argument that ``node`` is loaded from, with nothing computed since."""
        if isinstance(node, ast.Name):
            return self._direct.get(node.id, set())
        if isinstance(node, ast.Call) and _called(node) == "to":
            return self._read_from(getattr(node.func, "value", node))
        if isinstance(node, ast.Call) and _called(node) == "load" and node.args:
            return set(self._base(node.args[0])[:1])
        return set()

    def _note_dtype(self, node: ast.expr) -> None:
        if isinstance(node, ast.Name) and node.id in self._arguments:
            self.uses.dtypes.add(node.id)


def _truths(node: ast.expr) -> Iterator[ast.Name]:
    if isinstance(node, ast.Name):
        yield node
    elif isinstance(node, ast.UnaryOp):
        yield from _truths(node.operand)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _truths(value)


def _values(node: ast.AST) -> Iterator[ast.expr]:
    """The parts that the value of ``node`` is made of; a comparison tells nothing of its sides."""
    if isinstance(node, (ast.Name, ast.Call)):
        yield node
    if not isinstance(node, ast.Compare):
        for child in ast.iter_child_nodes(node):
            yield from _values(child)


def _called(node: ast.Call) -> str:
    function = node.func
    return str(getattr(function, "attr", None) or getattr(function, "id", ""))


def _number(name: str, constant: bool) -> int | float:
    if _FLOAT.fullmatch(name) and not constant:
        return 0.5
    if constant and _BLOCK_NAME.fullmatch(name):
        return _BLOCK
    if _COUNT_NAME.fullmatch(name):
        return _COUNT
    if constant and re.fullmatch(r"(?i).*(dim|[dkv])(_.*|\d)?", name):
        return _WIDTH
    return _SIZE
