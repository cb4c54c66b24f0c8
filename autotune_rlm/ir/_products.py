"""How a family of GPUs computes matrix products: by which units, and which warps do which part."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ._types import Dot, KernelFacts


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

        ``supportMMA`` of ``AccelerateMatmul.cpp``: NVIDIA's units take fp32 only as TF32. Before Ampere
        Triton does not use them (``fma.rn.f32`` in the PTX of 3.4, 3.7 and 3.9, sm_70 and sm_75). RDNA's
        take no fp32 (``AccelerateAMDMatmul.cpp``).
        """
        if self.vendor == "cuda":
            return self.capability < 80 or (dot.a == "f32" and dot.precision == "ieee")
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


def turned_bytes(facts: KernelFacts, family: Family, dot: Dot, num_warps: int) -> float:
    """Bytes of factors that ``wgmma`` needs turned first: only 16-bit ones may lie across K.

    PTX ISA, "wgmma.mma_async": transposition is supported for .f16 and .bf16 alone.
    """
    if not family.is_async(dot, num_warps) or family.capability != 90:
        return 0.0
    loads = [a for a in facts.accesses if a.feeds_dot == "load" and a.loop == dot.loop]
    first = [a for a in loads if a.shape == (dot.m, dot.k)]
    second = [a for a in loads if a.shape == (dot.k, dot.n)]
    if first == second:  # tiles of one shape: the first factor is loaded first
        first, second = first[::2], second[1::2]
    turned = [a for a in first if a.item_bytes != 2 and a.axis == 0]
    turned += [a for a in second if a.item_bytes != 2 and a.axis == 1]
    return float(sum(a.tile_bytes for a in turned))


def tensor_memory_columns(facts: KernelFacts, family: Family, *, num_warps: int) -> int:
    """Columns of 32-bit tensor memory that results take, of 512 (datacenter Blackwell); else 0."""
    if not family.uses_tensor_memory:
        return 0
    columns = [
        math.ceil(dot.m / 128) * dot.n for dot in facts.dots if family.is_async(dot, num_warps)
    ]
    return 2 ** math.ceil(math.log2(max(columns))) if columns else 0
