"""What is known of a value without running the kernel: numbers, strides, and how often a mask holds.

A value stands for a sample of programs (and of iterations of the loops around it) at once: an integer
is an array of shape (s,), NaN where it is not known, such as what was loaded from memory. A tensor of
integers or addresses is affine where it can be: ``base + sum_i stride_i index_i``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Number = Any  # a float, or an array of shape (s,)
NAN = float("nan")
MEMORY = -2  # root of an integer that was loaded, and that is assumed where a loop needs it


@dataclass(slots=True)
class Value:
    """An abstract value.

    Attributes:
        base: The number, or the first element of a tensor; of a mask the share of true elements;
            of an address the offset from its argument in elements.
        strides: By axis: 0 where the value does not vary, a number where it grows evenly (a fraction
            after a division), NaN where it varies otherwise.
        root: Number of the argument that an address is based on, else -1, or ``MEMORY``.
        alike: By axis, how many neighbours have one value after a division or comparison, where that is
            known.
    """

    base: Number = NAN
    strides: tuple[Number, ...] = ()
    root: int = -1
    alike: tuple[float, ...] = ()

    def varies(self) -> tuple[bool, ...]:
        """By axis, whether elements differ."""
        return tuple(not is_zero(s) for s in self.strides)

    @property
    def is_affine(self) -> bool:
        """Whether every stride is a number."""
        return not any(
            np.isnan(s).any() if isinstance(s, np.ndarray) else s != s for s in self.strides
        )


UNKNOWN = Value()


def is_zero(stride: Number) -> bool:
    return not isinstance(stride, np.ndarray) and stride == 0


def truncated_division(a: Number, b: Number) -> Number:
    """``a / b`` rounded towards zero, as integers are divided; NaN for a division by zero."""
    if not isinstance(a, np.ndarray) and not isinstance(b, np.ndarray):
        return NAN if b == 0 or a != a or b != b else float(np.trunc(a / b))
    return np.trunc(np.divide(a, np.where(b == 0, NAN, b)))


def _remainder(a: Number, b: Number) -> Number:
    return a - truncated_division(a, b) * b


def _padded(a: Value, b: Value) -> tuple[tuple[Number, ...], tuple[Number, ...]]:
    n = max(len(a.strides), len(b.strides))
    return a.strides or (0.0,) * n, b.strides or (0.0,) * n


def is_uniform(value: Value) -> bool:
    return all(is_zero(s) for s in value.strides)


def _varying(left: Sequence[Number], right: Sequence[Number]) -> tuple[Number, ...]:
    """Strides of what varies, in a way that is not known, where one of two values does."""
    sides = zip(left, right, strict=False)
    return tuple(0.0 if is_zero(x) and is_zero(y) else NAN for x, y in sides)


def both_alike(a: Value, b: Value) -> tuple[float, ...]:
    """Neighbours with one value in what is computed of two values."""
    if not a.alike and not b.alike:
        return ()
    sides = [(v.alike or (1.0,) * len(v.strides), v.varies()) for v in (a, b) if v.strides]
    return tuple(
        min((alike[i] for alike, varies in sides if varies[i]), default=1.0)
        for i in range(min(len(alike) for alike, _ in sides))
    )


def add(a: Value, b: Value) -> Value:
    left, right = _padded(a, b)
    strides = tuple(x + y for x, y in zip(left, right, strict=False))
    return Value(a.base + b.base, strides, max(a.root, b.root))


def subtract(a: Value, b: Value) -> Value:
    left, right = _padded(a, b)
    strides = tuple(x - y if not is_zero(y) else x for x, y in zip(left, right, strict=False))
    return Value(a.base - b.base, strides, a.root)


def multiply(a: Value, b: Value) -> Value:
    left, right = _padded(a, b)
    if is_uniform(b):
        strides = tuple(0.0 if is_zero(x) else x * b.base for x in left)
    elif is_uniform(a):
        strides = tuple(0.0 if is_zero(y) else y * a.base for y in right)
    else:
        strides = _varying(left, right)
    return Value(a.base * b.base, strides)


def divide(a: Value, b: Value) -> Value:
    left, right = _padded(a, b)
    alike: tuple[float, ...] = ()
    if is_uniform(b):
        divisor = NAN if not isinstance(b.base, np.ndarray) and b.base == 0 else b.base
        strides = tuple(0.0 if is_zero(x) else x / divisor for x in left)
        if not any(isinstance(s, np.ndarray) for s in strides):
            alike = tuple(1 / s if 0 < s < 1 else 1.0 for s in strides)
    else:
        strides = _varying(left, right)
    return Value(truncated_division(a.base, b.base), strides, alike=alike)


def remainder(a: Value, b: Value) -> Value:
    left, right = _padded(a, b)
    return Value(_remainder(a.base, b.base), left if is_uniform(b) else _varying(left, right))


def _pointwise(function: Callable[[Number, Number], Number]) -> Callable[[Value, Value], Value]:
    """For what keeps the shape of whichever operand varies, such as a minimum."""

    def of(a: Value, b: Value) -> Value:
        left, right = _padded(a, b)
        strides = tuple(
            x if is_zero(y) else y if is_zero(x) else NAN for x, y in zip(left, right, strict=False)
        )
        return Value(function(a.base, b.base), strides)

    return of


def _bitwise(name: str) -> Callable[[Number, Number], Number]:
    def of(a: Number, b: Number) -> Number:
        x, y = np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
        known = np.isfinite(x) & np.isfinite(y) & (np.abs(x) < 2**62) & (np.abs(y) < 2**62)
        whole = getattr(np, name)(
            np.where(known, x, 0).astype(np.int64), np.where(known, y, 0).astype(np.int64)
        )
        found = np.where(known, whole.astype(float), NAN)
        return float(found) if found.ndim == 0 else found

    return of


def _shifted(a: Value, b: Value, sign: int) -> Value:
    with np.errstate(over="ignore"):
        factor = 2.0 ** (sign * np.clip(b.base, 0, 62))
    result = multiply(a, replace(b, base=factor))
    return Value(np.floor(result.base), result.strides) if sign < 0 else result


arithmetic: dict[str, Callable[[Value, Value], Value]] = {
    "arith.addi": add,
    "arith.subi": subtract,
    "arith.muli": multiply,
    "arith.divsi": divide,
    "arith.divui": divide,
    "arith.floordivsi": divide,
    "arith.ceildivsi": lambda a, b: divide(subtract(add(a, b), Value(1.0)), b),
    "arith.ceildivui": lambda a, b: divide(subtract(add(a, b), Value(1.0)), b),
    "arith.remsi": remainder,
    "arith.remui": remainder,
    "arith.minsi": _pointwise(np.minimum),
    "arith.minui": _pointwise(np.minimum),
    "arith.maxsi": _pointwise(np.maximum),
    "arith.maxui": _pointwise(np.maximum),
    "arith.andi": _pointwise(_bitwise("bitwise_and")),
    "arith.ori": _pointwise(_bitwise("bitwise_or")),
    "arith.xori": _pointwise(_bitwise("bitwise_xor")),
    "arith.shli": lambda a, b: _shifted(a, b, 1),
    "arith.shrsi": lambda a, b: _shifted(a, b, -1),
    "arith.shrui": lambda a, b: _shifted(a, b, -1),
}
"""What integers do, by operation."""


def compare(predicate: str, a: Value, b: Value, shape: tuple[int, ...]) -> Value:
    """The share of elements for which ``a <predicate> b`` holds; exact along one axis.

    Along several axes the difference is taken to be spread evenly between its ends, which is right on
    average for a diagonal. Not known: NaN.
    """
    difference = subtract(a, b)
    varies = tuple(0.0 if is_zero(s) else NAN for s in difference.strides)
    first = difference.base
    if not shape or not any(v != 0 for v in varies):
        return Value(_holds(predicate, first), varies)
    if predicate in ("eq", "ne"):
        size = 1
        for n, v in zip(shape, varies, strict=False):
            size *= n if v != 0 else 1
        return Value(1.0 / size if predicate == "eq" else 1.0 - 1.0 / size, varies)
    low = high = first
    count = 1.0
    for n, stride in zip(shape, difference.strides, strict=False):
        reach = stride * (n - 1)
        low, high = low + np.minimum(reach, 0), high + np.maximum(reach, 0)
        count *= n if not is_zero(stride) else 1
    if predicate[-2:] in ("gt", "ge"):
        low, high = -high, -low
    edge = 0.0 if predicate.endswith("e") else -1.0  # the difference at most 0, or at most -1
    step = (high - low) / max(count - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.floor((edge - low) / np.where(step == 0, 1.0, step) + 1e-9) + 1
    share = np.where(step == 0, (low <= edge) * count, np.clip(below, 0, count)) / count
    share = np.where(np.isnan(low), NAN, share)
    return Value(float(share) if share.ndim == 0 else share, varies)


def _holds(predicate: str, difference: Number) -> Number:
    kind = predicate.lstrip("suo") if predicate not in ("ueq", "une") else predicate[1:]
    tests: dict[str, Callable[[Any], Any]] = {
        "lt": lambda d: d < 0, "le": lambda d: d <= 0, "gt": lambda d: d > 0,
        "ge": lambda d: d >= 0, "eq": lambda d: d == 0, "ne": lambda d: d != 0,
    }  # fmt: skip
    if kind not in tests:
        return NAN
    true = np.where(np.isnan(difference), NAN, np.asarray(tests[kind](difference), dtype=float))
    return float(true) if true.ndim == 0 else true


def logic(name: str, a: Value, b: Value) -> Value:
    """And, or, exclusive or of conditions that are taken to be independent where axes differ."""
    rank = max(len(a.strides), len(b.strides))
    left, right = a.strides or (0.0,) * rank, b.strides or (0.0,) * rank
    same = any(not is_zero(x) and not is_zero(y) for x, y in zip(left, right, strict=False))
    if name == "arith.andi":
        known = np.where(np.isnan(a.base), b.base, np.where(np.isnan(b.base), a.base, 0.0))
        both = np.minimum(a.base, b.base) if same else a.base * b.base
        base = np.where(np.isnan(both), known, both)
    elif name == "arith.ori":
        base = np.maximum(a.base, b.base)
    elif name == "arith.xori":
        base = np.asarray(np.abs(a.base - b.base))
    else:
        base = np.asarray(NAN)
    return Value(float(base) if np.ndim(base) == 0 else base, _varying(left, right))


def distinct(value: Value, shape: Sequence[int]) -> int:
    """Elements that may differ."""
    size = 1
    for axis, n in enumerate(shape):
        stride = value.strides[axis] if axis < len(value.strides) else NAN
        step = float(np.abs(stride).max()) if isinstance(stride, np.ndarray) else abs(stride)
        if value.alike and axis < len(value.alike) and value.alike[axis] > 1 and step > 0:
            size *= max(1, math.ceil(n / value.alike[axis]))
        elif step >= 1 or step != step:
            size *= n
        elif step > 0:  # after a division several neighbours are equal
            size *= max(1, math.ceil(n * step))
    return size


def contiguous(address: Value, shape: Sequence[int]) -> tuple[int, int]:
    """The axis along which addresses are next to each other, and for how many elements."""
    for axis, (stride, n) in enumerate(zip(address.strides, shape, strict=False)):
        if n > 1 and np.all(np.asarray(stride) == 1):
            return axis, n
    return -1, 1


def reshaped(
    before: Sequence[int], strides: Sequence[Number], after: Sequence[int]
) -> tuple[Number, ...]:
    """Strides after a reshape that only adds, drops or splits axes; NaN otherwise."""
    if not before or len(strides) != len(before):
        return (NAN,) * len(after)
    found: list[Number] = []
    axes = [(n, s) for n, s in zip(before, strides, strict=True) if n > 1]
    i, inner = len(axes) - 1, 1
    for n in reversed(after):
        if n == 1:
            found.append(0.0)
            continue
        if i < 0:
            return (NAN,) * len(after)
        size, stride = axes[i]
        if size % (inner * n):
            return (NAN,) * len(after)
        found.append(stride * inner if not is_zero(stride) else 0.0)
        inner *= n
        if inner == size:
            i, inner = i - 1, 1
    return tuple(reversed(found))
