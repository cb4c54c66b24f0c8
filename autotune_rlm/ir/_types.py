"""``KernelFacts``: what a kernel does for one launch, whatever runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotune_rlm._json import known_fields


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A matrix product in the kernel.

    Attributes:
        m: Rows of the result tile.
        n: Columns.
        k: Length that is summed over.
        batch: Independent products in one operation.
        a: MLIR's name of the first operand's element, such as ``"f16"``.
        b: Of the second.
        acc: Of the result.
        precision: ``"tf32"``, ``"ieee"``, ``"tf32x3"``, ...: how fp32 operands are multiplied; other
            operands do not depend on it.
        scaled: Whether operands have block scales.
        times: Executions per program, on average over the grid.
        loop: Index of the innermost loop around it, -1 outside of loops.
        a_from: Where the first operand comes from: ``"load"`` (straight from memory), ``"loaded"``
            (converted or scaled after the load), ``"computed"``.
        b_from: The same for the second.
    """

    m: int
    n: int
    k: int
    batch: int = 1
    a: str
    b: str
    acc: str
    precision: str = ""
    scaled: bool = False
    times: float
    loop: int = -1
    a_from: str = "load"
    b_from: str = "load"

    @property
    def flops(self) -> float:
        """Floating-point (or integer) operations per program; a multiply-add is two."""
        return 2.0 * self.m * self.n * self.k * self.batch * self.times


@dataclass(frozen=True, kw_only=True)
class Access:
    """A load, a store or an atomic operation.

    Attributes:
        kind: ``"load"``, ``"store"`` or ``"atomic"``.
        argument: Name of the pointer argument; empty where it is not known.
        shape: Of the tile.
        item_bytes: Bytes of an element.
        times: Executions per program.
        active: Share of the tile's elements that the mask lets through.
        distinct: Elements of the tile at different addresses.
        axis: Axis along which addresses are next to each other, -1 where there is none.
        run: Elements that are next to each other, at most the tile's extent.
        align: Elements that a thread may take at once as far as the compiler knows, at most 16: rows of a
            length that 16 does not divide begin anywhere, and a mask may end anywhere.
        loop: Index of the innermost loop around it, -1 outside of loops.
        masked: Whether there is a mask.
        descriptor: Whether a tensor descriptor or a block pointer is used.
        feeds_dot: ``"load"`` where a matrix product takes it as it is, ``"loaded"`` where something is
            computed in between, else empty.
        indirection: Loads of the same loop, one after the other, that its address rests on; noted for
            what feeds a product.
    """

    kind: str
    argument: str
    shape: tuple[int, ...]
    item_bytes: int
    times: float
    active: float
    distinct: int
    axis: int = -1
    run: int = 1
    align: int = 16
    loop: int = -1
    masked: bool = False
    descriptor: bool = False
    feeds_dot: str = ""
    indirection: int = 0

    @property
    def tile_bytes(self) -> int:
        """Bytes of the whole tile."""
        size = self.item_bytes
        for n in self.shape:
            size *= n
        return size

    @property
    def width(self) -> int:
        """Bytes at neighbouring addresses that a thread may take at once."""
        return self.item_bytes * min(self.run, self.align)

    @property
    def bytes(self) -> float:
        """Bytes that a program moves in all executions, without what the mask keeps back."""
        return self.distinct * self.item_bytes * self.active * self.times


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A loop.

    Attributes:
        parent: Index of the loop around it, -1 where there is none.
        trips: Iterations per entry, on average over the grid.
        times: Entries per program.
        stages: ``num_stages`` that the kernel itself sets, 0 where it leaves it to the launch.
        carried_bytes: Bytes of tensors that go from one iteration to the next, per program.
        live_bytes: Peak of live values inside, as ``KernelFacts.live_bytes``.
        known: Whether the number of iterations follows from the arguments.
    """

    parent: int = -1
    trips: float
    times: float
    stages: int = 0
    carried_bytes: float = 0.0
    live_bytes: float = 0.0
    known: bool = True


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """A reduction, a scan, or another operation in which the elements of an axis meet.

    Attributes:
        kind: ``"reduce"``, ``"scan"``, ``"gather"``, ``"histogram"``, ``"sort"``.
        shape: Of the operand.
        axis: That is reduced.
        operands: Tensors at once.
        item_bytes: Bytes of an element of the first.
        times: Executions per program.
        result: Elements of a result.
    """

    kind: str
    shape: tuple[int, ...]
    axis: int
    operands: int
    item_bytes: int
    times: float
    result: int = 0

    @property
    def elements(self) -> float:
        """Elements per program in all executions."""
        size = float(self.operands)
        for n in self.shape:
            size *= n
        return size * self.times


@dataclass(frozen=True, kw_only=True)
class KernelFacts:
    """What one launch of a kernel does. Work is per program, on average over the grid.

    Attributes:
        grid: Programs along the three axes.
        dots: Matrix products.
        accesses: Loads, stores, atomics.
        loops: Loops, outer ones first.
        reductions: Reductions and scans.
        float_ops: Floating-point additions, multiplications, comparisons, selections (elements).
        int_ops: Integer operations on elements that differ.
        special_ops: Exponentials, roots, divisions and the like (elements).
        conversions: Conversions between number formats (elements).
        moved: Elements of transpositions, reshapes, joins.
        live_bytes: Peak of bytes of values alive at once in a program, without addresses, masks and
            what goes to a matrix product through shared memory.
        live_index_bytes: The same peak of integers and addresses.
        accumulator_bytes: Largest total of results of matrix products that are carried by a loop.
        largest: Elements of the largest tensor.
        operations: Operations in the IR: a measure of the code's length.
        unique_bytes: Bytes of memory that the whole grid touches, each counted once, read or written.
        unique_read_bytes: The part that is read.
        imbalance: Work of the busiest program over the mean.
        idle: Share of programs that return without work.
        assumed: What could not be known and was assumed, as sentences.
    """

    grid: tuple[int, int, int]
    dots: tuple[Dot, ...] = ()
    accesses: tuple[Access, ...] = ()
    loops: tuple[Loop, ...] = ()
    reductions: tuple[Reduction, ...] = ()
    float_ops: float = 0.0
    int_ops: float = 0.0
    special_ops: float = 0.0
    conversions: float = 0.0
    moved: float = 0.0
    live_bytes: float = 0.0
    live_index_bytes: float = 0.0
    accumulator_bytes: float = 0.0
    largest: int = 1
    operations: int = 0
    unique_bytes: float = 0.0
    unique_read_bytes: float = 0.0
    imbalance: float = 1.0
    idle: float = 0.0
    assumed: tuple[str, ...] = ()

    @property
    def programs(self) -> int:
        """Programs of the launch."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def dot_flops(self) -> float:
        """Operations of matrix products per program."""
        return sum(dot.flops for dot in self.dots)

    def moved_bytes(self, *kinds: str) -> float:
        """Bytes per program of the accesses of these kinds; of all where none is named."""
        return sum(a.bytes for a in self.accesses if not kinds or a.kind in kinds)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> KernelFacts:
        """The inverse of ``to_json``; unknown names are dropped."""
        plain = known_fields(cls, data)
        for name, kind in _PARTS.items():
            plain[name] = tuple(kind(**_tuples(part)) for part in plain.get(name, ()))
        return cls(**_tuples(plain))


_PARTS: dict[str, Any] = {"dots": Dot, "accesses": Access, "loops": Loop, "reductions": Reduction}


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
