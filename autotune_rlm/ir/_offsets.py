"""Arrays of offsets in memory: where pieces of something longer begin or end, one after the other.

What such an array holds is not known, but how a kernel uses it is: the difference of two of its elements,
or a loop from one to the other, is the length of a piece. Its elements so grow with the index. Lengths,
identities of experts and entries of page tables are not used so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ._live import operations
from ._parse import Block, Function, Op

_SAME = frozenset(
    f"arith.{name}"
    for name in (
        *("addi", "subi", "muli", "divsi", "divui", "floordivsi", "ceildivsi", "ceildivui"),
        *("minsi", "minui", "maxsi", "maxui", "shli", "shrsi", "shrui", "andi"),
        *("extsi", "extui", "trunci", "index_cast"),
    )
)
"""Operations that leave an element, less or times something else, an element of its array."""
_SPREAD = frozenset({"tt.splat", "tt.broadcast", "tt.expand_dims"})
_LOOPS = ("scf.for", "scf.while")
Element = tuple[int, int, bool]
"""The number of the array's argument, of what was loaded, and whether an earlier iteration did that."""


class Offsets(NamedTuple):
    """How a kernel uses an array of offsets.

    Attributes:
        first: Which piece element 0 begins: 1 where it ends the first piece or where that does not
            matter, 0 where another array has the ends.
        more: Elements that the array has more than there are pieces.
        parted: Arguments whose addresses its elements go into.
    """

    first: int
    more: int = 0
    parted: frozenset[int] = frozenset()


def offsets(function: Function, defined: Mapping[int, Op]) -> dict[int, Offsets]:
    """The arrays of offsets among a function's arguments, by number of the argument.

    Args:
        function: The kernel.
        defined: The operation that makes each value, by number.
    """
    return _Elements(function, defined).offsets()


class _Elements:
    """Which scalar integers are elements of arrays in memory."""

    def __init__(self, function: Function, defined: Mapping[int, Op]) -> None:
        self._function, self._defined = function, defined
        self._arguments = frozenset(function.blocks[0].arguments)
        self._ops = list(operations(function.blocks))
        self._merged = _merged(self._ops)
        self._known: dict[int, frozenset[Element] | None] = {}

    def offsets(self) -> dict[int, Offsets]:
        for value in self._merged:  # first, so that a sum over iterations is known to be none
            self._of(value)
        found: dict[int, Offsets] = {}
        for op in self._ops:
            if op.name in ("arith.subi", "arith.cmpi", "scf.for") and len(op.operands) >= 2:
                low, high = (self._of(value) or frozenset() for value in op.operands[:2])
                both = {a for a, _, _ in low} & {a for a, _, _ in high}
                if both and low != high:
                    is_carried = any(was for _, _, was in low | high)
                    found.update(dict.fromkeys(both, Offsets(1, 0 if is_carried else 1)))
                elif op.name == "scf.for" and low and high and not both:
                    found.update({a: found.get(a, Offsets(0)) for a, _, _ in low})
                    found.update({a: Offsets(1) for a, _, _ in high})
        parted = self._parted(found) if found else {}
        return {a: of._replace(parted=frozenset(parted[a])) for a, of in found.items()}

    def _parted(self, arrays: Iterable[int]) -> dict[int, set[int]]:
        """The arguments into whose addresses elements of arrays are added."""
        found: dict[int, set[int]] = {array: set() for array in arrays}
        tensors: dict[int, set[int]] = {}

        def added(value: int) -> set[int]:
            return tensors.get(value) or {a for a, _, _ in self._of(value) or ()}

        for op in self._ops:
            if op.name in _SAME | _SPREAD and self._function.types[op.results[0]].shape:
                tensors[op.results[0]] = set().union(*map(added, op.operands))
            elif op.name in ("tt.addptr", "tt.advance"):
                argument = self._array(op.operands[0])
                for array in added(op.operands[1]) & found.keys():
                    if argument is not None:
                        found[array].add(argument)
        return found

    def _of(self, value: int) -> frozenset[Element] | None:
        """The elements that a scalar is made of; None while that is being found out."""
        if value not in self._known:
            self._known[value] = None
            self._known[value] = self._find(value)
        return self._known[value]

    def _find(self, value: int) -> frozenset[Element] | None:
        kind = self._function.types[value]
        if kind.shape or kind.element[0] != "i" or kind.kind != "value":
            return frozenset()
        if value in self._merged:
            carried, sources = self._merged[value]
            of = [self._of(source) or frozenset() for source in sources]
            return frozenset(
                (a, loaded, was or (carried and i > 0))
                for i, elements in enumerate(of)
                for a, loaded, was in elements
            )
        op = self._defined.get(value)
        if op is None:
            return frozenset()
        if op.name == "tt.load":
            array = self._array(op.operands[0])
            return frozenset({(array, value, False)}) if array is not None else frozenset()
        if op.name == "arith.select":
            return frozenset().union(*(self._of(o) or frozenset() for o in op.operands[1:3]))
        if op.name not in _SAME:
            return frozenset()
        parts = [self._of(operand) for operand in op.operands]
        if any(part is None for part in parts):
            return None  # grows from iteration to iteration
        known = [part for part in parts if part]
        if len(known) > 1 and {a for a, _, _ in known[0]} & {a for a, _, _ in known[1]}:
            return frozenset()  # a length, or a sum
        return frozenset().union(*known)

    def _array(self, address: int) -> int | None:
        """The argument that an address is based on."""
        while address not in self._arguments:
            op = self._defined.get(address)
            if op is None or op.regions or not op.operands:
                return None
            address = op.operands[0]
        return address


def _merged(ops: Iterable[Op]) -> dict[int, tuple[bool, list[int]]]:
    """Values that come from one of several places: whether loops carry them, and from where."""
    found: dict[int, tuple[bool, list[int]]] = {}
    for op in ops:
        if op.name == "scf.if":
            for result, *sources in zip(op.results, *map(_last, op.regions), strict=False):
                found[result] = (False, sources)
        elif op.name in _LOOPS and op.regions:
            inner, starts = op.regions[0][0].arguments, op.operands
            if op.name == "scf.for":
                found[inner[0]] = (False, starts[:1])
                inner, starts = inner[1:], starts[3:]
            for value, start, left in zip(inner, starts, _last(op.regions[-1]), strict=False):
                found[value] = (True, [start, left])
            if op.name == "scf.while":
                passed = _last(op.regions[0])[1:]
                after = op.regions[-1][0].arguments
                found.update({v: (False, [p]) for v, p in zip(after, passed, strict=False)})
                inner = passed
            found.update({r: (False, [v]) for r, v in zip(op.results, inner, strict=False)})
    return found


def _last(region: list[Block]) -> list[int]:
    """What a region's last operation hands on."""
    return region[-1].ops[-1].operands if region and region[-1].ops else []
