"""Shared memory and registers of the binary that Triton would make, estimated from the facts of the IR.

The rules are those of Triton's pipeliner and allocator (``lib/Dialect/TritonGPU/Transforms/Pipeliner``,
``lib/Analysis/Allocation.cpp``); the constants of the registers were fitted to recorded compilations
(``data/compile_facts``, ``benchmarks/compiler_eye.py``).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

from ._types import Access, Dot, KernelFacts

__all__ = [
    "Family",
    "fma_tile",
    "is_chained",
    "item_bytes",
    "redundancy",
    "registers_per_thread",
    "shared_bytes",
    "tensor_memory_columns",
    "warps_of",
]


@dataclass(frozen=True)
class Family:
    """What generations of GPUs differ in.

    Attributes:
        vendor: ``"cuda"`` or ``"hip"``.
        capability: Compute capability times ten, such as 90; of AMD the architecture's number, such
            as 942.
        warp: Threads of a warp (wavefront).
        registers: 32-bit registers of a multiprocessor.
        threads: Resident threads of a multiprocessor at most.
        programs: Resident programs of a multiprocessor at most.
        most_registers: Of a thread.
    """

    vendor: str
    capability: int
    warp: int = 32
    registers: int = 65536
    threads: int = 2048
    programs: int = 32
    most_registers: int = 255

    @classmethod
    def of(cls, target: str) -> Family:
        """The family of a target such as ``"sm_90"`` or ``"gfx942"``; of an unknown one, Ampere's.

        Sources: CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability";
        AMD, "MI300 ISA" and "RDNA3 ISA" (512 vector registers of 64 lanes for each of 4 SIMD units;
        1,536 of 32 lanes).
        """
        text = target.strip().lower()
        if match := re.fullmatch(r"sm_?(\d+)[af]?", text):
            capability = int(match[1])
            threads = {75: 1024, 86: 1536, 87: 1536, 89: 1536, 120: 1536, 121: 1536}
            programs = {75: 16, 86: 16, 87: 16, 89: 24, 110: 24, 120: 24, 121: 24}
            return cls(
                "cuda",
                capability,
                threads=threads.get(capability, 2048),
                programs=programs.get(capability, 32),
            )
        if match := re.fullmatch(r"gfx([0-9a-f]+)", text):
            number = int(match[1], 16) if re.search("[a-f]", match[1]) else int(match[1])
            if re.match(r"gfx1\d\d\d", text):
                return cls("hip", number, 32, 196608, 2048, 32, 256)
            return cls("hip", number, 64, 131072, 2048, 32, 512)
        return cls("cuda", 80)

    @property
    def uses_tensor_memory(self) -> bool:
        """Whether results of matrix products lie in tensor memory (datacenter Blackwell)."""
        return self.vendor == "cuda" and 100 <= self.capability < 120

    def is_fma(self, dot: Dot) -> bool:
        """Whether multiply-adds of single threads compute a product, without the matrix units.

        ``supportMMA`` of ``AccelerateMatmul.cpp``: NVIDIA's units take fp32 only as TF32. RDNA's take
        no fp32 (``AccelerateAMDMatmul.cpp``).
        """
        if self.vendor == "cuda":
            return self.capability < 75 or (dot.a == "f32" and dot.precision == "ieee")
        return self.warp == 32 and dot.a in ("f32", "f64")

    def is_async(self, dot: Dot, num_warps: int) -> bool:
        """Whether a product is ``wgmma`` or ``tcgen05``, which read shared memory while others run."""
        if self.vendor != "cuda" or not 90 <= self.capability < 120 or dot.batch > 1:
            return False
        return dot.m >= 64 and num_warps % 4 == 0 and dot.acc != "f64" and not self.is_fma(dot)


def is_chained(facts: KernelFacts, dot: Dot) -> bool:
    """Whether a product's result goes into another one, or it takes the result of another one."""
    return any(
        d.loop == dot.loop and not {d.a_from, d.b_from} <= {"load", "loaded"} for d in facts.dots
    )


