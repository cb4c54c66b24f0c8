"""What a kernel's facts mean on a device with so many warps and stages, as numbers for a model."""

from __future__ import annotations

import math

from autotune_rlm.types import Device

from ._products import (
    Family,
    fma_tile,
    is_chained,
    item_bytes,
    redundancy,
    tensor_memory_columns,
    turned_bytes,
    warps_of,
)
from ._registers import registers_per_thread
from ._roofline import LAUNCH_MS, Peaks, floor_ms
from ._shared import LEAST_COPIED, shared_bytes
from ._time import expected_ms
from ._types import Access, Dot, KernelFacts

_RESERVED_SHARED = 1024.0  # bytes of each program that CUDA keeps for itself
_ALLOCATED_REGISTERS = 8  # registers of a thread are given out in eights
_TURNED = 3.0  # a read, a write and another read of shared memory that nothing overlaps with
_LINE = 128.0  # bytes of a line of L2
_LATENCY_MS = 6e-4  # a read from memory, about 600 ns


def on_device(
    facts: KernelFacts, device: Device, *, num_warps: int = 4, num_stages: int = 3
) -> dict[str, float]:
    """Numbers that tell fast configurations from slow ones, whatever the kernel.

    Args:
        facts: What the kernel does.
        device: Where it runs.
        num_warps: Of a program.
        num_stages: Of pipelined loops.

    Returns:
        Finite numbers by name. Times are in ms for the whole launch at peak rates.

        ``registers`` of a thread, ``excess_registers`` that spill, ``shared_bytes`` of a program and
        ``shared_share`` of what a program may have, ``resident`` programs of a multiprocessor and the
        four limits ``by_shared``, ``by_registers``, ``by_threads``, ``by_programs``;
        ``occupancy``: share of resident threads.

        ``programs``, ``waves`` of resident programs, ``tail``: share of the last wave's time that is
        idle, ``busy``: share of multiprocessors with work, ``imbalance``, ``active``: share of loaded
        and stored elements that masks let through.

        ``expected_ms``: the likely time, see ``_time``. ``dot_ms``, ``float_ms``, ``special_ms``,
        ``issue_ms``, ``memory_ms`` (each byte once), ``l2_ms`` (every load), ``atomic_ms`` (atomics at
        the rate of L2), ``roofline_ms`` (the largest) and ``floor_ms``; ``wave_ms``: the same work in
        whole waves of resident programs; ``intensity``: operations of products per byte loaded;
        ``dot_over_memory``; ``bytes_in_flight`` of a multiprocessor over what hides the latency of
        memory.

        ``live_words``, ``index_words``, ``accumulator_words``: of a thread; ``tile_words``: elements
        of the largest tensor per thread; ``vector_bytes``: bytes that a thread reads at once,
        weighted by bytes; ``trips`` of the loop with most work and its ``entries`` per program,
        ``piped``: iterations of the longest loop whose loads are fetched ahead, ``unpiped``: those of
        all others that load, ``barriers``: reductions and scans
        that a program goes through, ``work_per_trip``: operations of
        products per thread and iteration; ``warp_rows``, ``warp_columns``: of the result tile per
        warp; ``dot_k``; ``warp_redundancy``: warps that compute the same rows, ``chained``: whether a
        product takes the result of another one; ``shared_ms``: reads of operands from shared memory
        by all warps, at 128 bytes a clock; ``turned``: whether
        ``wgmma`` needs an operand turned first; ``stage_kb``: loads of products in an iteration, and
        ``converted_kb``: what reads and writes shared memory again because it is converted;
        ``run_bytes``: bytes at neighbouring addresses of a load, up to a line of the cache;
        ``stages``, ``warps``: as given; ``exchanges``: reductions and scans per program in thousands of
        elements.
    """
    peaks = Peaks.of(device)
    family = peaks.family
    threads = num_warps * family.warp
    registers, excess = registers_per_thread(facts, family, num_warps=num_warps)
    shared = shared_bytes(facts, family, num_warps=num_warps, num_stages=num_stages)
    per_sm = (device.shared_kb_per_sm or 100.0) * 1024
    per_block = (device.max_shared_kb_per_block or 99.0) * 1024
    rounded = math.ceil(max(registers, 16) / _ALLOCATED_REGISTERS) * _ALLOCATED_REGISTERS
    limits = {
        "by_shared": per_sm / (shared + _RESERVED_SHARED)
        if family.vendor == "cuda"
        else per_sm / max(shared, 1.0),
        "by_registers": family.registers / (rounded * threads),
        "by_threads": family.threads / threads,
        "by_programs": float(family.programs),
    }
    columns = tensor_memory_columns(facts, family, num_warps=num_warps)
    if columns:
        limits["by_shared"] = min(limits["by_shared"], 512.0 / columns)
    resident = max(1.0, math.floor(min(limits.values()) + 1e-9))
    programs = float(facts.programs)
    slots = resident * peaks.sms
    waves = programs / slots
    tail = 1.0 - waves / math.ceil(waves)
    used_slots = min(1.0, programs / peaks.sms)
    again = [redundancy(facts, family, dot, num_warps) for dot in facts.dots]
    turned = any(turned_bytes(facts, family, dot, num_warps) for dot in facts.dots)
    times = _times(facts, peaks, threads, max(again, default=1.0))
    times["dot_ms"] *= _TURNED if turned else 1.0
    roofline = max(times.values()) + LAUNCH_MS
    # programs that share a multiprocessor share its rates: a launch ends with its busiest one
    most_on_one = (
        math.ceil(programs / peaks.sms) if programs <= slots else math.ceil(waves) * resident
    )
    stretched = most_on_one * peaks.sms / programs
    loaded = facts.moved_bytes("load")
    moved = facts.moved_bytes()
    in_flight = _in_flight(facts, num_stages) * resident
    needed = peaks.bytes_ms * _LATENCY_MS / peaks.sms
    main = max(facts.dots, key=lambda d: d.flops, default=None)
    rows, cols = _warp_tile(facts, family, main, num_warps) if main else (0.0, 0.0)
    loop = max(facts.loops, key=lambda x: x.trips * x.times, default=None)
    trips = loop.trips if loop else 1.0
    piped, unpiped = _iterations(facts)
    numbers = {
        "registers": registers,
        "excess_registers": excess,
        "shared_bytes": shared,
        "shared_share": shared / per_block,
        "resident": resident,
        **limits,
        "occupancy": min(1.0, resident * threads / family.threads),
        "programs": programs,
        "waves": waves,
        "tail": tail,
        "busy": used_slots,
        "imbalance": facts.imbalance,
        "active": _active(facts),
        **times,
        "roofline_ms": roofline,
        "floor_ms": floor_ms(facts, device),
        "wave_ms": (roofline - LAUNCH_MS) * stretched + LAUNCH_MS,
        "intensity": facts.dot_flops / max(loaded, 1.0),
        "dot_over_memory": times["dot_ms"] / max(times["memory_ms"], 1e-9),
        "bytes_in_flight": in_flight / needed,
        "live_words": max(facts.live_bytes - facts.accumulator_bytes, 0.0) / 4 / threads,
        "index_words": facts.live_index_bytes / 4 / threads,
        "accumulator_words": facts.accumulator_bytes / 4 / threads,
        "tile_words": facts.largest / threads,
        "vector_bytes": _vector_bytes(facts, threads),
        "trips": trips,
        "entries": loop.times if loop else 1.0,
        "piped": piped,
        "unpiped": unpiped,
        "barriers": sum(r.times for r in facts.reductions),
        "atomic_ms": facts.moved_bytes("atomic") * programs / peaks.l2_bytes_ms,
        "work_per_trip": facts.dot_flops / threads / max(sum(d.times for d in facts.dots), 1.0),
        "warp_rows": rows,
        "warp_columns": cols,
        "dot_k": float(main.k) if main else 0.0,
        "warp_redundancy": max(again, default=1.0),
        "chained": float(main is not None and is_chained(facts, main)),
        "shared_ms": _operand_bytes(facts, family, num_warps) * programs / peaks.shared_bytes_ms,
        "stage_kb": sum(a.tile_bytes for a in facts.accesses if a.feeds_dot and a.loop >= 0) / 1024,
        "converted_kb": _converted_bytes(facts) / 1024,
        "run_bytes": _run_bytes(facts),
        "turned": float(turned),
        "stages": float(num_stages),
        "warps": float(num_warps),
        "exchanges": sum(r.elements for r in facts.reductions) / 1e3,
        "moved_kb": moved / 1024,
        "unique_mb": facts.unique_bytes / 2**20,
        "reuse": moved * programs / max(facts.unique_bytes, 1.0),
        "asynchronous": float(any(family.is_async(d, num_warps) for d in facts.dots)),
        "operations": float(facts.operations),
        "threads": float(threads),
    }
    told = {k: float(min(max(v, -1e18), 1e18)) if v == v else 0.0 for k, v in numbers.items()}
    return {**told, "expected_ms": expected_ms(told, peaks)}


