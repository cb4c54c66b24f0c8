"""The peak of values alive at once, and what feeds matrix products: from uses and definitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ._parse import Block, Function, Op

_DOTS = ("tt.dot", "tt.dot_scaled")
_VIEWS = frozenset({"tt.trans", "tt.reshape", "tt.expand_dims", "ttg.convert_layout"})
_LOADS = frozenset({"tt.load", "tt.descriptor_load", "tt.descriptor_gather"})


def operations(blocks: Sequence[Block]) -> Iterator[Op]:
    """All operations inside, in order."""
    for block in blocks:
        for op in block.ops:
            yield op
            for region in op.regions:
                yield from operations(region)


class Uses:
    """Which operation makes each value, and which loads feed matrix products.

    Attributes:
        defined: The operation that makes a value, by number.
        feeds: By number of a loaded value: ``"load"`` where a product takes it as it is, ``"loaded"``
            where something is computed in between.
    """

    def __init__(self, function: Function) -> None:
        self.defined: dict[int, Op] = {}
        self.feeds: dict[int, str] = {}
        self._loop_of: dict[int, int] = {}
        self._note_loops(function.blocks, -1)
        dots = []
        for op in operations(function.blocks):
            for result in op.results:
                self.defined[result] = op
            if op.name in _DOTS:
                dots.append(op)
        for dot in dots:
            for operand in self.operands_of(dot):
                self._mark(operand, function)

    @staticmethod
    def operands_of(dot: Op) -> list[int]:
        """The factors of a product (with their scales), without what is added to."""
        if dot.name == "tt.dot":
            return dot.operands[:2]
        return [
            o for i, o in enumerate(dot.operands) if i != (2 if "scale" not in dot.text else 99)
        ]

    def source(self, value: int) -> str:
        """Where an operand comes from: ``"load"``, ``"loaded"`` or ``"computed"``."""
        direct = True
        for _ in range(64):
            op = self.defined.get(value)
            if op is None:
                return "computed"
            if op.name in _LOADS:
                return "load" if direct else "loaded"
            if op.name in _DOTS or op.regions or not op.operands:
                return "computed"
            direct = direct and op.name in _VIEWS
            value = op.operands[0]
        return "computed"

    def indirection(self, load: Op) -> int:
        """Loads one after the other that the address of a load rests on, inside of its own loop."""
        loop = self._loop_of.get(load.results[0])
        most, seen, queue = 0, set(load.results), list(load.operands[:1])
        while queue:
            value = queue.pop()
            op = self.defined.get(value)
            if op is None or value in seen or self._loop_of.get(value) != loop:
                continue
            seen.add(value)
            if op.name in _LOADS:
                most = max(most, 1 + self.indirection(op))
            elif not op.regions:
                queue += op.operands
        return most

    def _note_loops(self, blocks: Sequence[Block], loop: int) -> None:
        for block in blocks:
            for op in block.ops:
                self._loop_of.update(dict.fromkeys(op.results, loop))
                inner = id(op) if op.name in ("scf.for", "scf.while") else loop
                for region in op.regions:
                    self._note_loops(region, inner)

    def _mark(self, value: int, function: Function) -> None:
        seen: set[int] = set()
        queue = [(value, True)]
        while queue:
            value, direct = queue.pop()
            op = self.defined.get(value)
            if op is None or value in seen or op.name in _DOTS or op.regions:
                continue
            seen.add(value)
            if op.name in _LOADS:
                if function.types[value].shape:
                    known = self.feeds.get(value)
                    self.feeds[value] = "load" if direct or known == "load" else "loaded"
                continue
            direct = direct and op.name in _VIEWS
            queue += [(o, direct) for o in op.operands]


class Peak(NamedTuple):
    """Bytes alive at once: of data and, at that moment, of integers and addresses."""

    data: float
    addresses: float


def peak(
    blocks: Sequence[Block],
    data: Sequence[float],
    index: Sequence[float],
    *,
    after: frozenset[int] = frozenset(),
    loops: dict[int, Peak] | None = None,
) -> Peak:
    """The peak of live values.

    Args:
        blocks: A region, its blocks in order.
        data: Bytes of each value in registers, by number.
        index: The same of integers and addresses; a value has one of the two.
        after: Values that are needed after the region.
        loops: Where given, takes the peak inside of each loop by ``id`` of its operation.
    """
    alive = _Alive(data, index, after)
    for block in reversed(blocks):
        for op in reversed(block.ops):
            if op.regions and op.name.startswith("scf."):
                alive.drop(op.results)
                free = [_free(region) for region in op.regions]
                for region, used in zip(op.regions, free, strict=True):
                    kept = alive.values | used if op.name != "scf.if" else alive.values
                    inner = peak(region, data, index, after=frozenset(kept), loops=loops)
                    if loops is not None and op.name in ("scf.for", "scf.while"):
                        loops[id(op)] = max(inner, loops.get(id(op), inner), key=sum)
                    alive.best = max(alive.best, inner, key=sum)
                alive.need(op.operands)
                for used in free:
                    alive.need(used)
            else:
                alive.need(op.results)
                alive.drop(op.results)
                alive.need(op.operands)
        alive.drop(block.arguments)
    return alive.best


class _Alive:
    """The values alive at a point of a walk from the end, and the peak so far."""

    def __init__(
        self, data: Sequence[float], index: Sequence[float], values: Iterable[int]
    ) -> None:
        self.values = set(values)
        self._data, self._index = data, index
        self._now = [sum(data[v] for v in self.values), sum(index[v] for v in self.values)]
        self.best = Peak(*self._now)

    def need(self, values: Iterable[int]) -> None:
        for v in values:
            if v not in self.values:
                self.values.add(v)
                self._now[0] += self._data[v]
                self._now[1] += self._index[v]
        if sum(self._now) > sum(self.best):
            self.best = Peak(*self._now)

    def drop(self, values: Iterable[int]) -> None:
        for v in values:
            if v in self.values:
                self.values.remove(v)
                self._now[0] -= self._data[v]
                self._now[1] -= self._index[v]


def _free(region: Sequence[Block]) -> set[int]:
    """Values that a region uses and does not make."""
    used: set[int] = set()
    made: set[int] = set()
    for block in region:
        made |= set(block.arguments)
    for op in operations(region):
        used.update(op.operands)
        made.update(op.results)
        for inner in op.regions:
            for block in inner:
                made.update(block.arguments)
    return used - made
