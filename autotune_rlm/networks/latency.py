"""How long a network can take on a device, from its work and the device's public figures alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from autotune_rlm.networks._facts import counted_weights, held, node_macs
from autotune_rlm.networks._graph import Graph
from autotune_rlm.types import Device


class Work(NamedTuple):
    """What a run of a network has to do."""

    macs: Mapping[int, int]  # by the bytes of the numbers that are multiplied: 1, 2 or 4
    activation_bytes: int  # of all intermediate results
    weight_bytes: int
    operators: int  # that are run, those of a body as often as it is


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Bounds and expectation of a run in milliseconds.

    The ceiling is a hundredth of the peak, every result through memory, every operator launched from an
    interpreter on a slow host.
    """

    floor_ms: float  # the device's peak rates, with everything fused into one launch
    expected_ms: float  # a compiled runtime, such as ONNX Runtime
    ceiling_ms: float


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A kind of device: rates where a device does not tell its own, and costs of operators."""

    tflops: float  # float32
    gb_s: float
    launch_us: float  # an operator in a compiled runtime
    slow_launch_us: float  # and from an interpreter
    shortest_us: float  # a run of nothing


# Launches: 2 to 5 us a kernel on NVIDIA GPUs and about as much for the host's share (ONNX Runtime);
# PyTorch took 43 to 64 us an operator on four GPUs (least squares over the networks of
# HELP's FBNet tables, arXiv 2106.08630; the greatest of NAS-Bench-201 is 134 us). CPU rates are those
# of one core with 256-bit vectors; its launch and its bandwidth, mostly that of caches, were
# chosen among nine pairs on the even sizes of benchmarks/exported_networks.py on an AMD EPYC.
_KINDS = {
    "gpu": _Kind(tflops=20.0, gb_s=600.0, launch_us=10.0, slow_launch_us=150.0, shortest_us=2.0),
    "cpu": _Kind(tflops=0.05, gb_s=40.0, launch_us=1.0, slow_launch_us=150.0, shortest_us=0.1),
    "mobile": _Kind(tflops=0.02, gb_s=5.0, launch_us=10.0, slow_launch_us=500.0, shortest_us=0.5),
}
_COMPUTE, _BANDWIDTH, _THROUGH_MEMORY = 0.5, 0.8, 0.4
"""Shares of the peaks that are reached, and of results (written and read) that leave the caches.

Of the fits to FBNet tables at batch 64 (compute 0.7 to 1.2 of the peak, traffic 0.16 to 0.22) and to
the throughput of MnasNet-style networks on an A100 and an RTX 3090 (traffic 0.8 to 0.9): in between.
"""
_WORST = 0.01  # share of the peaks below which no sensible runtime falls
_UNTOLD = 20.0  # how far a device may be from its kind where it does not tell its figures
_MAX_CORE = 0.25  # float32 TFLOPS of one core with two 512-bit units at 4 GHz
_FLOP_A_CYCLE = {"avx512f": 64, "avx2": 32, "asimd": 16, "avx": 16}
"""Float32 operations a cycle of a core with two such units, by the flag that Linux shows."""
_HALF = frozenset({"f16", "bf16"})
_BYTE = frozenset({"i8", "u8", "f8e4m3", "f8e5m2", "f8e4m3uz", "f8e5m2uz"})


def network_work(graph: Graph) -> Work:
    """The work of a network; unknown shapes count as nothing."""
    macs: dict[int, int] = {}
    total = [0, 0]
    _add(graph, 1, macs, total)
    return Work(macs, total[0], counted_weights(graph).bytes, total[1])


def _add(graph: Graph, runs: int, macs: dict[int, int], total: list[int]) -> None:
    for node in graph.nodes:
        total[1] += runs
        total[0] += runs * sum(graph.tensor(o).bytes() or 0 for o in node.outputs if o)
        if (inner := held(graph, node)) is not None:
            _add(inner[0], runs * (1 if inner[1] is None else inner[1]), macs, total)
        elif found := node_macs(graph, node):
            dtype = graph.tensor(node.inputs[0]).dtype
            width = 2 if dtype in _HALF else 1 if dtype in _BYTE else 4
            macs[width] = macs.get(width, 0) + runs * found


def latency_ms(work: Work, device: Device) -> Latency:
    """Bounds and expectation of a run on a device; of a CPU on one thread, the floor on all cores.

    Faster rates never give a longer time, so that devices of one kind are in the order of their
    figures.
    """
    kind = _KINDS[device_kind(device)]
    gpu = device_kind(device) == "gpu"
    gb_s = device.mem_gb_s or kind.gb_s
    tflops = device.fp32_tflops or kind.tflops
    tensor = max(device.fp16_tensor_tflops or 0.0, tflops)
    rates = {4: tflops, 2: tensor, 1: 2 * tensor}
    best = {4: tensor, 2: tensor, 1: 2 * tensor}
    if not gpu:
        tflops, gb_s = _core_tflops(device) or kind.tflops, min(gb_s, kind.gb_s)
        rates = {4: tflops, 2: tflops, 1: 2 * tflops}
        best = {width: 4 // width * _MAX_CORE * (device.sms or 64) for width in (4, 2, 1)}
    told = 1.0 if not gpu or (device.fp32_tflops and device.mem_gb_s) else _UNTOLD

    def compute(of: Mapping[int, float]) -> float:
        return sum(2 * macs / (of[width] * 1e9) for width, macs in work.macs.items())

    def traffic(share: float, rate: float) -> float:
        return (2 * share * work.activation_bytes + work.weight_bytes) / (rate * 1e6)

    cached = (device.l2_mb or 0.0) * 2**20 if gpu else work.weight_bytes
    floor = max(
        compute(best) / told,
        max(work.weight_bytes - cached, 0.0) / (gb_s * told * 1e6),
        kind.shortest_us / 1e3,
    )
    launches = work.operators * kind.launch_us / 1e3
    expected = compute(rates) / _COMPUTE + traffic(_THROUGH_MEMORY, gb_s) / _BANDWIDTH + launches
    slow = work.operators * kind.slow_launch_us / 1e3
    ceiling = told * (compute(rates) + traffic(1.0, gb_s)) / _WORST + slow + 1.0
    expected = min(max(expected, floor), ceiling)
    return Latency(floor_ms=floor, expected_ms=expected, ceiling_ms=ceiling)


@lru_cache(maxsize=64)
def _core_tflops(device: Device) -> float | None:
    """Peak of one core of this machine's CPU by its clock and vector units; None of another."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    if not device.name or device.name not in text or not device.clock_mhz:
        return None
    wide = next((n for flag, n in _FLOP_A_CYCLE.items() if re.search(rf"\b{flag}\b", text)), None)
    return None if wide is None else wide * device.clock_mhz / 1e6


@lru_cache(maxsize=1024)
def device_kind(device: Device) -> str:
    """``"gpu"``, ``"cpu"`` or ``"mobile"``: what is not known for a CPU counts as a GPU."""
    if device.target == "cpu" or device.arch in ("x86_64", "aarch64", "arm64"):
        small = device.arch in ("aarch64", "arm64") and (device.mem_gb_s or 50.0) < 60.0
        return "mobile" if small and (device.sms or 8) <= 16 else "cpu"
    return "gpu"