def _times(facts: KernelFacts, peaks: Peaks, threads: int, again: float) -> dict[str, float]:
    programs = facts.programs
    dot = again * sum(d.flops * programs / peaks.dot_flops_ms(d) for d in facts.dots)
    simple = again * (facts.float_ops + facts.conversions + facts.special_ops)
    simple += facts.int_ops * 0.5
    instructions = (simple + facts.moved + 2 * sum(r.elements for r in facts.reductions)) / 32
    vectors = sum(
        a.distinct * a.times * a.item_bytes / max(_vector(a, threads), 1.0) for a in facts.accesses
    )
    return {
        "dot_ms": dot,
        "float_ms": again * facts.float_ops * programs / (peaks.flops_ms / 2),
        "special_ms": again * facts.special_ops * programs / peaks.special_ms,
        "issue_ms": (instructions + vectors / 32) * programs / peaks.instructions_ms,
        "memory_ms": facts.unique_bytes / peaks.bytes_ms,
        "l2_ms": facts.moved_bytes() * programs / peaks.l2_bytes_ms,
    }


def _operand_bytes(facts: KernelFacts, family: Family, num_warps: int) -> float:
    """Bytes of operands that a program reads from shared memory: each warp reads what it needs.

    A first operand that is computed lies in the registers of the warps that need it, unless several
    warps share its rows.
    """
    total = 0.0
    for dot in facts.dots:
        along_rows, along_columns = warps_of(facts, family, dot, num_warps)
        if family.is_fma(dot):  # each thread reads its own; two of them the same words at once
            each = sum(fma_tile(dot, family, num_warps)) * item_bytes(dot.a)
            total += each * dot.k * dot.times * dot.batch * num_warps * family.warp / 2
            continue
        if family.is_async(dot, num_warps):  # an instruction reads 64 rows and all columns
            pieces = max(dot.m / 64, along_rows / 4)
            rows, cols = pieces * 64.0 * along_columns, pieces * dot.n
        else:
            rows = max(16.0 * along_rows, dot.m) * along_columns
            cols = max(8.0 * along_columns, dot.n) * along_rows
        if dot.a_from not in ("load", "loaded") and along_columns == 1:
            rows = 0.0
        size = rows * item_bytes(dot.a) + cols * item_bytes(dot.b)
        total += size * dot.k * dot.times * dot.batch
    return total


