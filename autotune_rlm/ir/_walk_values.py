"""Operations that make values: numbers, affine tensors, and what is computed element by element."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ._parse import Op
from ._state import State
from ._values import (
    MEMORY,
    NAN,
    Number,
    Value,
    add,
    arithmetic,
    both_alike,
    compare,
    is_uniform,
    is_zero,
    logic,
    reshaped,
    subtract,
)

_SPECIAL = re.compile(
    r"math\.(exp2?|expm1|log(2|1p|10)?|a?(sin|cos|tan)|(sin|cos|tan)h|atan2|erf|powf|cbrt|r?sqrt)"
    r"|arith\.(div|rem)f|tt\.(precise_(divf|sqrt)|extern_elementwise)"
)
_CONVERT = re.compile(r"arith\.(extf|truncf|[su]itofp|fpto[su]i)|tt\.fp_to_fp")
_SAME = re.compile(r"arith\.(ext[su]i|trunci|index_cast)|(tt|arith)\.bitcast|" + _CONVERT.pattern)


class ValueWalk(State):
    """Understands operations without effects."""

    handlers: ClassVar[Mapping[str, Callable[[Any, Op], None]]] = {}

    def _ops(self, ops: Sequence[Op]) -> None:
        for op in ops:
            self._op(op)

    def _op(self, op: Op) -> None:
        name = op.name
        handler = self.handlers.get(name)
        if handler is not None:
            handler(self, op)
            return
        if name in arithmetic and len(op.operands) == 2:
            self._arithmetic(op)
        elif op.operands and _SAME.fullmatch(name):
            source = self._values[op.operands[0]]
            if self._types[op.results[0]].is_float or self._types[op.operands[0]].is_float:
                source = Value(source.base, tuple(0.0 if s == 0 else NAN for s in _plain(source)))
            self._set(op, source)
            if _CONVERT.fullmatch(name):
                self._count("conversions", op)
        elif op.results and op.operands:
            self._elementwise(op)

    def _constant(self, op: Op) -> None:
        kind = self._types[op.results[0]]
        text = op.text.strip()
        match = re.match(r"(?:dense<)?(-?[\w.+\-]+|true|false)>?", text)
        self._set(op, Value(_number(match[1]) if match else NAN, (0.0,) * len(kind.shape)))

    def _program(self, op: Op) -> None:
        axis = re.search(r"\b([xyz])\b", op.text)
        place = "xyz".index(axis[1] if axis else "x")
        is_id = op.name == "tt.get_program_id"
        self._set(op, Value(self._programs[place] if is_id else float(self.grid[place])))

    def _range(self, op: Op) -> None:
        start = re.search(r"start = (-?\d+)", op.text)
        self._set(op, Value(float(start[1]) if start else 0.0, (1.0,)))

    def _splat(self, op: Op) -> None:
        source = self._value(op.operands[0])
        shape = self._types[op.results[0]].shape
        self._set(op, Value(source.base, (0.0,) * len(shape), source.root))

    def _expand(self, op: Op) -> None:
        source = self._value(op.operands[0])
        axis = int(attribute(op, "axis", 0))
        strides, alike = list(source.strides), list(source.alike)
        strides.insert(axis, 0.0)
        if alike:
            alike.insert(axis, 1.0)
        self._set(op, Value(source.base, tuple(strides), source.root, tuple(alike)))

    def _broadcast(self, op: Op) -> None:
        source = self._value(op.operands[0])
        before = self._types[op.operands[0]].shape
        after = self._types[op.results[0]].shape
        strides = tuple(
            0.0 if n == 1 and m > 1 else s
            for n, m, s in zip(before, after, source.strides, strict=False)
        )
        self._set(op, Value(source.base, strides, source.root, source.alike))

    def _trans(self, op: Op) -> None:
        source = self._value(op.operands[0])
        order = re.search(r"order = array<i32: ([\d, ]+)>", op.text)
        axes = [int(i) for i in order[1].split(",")] if order else range(len(source.strides))[::-1]
        if len(source.strides) == len(list(axes)):
            source = Value(source.base, tuple(source.strides[i] for i in axes), source.root)
        self._set(op, source)
        self._count("moved", op)

    def _reshape(self, op: Op) -> None:
        source = self._value(op.operands[0])
        before = self._types[op.operands[0]].shape
        after = self._types[op.results[0]].shape
        strides = reshaped(before, source.strides, after)
        self._set(op, Value(source.base, strides, source.root))
        if [n for n in before if n > 1] != [n for n in after if n > 1]:
            self._count("moved", op)

    def _join(self, op: Op) -> None:
        first = self._value(op.operands[0])
        shape = self._types[op.results[0]].shape
        strides = (*first.strides, NAN)[: len(shape)]
        self._set(op, Value(first.base, strides + (NAN,) * (len(shape) - len(strides)), first.root))
        self._count("moved", op)

    def _split(self, op: Op) -> None:
        source = self._value(op.operands[0])
        for result in op.results:
            rank = len(self._types[result].shape)
            self._values[result] = Value(source.base, source.strides[:rank], source.root)
        self._count("moved", op)

    def _arithmetic(self, op: Op) -> None:
        a, b = self._value(op.operands[0]), self._value(op.operands[1])
        kind = self._types[op.results[0]]
        if kind.element == "i1":
            found = logic(op.name, a, b)
            found.alike = both_alike(a, b)
            self._set(op, found)
            return
        found = arithmetic[op.name](a, b)
        found.root = MEMORY if MEMORY in (a.root, b.root) else -1
        found.alike = found.alike or both_alike(a, b)
        self._set(op, found)
        if kind.shape:
            self._count("int_ops", op)

    def _addptr(self, op: Op) -> None:
        a, b = self._value(op.operands[0]), self._value(op.operands[1])
        found = add(a, b)
        found.root, found.alike = a.root, both_alike(a, b)
        if b.root == MEMORY or op.operands[0] in self._places:
            place = self._places.get(op.operands[0], a.base)
            self._places[op.results[0]] = place + b.base
            found.base = NAN
        self._set(op, found)
        if self._types[op.results[0]].shape:
            self._count("int_ops", op)

    def _cmpi(self, op: Op) -> None:
        predicate = op.text.split(",")[0].strip()
        a, b = self._value(op.operands[0]), self._value(op.operands[1])
        shape = self._types[op.results[0]].shape
        found = compare(predicate, a, b, shape)
        if shape:
            found.alike = self._alike(subtract(a, b), shape)
        self._set(op, found)
        if shape:
            self._count("int_ops", op)

    def _alike(self, difference: Value, shape: Sequence[int]) -> tuple[float, ...]:
        """By axis, how many neighbours surely compare alike, at most 16."""
        known = 0
        found = []
        for n, stride in zip(shape, difference.strides, strict=False):
            if is_zero(stride) or n == 1:
                found.append(16.0)
            else:
                known = known or self._divides([difference.base])
                found.append(float(known) if np.all(np.abs(stride) == 1) else 1.0)
        return tuple(found)

    def _select(self, op: Op) -> None:
        condition, a, b = (self._value(o) for o in op.operands[:3])
        kind = self._types[op.results[0]]
        share = condition.base
        base = np.where(np.isnan(share), NAN, np.where(np.asarray(share) > 0.5, a.base, b.base))
        longer = a.strides if len(a.strides) >= len(b.strides) else b.strides
        mask = condition.strides or (0.0,) * len(longer)
        sides = zip(a.strides or longer, b.strides or longer, mask, strict=False)
        strides = tuple(0.0 if all(map(is_zero, side)) else NAN for side in sides)
        if not kind.is_float and a.is_affine and not is_uniform(a):
            strides = a.strides  # such as where(offs < n, offs, 0)
        self._set(op, Value(float(base) if base.ndim == 0 else base, strides, max(a.root, b.root)))
        if kind.shape:
            self._count("float_ops" if kind.is_float else "int_ops", op)

    def _elementwise(self, op: Op) -> None:
        """An operation without a rule of its own: its results vary where its operands do."""
        for result in op.results:
            kind = self._types[result]
            rank = len(kind.shape)
            varies = [False] * rank
            for operand in op.operands:
                strides = self._value(operand).strides
                if len(strides) == rank:
                    varies = [v or not is_zero(s) for v, s in zip(varies, strides, strict=True)]
                elif rank and len(strides):
                    varies = [True] * rank
            self._values[result] = Value(NAN, tuple(NAN if v else 0.0 for v in varies))
        kind = self._types[op.results[0]]
        if not kind.shape:
            self._values[op.results[0]] = Value(self._scalar(op))
        elif _SPECIAL.fullmatch(op.name):
            self._count("special_ops", op)
        elif kind.is_float or op.name in ("arith.cmpf", "tt.elementwise_inline_asm"):
            self._count("float_ops", op)
        else:
            self._count("int_ops", op)

    def _scalar(self, op: Op) -> Number:
        """What a scalar operation on floating-point numbers gives, where it is easily known."""
        function = _SCALARS.get(op.name)
        if function is None:
            return NAN
        try:
            return function(*(self._value(o).base for o in op.operands))
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            return NAN


_SCALARS: dict[str, Callable[..., Any]] = {
    "arith.addf": lambda a, b: a + b,
    "arith.subf": lambda a, b: a - b,
    "arith.mulf": lambda a, b: a * b,
    "arith.divf": lambda a, b: a / b,
    "arith.maxnumf": np.maximum,
    "arith.minnumf": np.minimum,
    "math.ceil": np.ceil,
    "math.floor": np.floor,
    "math.sqrt": np.sqrt,
    "math.log2": np.log2,
    "math.exp2": np.exp2,
}


def _number(text: str) -> float:
    if text in ("true", "false"):
        return float(text == "true")
    try:
        return float(int(text, 16)) if text.startswith("0x") else float(text)
    except ValueError:
        return NAN


def _plain(value: Value) -> tuple[float, ...]:
    return tuple(0.0 if is_zero(s) else NAN for s in value.strides)


def attribute(op: Op, name: str, default: int) -> int:
    match = re.search(rf"\b{name} = (-?\d+)", op.text)
    return int(match[1]) if match else default
