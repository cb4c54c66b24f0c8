"""Shared memory of the binary that Triton would make, estimated from the facts of the IR.

The rules are those of Triton's pipeliner and allocator (``lib/Dialect/TritonGPU/Transforms/Pipeliner``,
``lib/Analysis/Allocation.cpp``) and of the layouts that it gives tensors.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from ._products import Family, is_chained, item_bytes, warps_of
from ._types import Access, Dot, KernelFacts

LEAST_COPIED = 4
"""Bytes that ``cp.async`` copies at least: narrower loads are not fetched ahead."""


def shared_bytes(facts: KernelFacts, family: Family, *, num_warps: int, num_stages: int) -> float:
    """Bytes of shared memory of a program: of whatever needs most at once."""
    phases = [*_exchanged(facts, family, num_warps), *_turned(facts, family, num_warps)]
    loops = {dot.loop for dot in facts.dots}
    phases += [_of_products(facts, family, loop, num_warps, num_stages) for loop in loops]
    return max(phases, default=0.0)


def _of_products(
    facts: KernelFacts, family: Family, loop: int, num_warps: int, num_stages: int
) -> float:
    """Shared memory of the products of one loop: pipelined loads, operands, conversions."""
    dots = [dot for dot in facts.dots if dot.loop == loop]
    if loop < 0:  # one after the other in the same memory
        loaded = [a.item_bytes for a in facts.accesses if a.feeds_dot == "loaded"]
        return max(_of_one(dot, family, num_warps, min(loaded, default=4)) for dot in dots)
    staged = [a for a in facts.accesses if a.feeds_dot and a.loop == loop and a.kind == "load"]
    own = facts.loops[loop].stages if 0 <= loop < len(facts.loops) else 0
    stages = own or num_stages
    is_async = any(family.is_async(dot, num_warps) for dot in dots)
    direct = [a for a in staged if a.feeds_dot == "load"]
    outside = _outside(facts, loop)
    total = sum(outside) if family.vendor == "cuda" else 0.0
    piped = [a for a in direct if stages > 1 and (a.descriptor or a.width >= LEAST_COPIED)]
    at_once = [a for a in direct if a not in piped]
    if family.vendor == "cuda":
        total += _one_stage(at_once, dots)
    else:
        total += max((float(a.tile_bytes) for a in at_once), default=0.0)
    if stages > 1:
        # loads ahead of their use, AssignLatencies.cpp
        ahead = (stages - 1) // (1 + max((a.indirection for a in staged), default=0))
        buffers = max(1, ahead + 1 if is_async else ahead)
        if family.vendor == "hip" and stages == 4 and is_chained(facts, dots[0]):
            buffers = 1  # a schedule of its own, ScheduleLoops.cpp of AMD
        total += buffers * sum(a.tile_bytes for a in piped)
        if family.vendor == "cuda":
            total += buffers * sum(_copied(a) for a in staged if a.feeds_dot == "loaded")
    inside = total + max(_converted(facts, dot, family, num_warps) for dot in dots)
    return max(inside, *outside, 0.0)


def _one_stage(direct: Sequence[Access], dots: Sequence[Dot]) -> float:
    """Bytes of one iteration's loads: one that several products take stays, others make place."""
    slots = Counter(frozenset((d.m, d.k)) for d in dots if d.a_from == "load")
    slots += Counter(frozenset((d.k, d.n)) for d in dots if d.b_from == "load")
    loads = Counter(frozenset(a.shape[-2:]) for a in direct)
    stays = {shape for shape, n in loads.items() if slots[shape] > n}
    kept = sum(a.tile_bytes for a in direct if frozenset(a.shape[-2:]) in stays)
    passing = {frozenset(a.shape[-2:]): a.tile_bytes for a in direct}
    most = 0.0
    for d in dots:
        sides = [(d.a_from, frozenset((d.m, d.k))), (d.b_from, frozenset((d.k, d.n)))]
        here = [s for source, s in sides if source == "load" and s not in stays]
        most = max(most, sum(float(passing.get(s, 0)) for s in here))
    return kept + most


