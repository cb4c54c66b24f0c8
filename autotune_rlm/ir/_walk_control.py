"""Control flow: branches, conditions, loops, calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._parse import Block, Op
from ._samples import MAX_TRIPS, SAMPLES, first_failure
from ._values import NAN, UNKNOWN, Number, Value, is_zero
from ._walk_work import WorkWalk

__all__ = ["ControlWalk"]

_UNKNOWN_TRIPS = 8.0  # of a loop of which nothing is known
_LOADED = 1024.0  # an integer that a loop's bounds need and that lies in memory, such as a length
_UNKNOWN = f"a loop whose bounds are loaded from memory runs {_UNKNOWN_TRIPS:.0f} times"
_ASSUMED = f"the bounds of a loop need integers from memory, which are taken to be {_LOADED:.0f}"
_LOADS = frozenset({"tt.load", "tt.descriptor_load"})


class ControlWalk(WorkWalk):
    """Follows regions, each with the share of programs and the iterations that reach it."""

    def _blocks(self, blocks: Sequence[Block]) -> None:
        if len(blocks) == 1:
            self._ops(blocks[0].ops)
            return
        reach: dict[str, Any] = {block.label: np.zeros(SAMPLES) for block in blocks}
        whole = self._weight
        for i, block in enumerate(blocks):
            self._weight = whole if i == 0 else reach[block.label]
            if not np.any(self._weight):
                continue
            self._ops(block.ops)
            self._branch(block.ops[-1] if block.ops else None, blocks, reach)
        self._weight = whole

    def _branch(self, op: Op | None, blocks: Sequence[Block], reach: dict[str, Any]) -> None:
        if op is None or not op.name.startswith("cf."):
            return
        labels = re.findall(r"\^\w+", op.text)
        if op.name == "cf.cond_br" and len(labels) == 2:
            share = self._share(op.operands[0])
            shares = [share, 1.0 - share]
            given = op.operands[1:]
        else:
            shares, given = [1.0], list(op.operands)
        for label, share in zip(labels, shares, strict=False):
            target = next((b for b in blocks if b.label == label), None)
            if target is None:
                continue
            reach[label] = reach[label] + self._weight * share
            for number in target.arguments:
                if given:
                    self._values[number] = self._values[given.pop(0)]

    def _call(self, op: Op) -> None:
        """A call that was not inlined."""
        match = re.search(r"@\"?([^\s(\"]+)", op.text)
        called = self._functions.get(match[1]) if match else None
        if called is not None and self._depth < 8:
            for number, given in zip(called.blocks[0].arguments, op.operands, strict=False):
                self._values[number] = self._values[given]
            self._depth += 1
            self._blocks(called.blocks)
            self._depth -= 1
        for result in op.results:
            self._values[result] = Value(NAN, (NAN,) * len(self._types[result].shape))

    def _if(self, op: Op) -> None:
        share = self._share(op.operands[0])
        whole, yields = self._weight, []
        for region, part in zip(op.regions, (share, 1.0 - share), strict=False):
            self._weight = whole * part
            if np.any(self._weight) or not self._counting:
                self._blocks(region)
            yields.append(_yielded(region))
        self._weight = whole
        for i, result in enumerate(op.results):
            sides = [self._value(y[i]) if i < len(y) else UNKNOWN for y in yields]
            then = sides[0]
            other = sides[1] if len(sides) > 1 else UNKNOWN
            better = (
                then if not np.all(np.isnan(then.base)) or float(np.mean(share)) >= 0.5 else other
            )
            condition = self._value(op.operands[0]).base
            base = np.where(np.isnan(condition), NAN, np.where(share > 0.5, then.base, other.base))
            rank = len(self._types[result].shape)
            strides = better.strides if len(better.strides) == rank else (NAN,) * rank
            self._values[result] = Value(base, strides, max(then.root, other.root))

    def _for(self, op: Op) -> None:
        low, high, step = (self._value(o).base for o in op.operands[:3])
        carried = op.operands[3:]
        trips = _trips(low, high, step)
        instead = None
        if np.isnan(trips).any():
            low, high, step = self._with_loaded(op.operands[:3])
            likely = _trips(low, high, step)
            instead = likely if np.any(likely > 0) else None
        block = op.regions[0][0]
        counter = block.arguments[0]

        def at(iteration: Number) -> None:
            self._values[counter] = Value(low + iteration * step)

        self._loop_body(op, op.regions[0], block.arguments[1:], carried, trips, at, instead)

    def _with_loaded(self, numbers: Sequence[int]) -> list[Number]:
        """Integers that depend on memory, as if each integer there were ``_LOADED``.

        Two that lie beside each other, such as where two sequences start, are as far apart.
        """
        order: list[int] = []
        queue, seen = [(n, False) for n in numbers], set()
        while queue:
            number, done = queue.pop()
            if done:
                order.append(number)
            elif number not in seen and np.isnan(self._value(number).base).any():
                seen.add(number)
                op = self._uses.defined.get(number)
                inner = [] if op is None or op.regions or op.name in _LOADS else op.operands
                queue += [(number, True), *((n, False) for n in inner)]
        before = {number: self._values[number] for number in order}
        counting, self._counting = self._counting, False
        places: dict[int, Any] = {}
        for number in order:
            op = self._uses.defined.get(number)
            if op is not None and op.operands and not op.regions and op.name not in _LOADS:
                self._op(op)
            if np.isnan(self._values[number].base).any():
                self._values[number] = Value(self._loaded(op, places), before[number].strides)
        self._counting = counting
        found = [self._value(n).base for n in numbers]
        for number, value in before.items():
            self._values[number] = value
        return found

    def _loaded(self, op: Op | None, places: dict[int, Any]) -> float:
        if op is None or op.name not in _LOADS:
            return _LOADED
        address = self._value(op.operands[0])
        first = places.setdefault(address.root, address.base)
        apart = np.unique(np.asarray(address.base - first))
        return _LOADED * (
            1.0 + (float(apart[0]) if len(apart) == 1 and apart[0] == apart[0] else 0.0)
        )

    def _while(self, op: Op) -> None:
        before, after = op.regions[0], op.regions[1] if len(op.regions) > 1 else op.regions[0]
        starts = [self._value(o) for o in op.operands]
        condition = next((o for o in before[-1].ops if o.name == "scf.condition"), None)
        passed = condition.operands[1:] if condition is not None else []
        for number, start in zip(before[0].arguments, starts, strict=False):
            self._values[number] = start
        deltas = self._while_deltas(before, after, passed)

        def holds(iteration: Any) -> Any:
            for number, start, delta in zip(before[0].arguments, starts, deltas, strict=False):
                self._values[number] = Value(
                    start.base + iteration * delta, start.strides, start.root
                )
            self._quietly(before)
            return self._value(condition.operands[0]).base if condition is not None else NAN

        trips = first_failure(holds)

        def at(iteration: Number) -> None:
            holds(iteration)
            for number, source in zip(after[0].arguments, passed, strict=False):
                self._values[number] = self._value(source)

        self._loop_body(op, after, [], [], trips, at)
        last = np.where(np.isnan(trips), _UNKNOWN_TRIPS, trips)
        holds(last)
        for result, source in zip(op.results, passed, strict=False):
            self._values[result] = self._value(source)

    def _while_deltas(
        self, before: Sequence[Block], after: Sequence[Block], passed: Sequence[int]
    ) -> list[Number]:
        starts = [self._value(n).base for n in before[0].arguments]
        self._quietly(before)
        for number, source in zip(after[0].arguments, passed, strict=False):
            self._values[number] = self._value(source)
        self._quietly(after)
        ends = [self._value(n).base for n in _yielded(after)]
        return [end - start for start, end in zip(starts, ends, strict=False)]

    def _quietly(self, region: Sequence[Block]) -> None:
        """Evaluate integers and addresses of a region without counting, loops inside left out."""
        counting, self._counting = self._counting, False
        for op in (op for block in region for op in block.ops):
            is_float = self._types[op.results[0]].is_float if op.results else True
            if op.name in ("scf.for", "scf.while") or is_float:
                for result in op.results:
                    rank = len(self._types[result].shape)
                    self._values[result] = Value(NAN, (NAN,) * rank)
            else:
                self._op(op)
        self._counting = counting

    def _loop_body(
        self,
        op: Op,
        region: Sequence[Block],
        arguments: Sequence[int],
        carried: Sequence[int],
        trips: Any,
        at: Callable[[Number], None],
        instead: Any = None,
    ) -> None:
        """Count a loop's body, at a sampled iteration, and give its results their last values.

        Iterations that are not known are taken from ``instead``, where that is given.
        """
        trips = np.zeros(SAMPLES) + trips
        known = ~np.isnan(trips)
        if self._counting and not known[self._weight > 0].all():
            self.assumed.append(_UNKNOWN if instead is None else _ASSUMED)
        if instead is not None:
            trips = np.where(known, trips, instead)
        trips = np.clip(np.where(np.isnan(trips), _UNKNOWN_TRIPS, trips), 0, MAX_TRIPS)
        starts = [self._value(o) for o in carried]
        deltas, starts = self._deltas(region, arguments, starts, at)
        level = self._depth % len(self._random)
        iteration = np.floor(self._random[level] * np.maximum(trips, 1))
        for number, start, delta in zip(arguments, starts, deltas, strict=False):
            moved = start.base if delta is None else start.base + iteration * delta
            strides = start.strides
            if self._types[number].is_float:
                strides = (NAN,) * len(self._types[number].shape)
            self._values[number] = Value(moved, strides, start.root)
        at(iteration)
        whole, outer = self._weight, self._loop
        if self._counting:
            self._loop = self._loop_ids.setdefault(id(op), len(self._loops))
            if self._loop == len(self._loops):
                self._loops.append(self._loop_record(op, region, trips, known, outer))
        self._weight = whole * trips
        self._depth += 1
        if np.any(self._weight > 0):
            self._blocks(region)
        self._depth -= 1
        self._weight, self._loop = whole, outer
        for i, result in enumerate(op.results):
            if i >= len(starts):
                break
            start, delta = starts[i], deltas[i] if i < len(deltas) else None
            end = start.base if delta is None else start.base + trips * delta
            rank = len(self._types[result].shape)
            strides = (NAN,) * rank if self._types[result].is_float else start.strides
            self._values[result] = Value(end, strides, start.root)

    def _deltas(
        self,
        region: Sequence[Block],
        arguments: Sequence[int],
        starts: Sequence[Value],
        at: Callable[[Number], None],
    ) -> tuple[list[Number | None], list[Value]]:
        """How much each carried integer or address grows in an iteration, and the start values.

        The growth is None for floating-point numbers. A start value varies where what follows it does.
        """
        starts = list(starts)
        wanted = [not self._types[n].is_float for n in arguments]
        if not any(wanted):
            return [None] * len(starts), starts
        for number, start in zip(arguments, starts, strict=False):
            self._values[number] = start
        at(0.0)
        self._quietly(region)
        deltas: list[Number | None] = [None] * len(starts)
        ends = [self._value(n) for n in _yielded(region)]
        for i, (want, start, end) in enumerate(zip(wanted, starts, ends, strict=False)):
            if want:
                deltas[i] = end.base - start.base
                strides = tuple(
                    NAN if is_zero(s) and not is_zero(e) else s
                    for s, e in zip(start.strides, end.strides, strict=False)
                )
                starts[i] = Value(start.base, strides, start.root)
        return deltas, starts

    def _loop_record(
        self, op: Op, region: Sequence[Block], trips: Any, known: Any, outer: int
    ) -> dict[str, Any]:
        weight = self._weight
        times = float(weight.mean())
        stages = re.search(r"tt\.num_stages = (\d+)", op.attributes + op.text)
        carried = [self._types[n] for n in region[0].arguments if self._types[n].shape]
        return {
            "id": id(op),
            "parent": outer,
            "trips": float((weight * trips).mean()) / times if times > 0 else 0.0,
            "times": times,
            "stages": int(stages[1]) if stages else 0,
            "carried_bytes": float(sum(t.size * t.bytes for t in carried if t.is_float)),
            "known": bool(known.all()),
        }


def _trips(low: Number, high: Number, step: Number) -> Any:
    return np.ceil((high - low) / np.where(np.asarray(step) == 0, NAN, step))


def _yielded(region: Sequence[Block]) -> list[int]:
    """The values that a region hands on."""
    ops = region[-1].ops
    return ops[-1].operands if ops and ops[-1].name == "scf.yield" else []