def warps_of(facts: KernelFacts, family: Family, dot: Dot, num_warps: int) -> tuple[int, int]:
    """Warps along the rows and along the columns of a product's result.

    The rules are those of ``AccelerateMatmul.cpp``. ``mma`` (``warpsPerTileV2``): where products are
    chained, all warps lie along one side of the last one's result, so that rows of a softmax stay
    within a warp; else rows and columns are filled with pieces of 16 x 8. ``wgmma``
    (``warpsPerTileV3``): all warps along the rows where another product takes the result, else groups
    of four along the rows, then along the columns. ``tcgen05`` has no such warps. Multiply-adds fill
    the columns first.
    """
    if family.is_fma(dot):
        return _fma_layout(dot, family, num_warps)[1]
    if family.uses_tensor_memory and family.is_async(dot, num_warps):
        return num_warps, 1
    chained = is_chained(facts, dot)
    if family.is_async(dot, num_warps):
        if chained and {dot.a_from, dot.b_from} <= {"load", "loaded"}:
            return num_warps, 1
        rows = 4
        while rows < num_warps and dot.m > 16 * rows:
            rows *= 2
        return rows, num_warps // rows
    if chained:
        last = [d for d in facts.dots if d.loop == dot.loop][-1]
        return (num_warps, 1) if family.vendor != "cuda" or last.m >= last.n else (1, num_warps)
    rows = cols = 1
    while rows * cols < num_warps:
        if dot.m / 16 / rows >= dot.n / 16 / cols and rows < dot.m / 16:
            rows *= 2
        else:
            cols *= 2
    return rows, cols


def fma_tile(dot: Dot, family: Family, num_warps: int) -> tuple[float, float]:
    """Rows and columns of a product's result that a thread computes by multiply-adds."""
    size, (rows, cols), threads = _fma_layout(dot, family, num_warps)
    return max(size, dot.m / rows / threads[0]), max(size, dot.n / cols / threads[1])


