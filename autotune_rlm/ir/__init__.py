"""The compiler's eye: what a Triton kernel does, read from its first IR, and what follows on a device.

facts = kernel_facts(kernel, {"a": "*fp16", "n": 4096, "BLOCK": 128}, grid=(32,))
numbers = on_device(facts, devices.lookup("NVIDIA H100"), num_warps=4, num_stages=3)
"""

from ._cache import IRCache
from ._frontend import DEFAULT_TARGET
from ._kernel import as_grid, kernel_facts, read_ir
from ._on_device import on_device
from ._reader import Launch, Reader, facts_of, read_or_reason, target_of
from ._roofline import LAUNCH_MS, Peaks, floor_ms
from ._signature import NotRead, Refused, Signature, missing_arguments, with_heuristics
from ._time import CONSTANTS, INPUTS, expected_ms, inputs_of, time_us
from ._types import Access, Dot, KernelFacts, Loop, Reduction

__all__ = [
    "CONSTANTS",
    "DEFAULT_TARGET",
    "INPUTS",
    "LAUNCH_MS",
    "Access",
    "Dot",
    "IRCache",
    "KernelFacts",
    "Launch",
    "Loop",
    "NotRead",
    "Peaks",
    "Reader",
    "Reduction",
    "Refused",
    "Signature",
    "as_grid",
    "expected_ms",
    "facts_of",
    "floor_ms",
    "inputs_of",
    "kernel_facts",
    "missing_arguments",
    "on_device",
    "read_ir",
    "read_or_reason",
    "target_of",
    "time_us",
    "with_heuristics",
]
