"""Walks a function's operations and counts what they do, on average over the programs of a grid.

Programs, and iterations of loops, are sampled: every value stands for ``SAMPLES`` of them at once. Loop
bounds and conditions that depend on the program (causal masks, grouped orders, persistent loops) so
become expectations.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._live import operations, peak
from ._parse import Op
from ._types import KernelFacts, Loop
from ._values import Value, distinct
from ._walk_control import ControlWalk
from ._walk_work import ACCESSES, MEETING

_COUNTED = ("float_ops", "int_ops", "special_ops", "conversions", "moved")


class Walk(ControlWalk):
    """The facts of one function for one launch; see ``State`` for the arguments."""

    def facts(self) -> KernelFacts:
        """Walk the function and say what it does."""
        with np.errstate(all="ignore"):
            self._blocks(self._function.blocks)
        if self._unbounded and not self._guessed:
            again = Walk(**self._given, guessed=frozenset(self._unbounded))
            return again.facts()
        data, index = self._register_bytes()
        peaks: dict[int, Any] = {}
        most = peak(self._function.blocks, data, index, loops=peaks)
        loops = tuple(self._loop_facts(record, peaks) for record in self._loops)
        work = self._work / self._stands_for
        mean = float(self._work.mean())
        everything = list(operations(self._function.blocks))
        return KernelFacts(
            grid=self.grid,
            dots=tuple(self._dots),
            accesses=tuple(self._accesses),
            loops=loops,
            reductions=tuple(self._reductions),
            live_bytes=most.data,
            live_index_bytes=most.addresses,
            accumulator_bytes=self._accumulators(everything),
            largest=max((t.size for t in self._types), default=1),
            operations=len(everything),
            imbalance=float(work.max()) / mean if mean > 0 else 1.0,
            idle=max(0.0, float(1.0 - (self._stands_for * self._worked).mean())),
            assumed=tuple(dict.fromkeys(self.assumed)),
            **self._memory(),
            **{n: self._counts[n] for n in _COUNTED},
        )

    def _loop_facts(self, record: dict[str, Any], peaks: Mapping[int, Any]) -> Loop:
        inside = peaks.get(record["id"])
        plain = {k: v for k, v in record.items() if k != "id"}
        return Loop(**plain, live_bytes=inside.data if inside is not None else 0.0)

    def _register_bytes(self) -> tuple[list[float], list[float]]:
        """Bytes of each value in registers: of data, and of integers and addresses."""
        data = [0.0] * len(self._types)
        index = [0.0] * len(self._types)
        for number, kind in enumerate(self._types):
            if not kind.shape or kind.kind == "block" or kind.element == "i1":
                continue
            if self._uses.feeds.get(number) == "load":
                continue
            size = distinct(self._values[number], kind.shape) * kind.bytes
            if size <= kind.bytes:
                continue
            if kind.is_float or not self._values[number].is_affine:
                data[number] = float(size)
            else:
                index[number] = float(size)
        return data, index

    def _accumulators(self, everything: Sequence[Op]) -> float:
        """Bytes of the products' results, each shape once per loop."""
        by_loop: dict[int, float] = defaultdict(float)
        for dot in self._dots:
            size = dot.m * dot.n * dot.batch * (2 if dot.acc == "f16" else 4)
            by_loop[dot.loop] += size
        return max(by_loop.values(), default=0.0)

    def _memory(self) -> dict[str, float]:
        programs = float(self.grid[0] * self.grid[1] * self.grid[2])
        unique = {"read": 0.0, "write": 0.0}
        for (name, way), (low, high, per_program, item) in self._spans.items():
            total = per_program * programs
            size = total
            if high > low and np.isfinite(high - low):
                size = min(size, (high - low) * item)
            shape = self._shapes.get(name)
            if shape is not None:
                size = min(size, math.prod(shape) * item)
            unique[way] += size
        return {
            "unique_bytes": unique["read"] + unique["write"],
            "unique_read_bytes": unique["read"],
        }


Walk.handlers = {
    "arith.constant": Walk._constant,
    **dict.fromkeys(("tt.get_program_id", "tt.get_num_programs"), Walk._program),
    "tt.make_range": Walk._range,
    "tt.splat": Walk._splat,
    "tt.unsplat": lambda walk, op: walk._set(op, Value(walk._value(op.operands[0]).base)),
    "tt.expand_dims": Walk._expand,
    "tt.broadcast": Walk._broadcast,
    "tt.trans": Walk._trans,
    "tt.reshape": Walk._reshape,
    **dict.fromkeys(("tt.join", "tt.cat"), Walk._join),
    "tt.split": Walk._split,
    "tt.addptr": Walk._addptr,
    "tt.advance": Walk._advance,
    "arith.cmpi": Walk._cmpi,
    "arith.select": Walk._select,
    **dict.fromkeys(ACCESSES, Walk._access),
    **dict.fromkeys(("tt.make_tensor_descriptor", "tt.make_tensor_ptr"), Walk._make_block),
    **dict.fromkeys(("tt.dot", "tt.dot_scaled"), Walk._dot),
    **dict.fromkeys(MEETING, Walk._meet),
    "tt.call": Walk._call,
    "scf.if": Walk._if,
    "scf.for": Walk._for,
    "scf.while": Walk._while,
    **dict.fromkeys(
        ("scf.yield", "scf.condition", "tt.return", "cf.br", "cf.cond_br"), lambda *_: None
    ),
}
