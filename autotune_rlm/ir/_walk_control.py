"""Control flow: branches, conditions, loops, calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._parse import Block, Op
from ._samples import MAX_TRIPS, SAMPLES, first_failure
from ._values import NAN, UNKNOWN, Number, Value, is_zero
from ._walk_work import LOADED, WorkWalk

_UNKNOWN_TRIPS = 8.0  # of a loop of which nothing is known
_MAX_FOLLOWED = 256  # iterations that are gone through one by one, at about 0.3 ms each
_UNKNOWN = f"a loop whose bounds are loaded from memory runs {_UNKNOWN_TRIPS:.0f} times"
_ASSUMED = (
    f"the bounds of a loop need integers from memory, which are taken to be {LOADED:.0f}; where they "
    "are offsets, they are taken to part what they lead into equally"
)


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
            self._pass(op.operands, called.blocks[0].arguments)
            self._depth += 1
            self._blocks(called.blocks)
            self._depth -= 1
        self._forget(op)

    def _pass(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        for source, target in zip(sources, targets, strict=False):
            self._values[target] = self._value(source)

    def _forget(self, op: Op) -> None:
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
            then, other = (*sides, UNKNOWN)[:2]
            is_then = not np.all(np.isnan(then.base)) or float(np.mean(share)) >= 0.5
            better = then if is_then else other
            condition = self._value(op.operands[0]).base
            base = np.where(np.isnan(condition), NAN, np.where(share > 0.5, then.base, other.base))
            rank = len(self._types[result].shape)
            strides = better.strides if len(better.strides) == rank else (NAN,) * rank
            self._values[result] = Value(base, strides, max(then.root, other.root))

    def _for(self, op: Op) -> None:
        low, high, step = (self._value(o).base for o in op.operands[:3])
        carried = op.operands[3:]
        trips = np.ceil((high - low) / np.where(np.asarray(step) == 0, NAN, step))
        block = op.regions[0][0]
        counter = block.arguments[0]

        def at(iteration: Number) -> None:
            self._values[counter] = Value(low + iteration * step)

        self._loop_body(op, op.regions[0], block.arguments[1:], carried, trips, at)

    def _while(self, op: Op) -> None:
        before, after = op.regions[0], op.regions[1] if len(op.regions) > 1 else op.regions[0]
        starts = [self._value(o) for o in op.operands]
        condition = next((o for o in before[-1].ops if o.name == "scf.condition"), None)
        passed = condition.operands[1:] if condition is not None else []
        bases = [start.base for start in starts]
        second = self._after_one(before, after, passed, bases)
        third = self._after_one(before, after, passed, second)
        steps = list(zip(bases, second, third, strict=False))  # the first step may be an odd one

        def holds(iteration: Any) -> Any:
            for number, start, (at, then, later) in zip(
                before[0].arguments, starts, steps, strict=False
            ):
                base = np.where(iteration < 1, at, then + (iteration - 1) * (later - then))
                self._values[number] = Value(base, start.strides, start.root)
            self._quietly(before)
            return self._value(condition.operands[0]).base if condition is not None else NAN

        trips = first_failure(holds)

        def at(iteration: Number) -> None:
            holds(iteration)
            self._pass(passed, after[0].arguments)

        self._loop_body(op, after, [], [], trips, at)
        holds(np.where(np.isnan(trips), _UNKNOWN_TRIPS, trips))
        self._pass(passed, op.results)

    def _after_one(
        self,
        before: Sequence[Block],
        after: Sequence[Block],
        passed: Sequence[int],
        bases: Sequence[Number],
    ) -> list[Number]:
        """What is carried after one iteration of a ``while`` loop."""
        for number, base in zip(before[0].arguments, bases, strict=False):
            self._values[number] = Value(base, (0.0,) * len(self._types[number].shape))
        self._quietly(before)
        self._pass(passed, after[0].arguments)
        self._quietly(after)
        return [self._value(n).base for n in _yielded(after)]

    def _quietly(self, region: Sequence[Block], *, scalars: bool = False) -> None:
        """Evaluate integers and addresses of a region, or scalars alone, without counting.

        What loops inside leave is only looked at where the bounds of some loop had to be guessed.
        """
        counting, self._counting = self._counting, False
        for op in (op for block in region for op in block.ops):
            if scalars and op.results and all(self._types[r].shape for r in op.results):
                continue
            is_float = all(self._types[result].is_float for result in op.results)
            is_loop = op.name in ("scf.for", "scf.while") and not self._guessed
            if is_loop or is_float:
                self._forget(op)
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
    ) -> None:
        """Count a loop's body, at a sampled iteration, and give its results their last values."""
        trips = np.zeros(SAMPLES) + trips
        known = ~np.isnan(trips)
        if self._counting and not known[self._weight > 0].all():
            self._unbounded.add(id(op))
            self.assumed.append(_UNKNOWN)
        elif self._counting and id(op) in self._guessed:
            known[:] = False
            self.assumed.append(_ASSUMED)
        trips = np.clip(np.where(np.isnan(trips), _UNKNOWN_TRIPS, trips), 0, MAX_TRIPS)
        self._inner[id(op)] = trips
        starts = [self._value(o) for o in carried]
        deltas, starts = self._deltas(region, arguments, starts, at)
        level = self._depth % len(self._random)
        iteration = np.floor(self._random[level] * np.maximum(trips, 1))
        grow = [0.0 if delta is None else delta for delta in deltas]
        moved = [s.base + iteration * d for s, d in zip(starts, grow, strict=False)]
        ends = [s.base + trips * d for s, d in zip(starts, grow, strict=False)]
        if followed := self._follow(region, arguments, starts, trips, at, level):
            iteration, moved, ends = followed
        for number, start, base in zip(arguments, starts, moved, strict=False):
            strides = start.strides
            if self._types[number].is_float:
                strides = (NAN,) * len(self._types[number].shape)
            self._values[number] = Value(base, strides, start.root)
        at(iteration)
        whole, outer = self._weight, self._loop
        trips = trips * self._evened.pop(id(op), 1.0)
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
        for result, start, end in zip(op.results, starts, ends, strict=False):
            rank = len(self._types[result].shape)
            strides = (NAN,) * rank if self._types[result].is_float else start.strides
            self._values[result] = Value(end, strides, start.root)

    def _follow(
        self,
        region: Sequence[Block],
        arguments: Sequence[int],
        starts: Sequence[Value],
        trips: Any,
        at: Callable[[Number], None],
        level: int,
    ) -> tuple[Any, list[Number], list[Number]] | None:
        """Go through a loop that decides from iteration to iteration how often the loops inside run.

        So programs take tiles of one matrix product after the other. The iteration that is looked at is
        drawn by the work inside, and what runs there is weighted so that all iterations are counted.

        Returns:
            By sample the iteration, what is carried into it, and what the last one leaves; None where
            every iteration adds as much to what is carried, or where there are too many.
        """
        count = int(trips[self._weight > 0].max(initial=0.0)) if self._counting else 0
        inner = [op for block in region for op in block.ops if op.name in ("scf.for", "scf.while")]
        left = _yielded(region)
        follows = self._guessed and {r for op in inner for r in op.results} & set(left)
        if not follows or not 1 < count <= _MAX_FOLLOWED:
            return None
        now = [np.zeros(SAMPLES) + start.base for start in starts]
        carried, work = [], {id(op): np.zeros((count, SAMPLES)) for op in inner}
        for i in range(count):
            carried.append(now)
            for number, start, base in zip(arguments, starts, now, strict=False):
                self._values[number] = Value(base, start.strides, start.root)
            at(float(i))
            self._quietly(region, scalars=True)
            for loop, counts in work.items():
                counts[i] = np.where(i < trips, self._inner[loop], 0.0)
            ends = [self._value(n).base for n in left]
            now = [np.where(i < trips, e, n) for e, n in zip(ends, now, strict=False)]
        every = np.cumsum(sum(work.values()), axis=0)
        passed = (every <= self._random[level] * every[-1]).sum(0)
        none = np.floor(self._random[level] * np.maximum(trips, 1))
        iteration = np.where(every[-1] > 0, passed, none)
        here = (iteration.astype(int), np.arange(SAMPLES))
        for loop, counts in work.items():
            share = counts.sum(0) / np.maximum(trips * counts[here], 1e-30)
            self._evened[loop] = np.where(counts[here] > 0, share, 1.0)
        return iteration, [np.stack(x)[here] for x in zip(*carried, strict=True)], now

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
        times = self._times()
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


def _yielded(region: Sequence[Block]) -> list[int]:
    """The values that a region hands on."""
    ops = region[-1].ops
    return ops[-1].operands if ops and ops[-1].name == "scf.yield" else []