def _of_one(dot: Dot, family: Family, num_warps: int, item: int) -> float:
    """Shared memory of a product outside of loops.

    What is loaded for it lies there as it is; what is computed goes through it, one after the other, in
    the form in which it was loaded unless an asynchronous product reads it there.
    """
    a, b = dot.m * dot.k, dot.k * dot.n
    direct = [
        size * item_bytes(element)
        for size, element, source in ((a, dot.a, dot.a_from), (b, dot.b, dot.b_from))
        if source == "load"
    ]
    through = [
        a * min(item_bytes(dot.a), item) if dot.a_from == "loaded" else 0.0,
        b * (item_bytes(dot.b) if family.is_async(dot, num_warps) else min(item_bytes(dot.b), item))
        if dot.b_from != "load"
        else 0.0,
        a * item_bytes(dot.a) if dot.a_from == "computed" and dot.m < 16 * num_warps else 0.0,
    ]
    together = max(direct, default=0.0) if family.vendor == "hip" else sum(direct)
    return max(together, *through)


def _copied(access: Access) -> float:
    """Bytes of a load that reaches a product after a computation, where it is copied asynchronously."""
    if access.width < LEAST_COPIED or len(access.shape) < 2:
        return 0.0
    return float(access.tile_bytes)


def _outside(facts: KernelFacts, loop: int) -> list[float]:
    """Bytes of operands that are loaded before the loop: NVIDIA's stay in shared memory."""
    dots = [dot for dot in facts.dots if dot.loop == loop]
    needed = Counter(frozenset((d.m, d.k)) for d in dots if d.a_from == "load")
    needed += Counter(frozenset((d.k, d.n)) for d in dots if d.b_from == "load")
    direct = [a for a in facts.accesses if a.feeds_dot == "load"]
    needed -= Counter(frozenset(a.shape[-2:]) for a in direct if a.loop == loop)
    found = []
    for access in direct:
        if access.loop != loop and needed[frozenset(access.shape[-2:])] > 0:
            needed[frozenset(access.shape[-2:])] -= 1
            found.append(float(access.tile_bytes))
    return found


def _converted(facts: KernelFacts, dot: Dot, family: Family, num_warps: int) -> float:
    """Operands that are computed in registers and go to the product through shared memory."""
    total = 0.0
    shared = warps_of(facts, family, dot, num_warps)[1] > 1 and not family.is_async(dot, num_warps)
    if dot.a_from != "load" and (shared or dot.a_from == "loaded") and family.vendor == "cuda":
        total += dot.m * dot.k * item_bytes(dot.a)
    if dot.b_from != "load":
        total += dot.k * dot.n * item_bytes(dot.b)
    return total


def _turned(facts: KernelFacts, family: Family, num_warps: int) -> list[float]:
    """Bytes of tiles that change their layout before they are stored.

    A product's result does, and a tile whose neighbours in memory lie along another axis than where it
    was loaded. Within a warp no shared memory is needed.
    """
    found = []
    threads = num_warps * family.warp
    loads = [a for a in facts.accesses if a.kind == "load" and not a.feeds_dot]
    results = {(dot.m, dot.n) for dot in facts.dots}
    for a in facts.accesses:
        if a.kind == "load" or a.descriptor or not a.shape:
            continue
        like = [x for x in loads if sorted(x.shape) == sorted(a.shape)]
        is_turned = any(x.shape != a.shape or -1 < x.axis != a.axis > -1 for x in like)
        is_square = len(a.shape) > 1 and len({*a.shape}) == 1
        is_flat = any(r.shape == (math.prod(a.shape),) for r in facts.reductions)
        is_turned |= bool(like and facts.moved and is_square and not is_flat)
        if a.shape[-2:] in results:
            if family.vendor == "cuda" and num_warps > 1:  # AMD's stores take a product's layout
                found.append(min(float(a.tile_bytes), _TURNED_RESULT * threads))
        elif is_turned and not facts.dots:
            crossed = next((x for x in like if x.axis != a.axis), like[0])
            found.append(a.tile_bytes / _pieces(facts, crossed, a, family, num_warps))
        elif a.kind == "atomic" and like:
            at_once = (
                16 // a.item_bytes if family.vendor == "cuda" and family.capability >= 90 else 1
            )
            if max(_layout(facts, a.shape, family, num_warps)[0]) > at_once:
                most = _TURNED_ROW if len(a.shape) == 1 else _TURNED_TILE
                found.append(min(float(a.tile_bytes), most * threads))
    return found