def _fma_layout(
    dot: Dot, family: Family, num_warps: int
) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """Side of a thread's square, warps and threads of a warp along rows and columns.

    ``TritonDotPattern`` of ``TritonToTritonGPUPass.cpp``: columns are filled first.
    """
    each = dot.m * dot.n / (num_warps * family.warp)
    size = 4 if each >= 16 else 2 if each >= 4 else 1
    across = min(family.warp, max(1, dot.n // size))
    columns = min(num_warps, max(1, dot.n // (size * across)))
    return size, (num_warps // columns, columns), (family.warp // across, across)


def redundancy(facts: KernelFacts, family: Family, dot: Dot, num_warps: int) -> float:
    """Warps that compute the same part of a product's result, because there is no more of it."""
    if family.uses_tensor_memory and family.is_async(dot, num_warps):
        return 1.0
    if family.is_fma(dot):
        return max(1.0, num_warps * family.warp / (dot.m * dot.n))
    rows, cols = warps_of(facts, family, dot, num_warps)
    return max(1.0, 16.0 * rows / dot.m) * max(1.0, 8.0 * cols / dot.n)


def item_bytes(element: str) -> float:
    """Bytes of an element by MLIR's name of it."""
    digits = re.search(r"\d+", element)
    return max(1, int(digits[0]) // 8) if digits else 4


def shared_bytes(facts: KernelFacts, family: Family, *, num_warps: int, num_stages: int) -> float:
    """Bytes of shared memory of a program."""
    phases = [_exchanged(facts, family, num_warps)]
    loops = {dot.loop for dot in facts.dots}
    phases += [_of_products(facts, family, loop, num_warps, num_stages) for loop in loops]
    return max(phases)


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
    total = 0.0
    direct = [a.tile_bytes for a in staged if a.feeds_dot == "load"]
    if stages <= 1:
        sizes = [float(b) for b in direct]
        total += max(sizes, default=0.0) if family.vendor == "hip" else sum(sizes)
    else:
        # loads ahead of their use, AssignLatencies.cpp
        ahead = (stages - 1) // (1 + max((a.indirection for a in staged), default=0))
        buffers = max(1, ahead + 1 if is_async else ahead)
        total += buffers * sum(direct)
        total += buffers * sum(_copied(a, family) for a in staged if a.feeds_dot == "loaded")
    outside = _outside(facts, loop) if family.vendor == "cuda" else 0.0
    return total + outside + max(_converted(facts, dot, family, num_warps) for dot in dots)


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


def _copied(access: Access, family: Family) -> float:
    """Bytes of a load that reaches a product after a computation, where it is copied asynchronously."""
    if access.run * access.item_bytes < 4 or len(access.shape) < 2:
        return 0.0
    return float(access.tile_bytes)


def _outside(facts: KernelFacts, loop: int) -> float:
    """Operands that are loaded before the loop and stay in shared memory."""
    dots = [dot for dot in facts.dots if dot.loop == loop]
    needed = Counter(frozenset((d.m, d.k)) for d in dots if d.a_from == "load")
    needed += Counter(frozenset((d.k, d.n)) for d in dots if d.b_from == "load")
    direct = [a for a in facts.accesses if a.feeds_dot == "load"]
    needed -= Counter(frozenset(a.shape[-2:]) for a in direct if a.loop == loop)
    total = 0.0
    for access in direct:
        if access.loop != loop and needed[frozenset(access.shape[-2:])] > 0:
            needed[frozenset(access.shape[-2:])] -= 1
            total += access.tile_bytes
    return total


def _converted(facts: KernelFacts, dot: Dot, family: Family, num_warps: int) -> float:
    """Operands that are computed in registers and go to the product through shared memory."""
    total = 0.0
    shared = warps_of(facts, family, dot, num_warps)[1] > 1 and not family.is_async(dot, num_warps)
    if dot.a_from != "load" and (shared or dot.a_from == "loaded") and family.vendor == "cuda":
        total += dot.m * dot.k * item_bytes(dot.a)
    if dot.b_from != "load":
        total += dot.k * dot.n * item_bytes(dot.b)
    return total


def _exchanged(facts: KernelFacts, family: Family, num_warps: int) -> float:
    """Scratch of reductions across warps, transpositions, scans and histograms; one at a time."""
    most = 0.0
    for r in facts.reductions:
        size = math.prod(r.shape)
        along = r.shape[r.axis] if r.axis < len(r.shape) else 1
        rows = size // max(along, 1)
        across = _warps_along(r.shape, r.axis, num_warps, family.warp)
        if r.kind == "reduce" or r.kind == "scan":
            most = max(most, rows * across * r.item_bytes * r.operands if across > 1 else 0.0)
        else:
            most = max(most, float(size * r.item_bytes))
    return most


def _warps_along(shape: tuple[int, ...], axis: int, num_warps: int, warp: int) -> int:
    """Warps along an axis in Triton's default blocked layout: the last axis fills first."""
    threads, warps = warp, num_warps
    found = 1
    for i in reversed(range(len(shape))):
        here_threads = min(threads, max(1, shape[i] // 4 if i == len(shape) - 1 else shape[i]))
        threads = max(1, threads // here_threads)
        left = max(1, shape[i] // here_threads)
        here = min(warps, left) if threads == 1 else 1
        warps = max(1, warps // here)
        if i == axis:
            found = here
    return found


def tensor_memory_columns(facts: KernelFacts, family: Family, *, num_warps: int) -> int:
    """Columns of 32-bit tensor memory that results take, of 512 (datacenter Blackwell); else 0."""
    if not family.uses_tensor_memory:
        return 0
    columns = [
        math.ceil(dot.m / 128) * dot.n for dot in facts.dots if family.is_async(dot, num_warps)
    ]
    return 2 ** math.ceil(math.log2(max(columns))) if columns else 0


def registers_per_thread(
    facts: KernelFacts, family: Family, *, num_warps: int, num_stages: int
) -> tuple[float, float]:
    """Registers of a thread, and how many more it would like than it can have.

    Returns:
        ``(registers, excess)``: the estimate within the device's limit, and the words above it,
        which spill to memory.
    """
    threads = num_warps * family.warp
    words = 4.0 * threads
    main = max(facts.dots, key=lambda d: d.flops, default=None)
    repeated = max((redundancy(facts, family, dot, num_warps) for dot in facts.dots), default=1.0)
    data = max(facts.live_bytes - facts.accumulator_bytes, 0.0) / words
    index = min(facts.live_index_bytes / words, _MAX_INDEX)
    weights = _WEIGHTS[family.vendor if family.warp * family.registers != 32 * 196608 else "rdna"]
    wanted = (
        weights["base"]
        + weights["operand"]
        * max((_fragment(d, family, num_warps) for d in facts.dots), default=0.0)
        + weights["argument"] * len({a.argument for a in facts.accesses})
        + weights["loop"] * len(facts.loops)
        + weights["code"] * math.sqrt(min(facts.operations, _MAX_CODE))
        + weights["reduction"] * max((r.item_bytes for r in facts.reductions), default=0)
    )
    if main is None:
        wanted += weights["data"] * data + weights["index"] * index
    else:
        wanted += (
            weights["product"]
            + weights["product_data"] * data * repeated
            + weights["product_index"] * index
        )
        in_tensor_memory = family.uses_tensor_memory and family.is_async(main, num_warps)
        accumulators = facts.accumulator_bytes * repeated / words
        wanted += weights["read_back" if in_tensor_memory else "accumulator"] * accumulators
    limit = min(family.most_registers, family.registers // threads)
    return min(max(wanted, _MIN_COUNT), limit), max(0.0, wanted - limit)


_MIN_COUNT = 6.0
_MAX_INDEX = 200.0  # words of addresses beyond which they are computed anew
_MAX_CODE = 400  # operations beyond which a longer kernel needs no more at once
_FMA_DEPTH = 2.3  # steps of the sum whose operands a thread holds at once
_WEIGHTS = {
    "cuda": {
        **{"base": 1.6, "product": 0.0, "data": 0.51, "index": 0.28, "operand": 1.54},
        **{"accumulator": 1.07, "read_back": 1.06, "product_data": 0.003, "product_index": 0.23},
        **{"argument": 1.04, "loop": 2.2, "code": 1.57, "reduction": 0.89},
    },
    "hip": {
        **{"base": 0.0, "product": 13.9, "data": 0.81, "index": 0.43, "operand": 2.32},
        **{"accumulator": 2.43, "read_back": 0.0, "product_data": 0.08, "product_index": 0.41},
        **{"argument": 0.09, "loop": 1.81, "code": 1.22, "reduction": 0.0},
    },
    "rdna": {
        **{"base": 0.0, "product": 13.8, "data": 0.65, "index": 0.37, "operand": 1.0},
        **{"accumulator": 3.29, "read_back": 0.0, "product_data": 0.1, "product_index": 0.3},
        **{"argument": 0.22, "loop": 1.13, "code": 1.05, "reduction": 0.12},
    },
}
"""Registers for nothing, for having a product, and per word of a thread's data, addresses, operands and
results of products (in kernels without and with products), per pointer argument, loop, square root of
operations in the IR and byte of what is reduced. Fitted by mean absolute logarithm, each kernel with
equal weight: NVIDIA to 1,980 recorded compilations of the suite and of kernels from packages, CDNA 3 to
817, RDNA 3 to 319. On kernels left out of the fit the median factor is 1.18, 1.31 and 1.36."""


def _fragment(dot: Dot, family: Family, num_warps: int) -> float:
    """Registers that hold a product's operands, which ``mma`` takes from registers."""
    if family.is_async(dot, num_warps):
        return 0.0
    if family.is_fma(dot):
        return _FMA_DEPTH * sum(fma_tile(dot, family, num_warps))
    k = min(dot.k, 32)
    return (dot.m * k * item_bytes(dot.a) + dot.n * k * item_bytes(dot.b)) / (
        4.0 * family.warp * num_warps
    )
