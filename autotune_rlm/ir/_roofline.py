"""Peak rates of a device, and the time that no launch can beat.

A ``Device`` tells published peaks: fp32, dense fp16 of the matrix units, memory. Other rates follow
from the architecture. Sources: NVIDIA's architecture whitepapers (V100, A100, H100, "RTX Blackwell");
AMD's CDNA 2, CDNA 3, CDNA 4 and RDNA 3 whitepapers; CUDA C++ Programming Guide, "Arithmetic
Instructions".
"""

from __future__ import annotations

from dataclasses import dataclass

from autotune_rlm.devices import completed
from autotune_rlm.types import Device

from ._products import Family
from ._types import Dot, KernelFacts

LAUNCH_MS = 0.0015
"""What a launch costs at least on a GPU, in ms: an empty kernel takes 1.5 to 2.5 us; the shortest of
300,000 recorded matrix products takes 5 us."""

_SPECIAL_PER_CLOCK = 16.0  # exp2, rsqrt, ... of a multiprocessor; of AMD a quarter of 64 lanes
_L2_BYTES_PER_CLOCK = (
    48.0  # of a multiprocessor; 64 by the data sheet of the A100, less in practice
)
_L2_CEILING = 8.0  # times the memory's bandwidth: no L2 is known to be faster


@dataclass(frozen=True)
class Peaks:
    """Rates of the whole device.

    Attributes:
        flops_ms: fp32 operations in a ms, outside of the matrix units.
        special_ms: Special functions in a ms.
        bytes_ms: Bytes from memory in a ms.
        l2_bytes_ms: Bytes from L2 in a ms.
        instructions_ms: Warp instructions in a ms.
        shared_bytes_ms: Bytes from shared memory in a ms.
        sms: Multiprocessors.
        family: Its generation.
        device: What it was made of.
    """

    flops_ms: float
    special_ms: float
    bytes_ms: float
    l2_bytes_ms: float
    instructions_ms: float
    shared_bytes_ms: float
    sms: int
    family: Family
    device: Device

    @classmethod
    def of(cls, device: Device) -> Peaks:
        """The peaks of a device; figures that it does not tell are those of an A100."""
        device = completed(device)
        sms = device.sms or 108
        clock = (device.clock_mhz or 1410.0) * 1e3  # per ms
        memory = (device.mem_gb_s or 1555.0) * 1e6
        family = Family.of(device.target)
        return cls(
            flops_ms=(device.fp32_tflops or 19.5) * 1e9,
            special_ms=_SPECIAL_PER_CLOCK * sms * clock,
            bytes_ms=memory,
            l2_bytes_ms=min(_L2_BYTES_PER_CLOCK * sms * clock, _L2_CEILING * memory),
            instructions_ms=4.0 * sms * clock,
            shared_bytes_ms=128.0 * sms * clock,
            sms=sms,
            family=family,
            device=device,
        )

    def dot_flops_ms(self, dot: Dot) -> float:
        """Operations of a matrix product in a ms."""
        half = (self.device.fp16_tensor_tflops or 0.0) * 1e9
        family = self.family
        wide = dot.a if _bits(dot.a) >= _bits(dot.b) else dot.b
        bits = _bits(wide)
        if wide == "f64":
            doubled = family.vendor == "hip" or family.capability in (80, 90, 100, 103)
            return self.flops_ms * (1.0 if doubled else 1 / 32)
        if half <= 0 or family.is_fma(dot) or (wide == "f32" and family.vendor != "cuda"):
            return self.flops_ms
        if wide == "f32":
            return half / 2 / (3.0 if dot.precision == "tf32x3" else 1.0)
        has_narrow = family.vendor == "hip" and (family.capability >= 942 or family.warp == 32)
        if family.vendor == "cuda":
            has_narrow = not wide.startswith("f") or family.capability >= 89
        if bits == 8:
            return half * (2.0 if has_narrow else 1.0)
        if bits == 4:
            return half * (4.0 if family.capability >= 100 and family.vendor == "cuda" else 2.0)
        return half


def _bits(element: str) -> int:
    digits = "".join(c for c in element.lstrip("bfui") if c.isdigit() or c == "e")
    if element.startswith("f8"):
        return 8
    return int(digits) if digits.isdigit() else 32


def floor_ms(facts: KernelFacts, device: Device) -> float:
    """A time in ms that no launch can beat: its launch, its bytes over bandwidth, its work over peak.

    Bytes count once however often they are read. What fits into half of L2 may be there already, so
    that it counts at the speed of L2.
    """
    peaks = Peaks.of(device)
    programs = facts.programs
    fits = facts.unique_bytes <= 0.5 * (device.l2_mb or 40.0) * 2**20
    memory = facts.unique_bytes / (_L2_CEILING * peaks.bytes_ms if fits else peaks.bytes_ms)
    work = sum(dot.flops * programs / peaks.dot_flops_ms(dot) for dot in facts.dots)
    special = facts.special_ops * programs / (4.0 * peaks.special_ms)
    return LAUNCH_MS + max(memory, work, special) * (0.5 if facts.assumed else 1.0)