_TURNED_RESULT, _TURNED_TILE, _TURNED_ROW = 128.0, 64.0, 32.0
"""Bytes of a thread that change their layout at once; the most that recorded compilations needed."""


def _exchanged(facts: KernelFacts, family: Family, num_warps: int) -> list[float]:
    """Scratch of reductions across warps, scans, gathers and histograms, and of what reductions store."""
    found = []
    for r in facts.reductions:
        size, along = math.prod(r.shape), r.shape[r.axis] if r.axis < len(r.shape) else 1
        rows = size // max(along, 1)
        vector, lanes, warps = _layout(facts, r.shape, family, num_warps)
        each = rows * r.item_bytes * r.operands
        if r.kind == "scan":
            steps = math.ceil(along / (vector[r.axis] * lanes[r.axis]))
            found.append(float(each * steps) if warps[r.axis] > 1 else 0.0)
        elif r.kind == "reduce":
            pieces = max(1.0, max(vector) * r.item_bytes / 16) if vector[r.axis] == 1 else 1.0
            found.append(each * warps[r.axis] / pieces if warps[r.axis] > 1 else 0.0)
            kept = tuple(n for i, n in enumerate(r.shape) if i != r.axis)
            if any(a.kind != "load" and a.shape == kept and a.shape for a in facts.accesses):
                found.append(float(rows * r.item_bytes))
        else:
            found.append(float((r.result or size) * r.item_bytes))
    return found


def _pieces(
    facts: KernelFacts, source: Access, target: Access, family: Family, num_warps: int
) -> int:
    """Pieces in which a tile changes its layout: those that a thread holds before and after."""
    is_swapped = source.axis == target.axis
    kept = []
    for access in (source, target):
        layout = _layout(facts, access.shape, family, num_warps, access)
        places = [
            {*range((size - 1).bit_length())}
            | {*range((size * lanes * warps - 1).bit_length(), (n - 1).bit_length())}
            for n, size, lanes, warps in zip(access.shape, *layout, strict=True)
        ]
        kept.append(places[::-1] if is_swapped and access is target else places)
    return int(2 ** sum(len(x & y) for x, y in zip(*kept, strict=False)))


def _layout(
    facts: KernelFacts,
    shape: tuple[int, ...],
    family: Family,
    num_warps: int,
    access: Access | None = None,
) -> tuple[list[int], list[int], list[int]]:
    """Neighbours of a thread, lanes and warps by axis of a tensor as it was loaded (``Coalesce.cpp``)."""
    loads = [a for a in facts.accesses if a.shape == shape and a.kind == "load"]
    like = [access] if access else loads
    first = next((a.axis for a in like if a.axis >= 0), len(shape) - 1)
    most = max(1, math.prod(shape) // (family.warp * num_warps))
    vector = max((min(a.run, a.align, 16 // a.item_bytes, most) for a in like), default=1)
    order = [first, *(i for i in reversed(range(len(shape))) if i != first)]
    sizes, lanes, warps = ([1] * len(shape) for _ in range(3))
    sizes[first] = min(vector, shape[first])
    threads_left, warps_left = family.warp, num_warps
    for i in order:
        lanes[i] = min(threads_left, max(1, shape[i] // sizes[i]))
        threads_left //= lanes[i]
        warps[i] = min(warps_left, max(1, shape[i] // (sizes[i] * lanes[i])))
        warps_left //= warps[i]
    return sizes, lanes, warps