def _vector(a: Access, threads: int) -> float:
    """Bytes of an access that a thread makes at once: at most 16, in one run, and its own share."""
    return float(min(16, a.width, max(1, a.distinct // threads) * a.item_bytes))


def _vector_bytes(facts: KernelFacts, threads: int) -> float:
    total = sum(a.bytes for a in facts.accesses)
    if total <= 0:
        return 0.0
    return sum(a.bytes * _vector(a, threads) for a in facts.accesses) / total


def _run_bytes(facts: KernelFacts) -> float:
    """Neighbouring bytes of loads, at most a line of L2; the mean of their inverses by bytes."""
    loads = [a for a in facts.accesses if a.kind == "load" and a.bytes > 0]
    runs = [min(_LINE, float(a.run * a.item_bytes)) for a in loads]
    total = sum(a.bytes for a in loads)
    return (
        total / sum(a.bytes / run for a, run in zip(loads, runs, strict=True)) if loads else _LINE
    )


def _converted_bytes(facts: KernelFacts) -> float:
    """Bytes of an iteration that are read from shared memory and written back converted."""
    total = 0.0
    for dot in facts.dots:
        if dot.loop >= 0 and dot.b_from == "loaded":
            loaded = [
                a.item_bytes
                for a in facts.accesses
                if a.feeds_dot == "loaded" and a.loop == dot.loop and a.shape == (dot.k, dot.n)
            ]
            total += dot.k * dot.n * (item_bytes(dot.b) + min(loaded, default=0))
    return total


def _in_flight(facts: KernelFacts, num_stages: int) -> float:
    """Bytes of loads of a program that are under way at once."""
    by_loop: dict[int, float] = {}
    for a in facts.accesses:
        if a.kind == "load":
            by_loop[a.loop] = by_loop.get(a.loop, 0.0) + a.distinct * a.item_bytes
    best = 0.0
    for loop, size in by_loop.items():
        own = facts.loops[loop].stages if 0 <= loop < len(facts.loops) else 0
        ahead = max((own or num_stages) - 1, 1) if _is_piped(facts, loop) else 1
        best = max(best, size * ahead)
    return best


def _is_piped(facts: KernelFacts, loop: int) -> bool:
    """Whether Triton's pipeliner takes a loop: it has products, or sets several stages itself.

    What is too narrow to be copied asynchronously is waited for all the same.
    """
    if not 0 <= loop < len(facts.loops):
        return False
    own = facts.loops[loop].stages
    loads = [a for a in facts.accesses if a.loop == loop and a.feeds_dot and len(a.shape) > 1]
    if any(a.width < LEAST_COPIED and not a.descriptor for a in loads):
        return False
    return own > 1 or (own == 0 and any(d.loop == loop for d in facts.dots))


def _iterations(facts: KernelFacts) -> tuple[float, float]:
    """Iterations of a program in the longest pipelined loop, and in all others that load."""
    waits = {a.loop for a in facts.accesses if a.kind == "load"} | {d.loop for d in facts.dots}
    every = {i: facts.loops[i].trips * facts.loops[i].times for i in waits if i >= 0}
    piped = [n for i, n in every.items() if _is_piped(facts, i)]
    return max(piped, default=0.0), sum(every.values()) - sum(piped)


def _active(facts: KernelFacts) -> float:
    whole = sum(a.distinct * a.item_bytes * a.times for a in facts.accesses)
    return sum(a.bytes for a in facts.accesses) / whole if whole > 0 else 1.0


def _warp_tile(facts: KernelFacts, family: Family, dot: Dot, num_warps: int) -> tuple[float, float]:
    """Rows and columns of a result tile that a warp computes."""
    along_rows, along_columns = warps_of(facts, family, dot, num_warps)
    return max(16.0, dot.m / along_rows), max(8.0, dot.n / along_columns)
