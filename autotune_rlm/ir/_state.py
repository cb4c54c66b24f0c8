"""What a walk through a function knows at a point of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._live import Uses
from ._offsets import offsets
from ._parse import Function, Op
from ._samples import SAMPLES, samples, stands_for
from ._types import Access, Dot, Reduction
from ._values import NAN, UNKNOWN, Value, distinct


class State:
    """Values, weights and counts of a walk.

    Args:
        function: The kernel.
        functions: All functions of its module, for calls that were not inlined.
        arguments: Names of the function's arguments in order.
        scalars: Numbers by argument.
        shapes: Shapes of tensors by argument, where known.
        grid: Programs along the three axes.
        guessed: Loops, by ``id`` of the operation, whose bounds need integers from memory; where there
            are some, each loaded integer is taken to be ``_LOADED``.

    Attributes:
        written: By sample, how much of its stores a program does; filled by ``facts``.
    """

    def __init__(
        self,
        function: Function,
        functions: Mapping[str, Function],
        *,
        arguments: Sequence[str],
        scalars: Mapping[str, float],
        shapes: Mapping[str, tuple[int, ...]],
        grid: tuple[int, int, int],
        guessed: frozenset[int] = frozenset(),
    ) -> None:
        self._given: dict[str, Any] = {
            **{"function": function, "functions": functions, "arguments": arguments},
            **{"scalars": scalars, "shapes": shapes, "grid": grid},
        }
        self._function, self._functions = function, functions
        self._arguments, self._shapes = list(arguments), shapes
        self._has_odd_scalars = any(n != 1 and n % 16 for n in scalars.values() if n == n // 1)
        self.grid = grid
        self._types = function.types
        self._values: list[Value] = [UNKNOWN] * len(self._types)
        self._uses = Uses(function)
        self._programs, self._random = samples(grid)
        self._stands_for = stands_for(grid)
        self._weight: Any = self._stands_for
        self._timed: tuple[Any, float] = (None, 0.0)
        self._loop = -1
        self._counting = True
        self._counts: dict[str, float] = defaultdict(float)
        self._work: Any = np.zeros(SAMPLES)
        self._dots: list[Dot] = []
        self._accesses: list[Access] = []
        self._reductions: list[Reduction] = []
        self._loops: list[dict[str, Any]] = []
        self._loop_ids: dict[int, int] = {}
        self._spans: dict[tuple[str, str], list[float]] = {}
        self.assumed: list[str] = []
        self._depth = 0
        self._guessed = guessed
        self._unbounded: set[int] = set()
        self._inner: dict[int, Any] = {}  # iterations of each loop, when it was last met
        self._evened: dict[int, Any] = {}  # what the next run of a loop stands for, over itself
        self._places: dict[int, Any] = {}  # indices from memory, by number of the address
        self._offsets = offsets(function, self._uses.defined) if guessed else {}
        self._worked: Any = np.zeros(SAMPLES, dtype=bool)
        self.written: Any = np.zeros(SAMPLES)
        for number, name in zip(function.blocks[0].arguments, self._arguments, strict=False):
            kind = self._types[number]
            root = number if kind.kind != "value" else -1
            base = scalars.get(name, 0.0 if root >= 0 else NAN)
            strides = (0.0,) * len(kind.shape)
            if kind.kind == "block":
                rank = range(len(kind.shape))
                strides = tuple(scalars.get(f"{name}.stride.{i}", NAN) for i in rank)
            self._values[number] = Value(base, strides, root)
        self._names = dict(zip(function.blocks[0].arguments, self._arguments, strict=False))

    def set_programs(self, axis: int, ids: Any) -> None:
        """Look at these programs along an axis, shape (``SAMPLES``,), in place of a sample."""
        self._programs[axis] = np.asarray(ids, dtype=float)

    def _set(self, op: Op, value: Value) -> None:
        self._values[op.results[0]] = value

    def _value(self, number: int) -> Value:
        return self._values[number] if number >= 0 else UNKNOWN

    def _times(self) -> float:
        """Executions per program of the operations that the walk is at."""
        if self._weight is not self._timed[0]:
            self._timed = (self._weight, float(self._weight.mean()))
        return self._timed[1]

    def _share(self, number: int) -> Any:
        """How often a condition holds, by sample; a half where it is not known.

        That an unknown number equals another one, such as a label that is to be ignored, is rare.
        """
        base = self._value(number).base
        test = self._uses.defined.get(number)
        kind = test.text.split(",")[0].strip() if test and test.name == "arith.cmpi" else ""
        unknown = {"eq": 0.0, "ne": 1.0}.get(kind, 0.5)
        return np.where(np.isnan(base), unknown, np.clip(base, 0.0, 1.0))

    def _divides(self, numbers: Sequence[Any]) -> int:
        """The power of two, up to 16, that the compiler knows to divide numbers.

        Of an argument it knows whether 16 divides it, of a constant everything.
        """
        flat = np.concatenate([np.ravel(np.asarray(n, dtype=float)) for n in numbers])
        whole = flat[np.isfinite(flat) & (np.abs(flat) < 2**62)].astype(np.int64)
        common = int(np.gcd.reduce(np.append(whole, 16)))
        return 1 if common < 16 and self._has_odd_scalars else common

    def _count(self, what: str, op: Op) -> None:
        if self._counting:
            kind = self._types[op.results[0]]
            if kind.shape:
                n = distinct(self._values[op.results[0]], kind.shape)
                self._counts[what] += n * self._times() * len(op.results)
