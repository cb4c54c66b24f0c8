"""The time that a launch is likely to take: a multiprocessor's resources, latencies and rounds.

Programs that share a multiprocessor share its matrix units, special functions, issue slots, shared
memory and path to L2; they overlap, so that the scarcest decides. One program alone is a chain: its
iterations wait for loads and barriers, and its warps cannot use everything at once. The slower of the
two sets the pace of a round of programs, the memory's bandwidth that of the launch. What a few constants
say of products holds for other kernels, because no constant is about one kind of kernel.

Hong and Kim, "An analytical model for a GPU architecture with memory-level and thread-level parallelism
awareness" (ISCA 2009) count the same quantities.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._roofline import LAUNCH_MS, Peaks

Array = Any  # a number, or an array of numpy or torch

CONSTANTS: dict[str, float] = {
    "products": 1.42,  # time of mma over its peak
    "async_products": 1.01,  # of wgmma and tcgen05
    "operands": 1.74,  # reads of shared memory by mma, over 128 bytes a clock
    "async_operands": 1.08,
    "serial": 0.402,  # more of an iteration's work where ptxas serialises wgmma
    "staged": 1.18,  # writes of loads to shared memory
    "special": 1.08,
    "issue": 1.76,
    "shuffles": 39.0,  # instructions of each warp in a reduction or scan
    "l2": 1.18,
    "memory": 1.11,  # of a launch that does not fit into L2
    "cached": 0.668,  # of one that does
    "runs": 0.109,  # more for each line that is read in quarters
    "alone": 0.598,  # work of a program alone, one resource after the other
    "warps": 0.607,  # power with which fewer than four warps are slower alone
    "more_warps": 0.267,  # power with which more than four overlap each other
    "load_us": 0.466,  # an iteration's wait for a load, over the loads ahead
    "wait_us": 0.148,  # and for barriers
    "unstaged_us": 0.453,  # more where nothing is loaded ahead
    "unpiped_us": 0.346,  # an iteration's wait where the loop is not pipelined
    "barrier_us": 0.145,  # of a reduction or scan
    "program_us": 1.41,
    "overlap": 3.54,  # power of the norm over resources: large where the scarcest decides
    "hiding": 3.21,  # power of the norm over work and waiting
    "rounds": 0.665,  # share of a last round that counts in full
    "atomics": 10.5,  # over the bandwidth of L2
    "spills": 0.486,  # writes and reads of spilled words over 128 bytes a clock
}
"""Fitted to recorded landscapes and winners without any of the H100 and GH200, see ``training.eye_time``:
``python benchmarks/train_eye.py --data FOLDER --constants recipes/nano-validation.yaml``."""


_FEW_SPILLS = 50.0
"""Registers beyond the limit of which as many words spill. What spills grows with the third power:
compilers avoid a few spills; of many, the same words are spilled again and again. Of the powers 1, 2
and 3 the third left the least errors on recorded Triton matmuls of an A100. Chained products of ``wgmma``
spill what is expected or less: five attentions compiled for sm_90 spill 14, 6, 14, 74 and 184 words where
45, 26, 45, 66 and 145 are expected. Recorded on an H100, the suite's take 1.2, 1.5 and 4.6 times as long
as without spills where 31, 71 and 106 are. Where ptxas gives up, 2,600 to 3,000 spill where 321 are."""
_SERIAL = 10.0
"""Registers beyond the limit from which ptxas serialises ``wgmma`` ("insufficient register resources for
the wgmma pipeline"), whether or not it spills: the suite's attentions with 20 to 45 beyond it take 1.1 to
2.2 times as long as expected without."""
_TURNED = 30.0
"""Time of turning what ``wgmma`` cannot read as it was staged, over that of staging it: element by
element, against banks. An estimate of ours from recorded fp32 products on the H100."""
INPUTS = (
    "resident", "rounds", "waves", "busy", "warps", "asynchronous", "fits", "trips", "ahead", "unstaged",
    "products", "special", "issue", "l2", "operands", "staged", "exchanged", "spilled", "memory",
    "scattered", "unpiped", "barriers", "shuffled", "atomics", "serial",
)  # fmt: skip
"""What ``time_us`` needs of a launch. Work is that of a program, in us at peak rates."""


def inputs_of(numbers: Mapping[str, float], peaks: Peaks) -> dict[str, float]:
    """What ``time_us`` needs of a launch.

    Args:
        numbers: As ``on_device`` gives them.
        peaks: Of the device.
    """
    clock = (peaks.device.clock_mhz or 1410.0) * 1.0  # per us
    programs = numbers["programs"]
    one = peaks.sms / programs * 1e3  # from ms of the launch to us of a program
    fits = numbers["unique_mb"] <= 0.5 * (peaks.device.l2_mb or 40.0)
    trips = max(numbers["trips"] * numbers["entries"], 1.0)
    excess = numbers["excess_registers"]
    again = (excess / _FEW_SPILLS) ** 2
    excess *= max(again, 1.0) if numbers["asynchronous"] and numbers["chained"] else again
    staged = numbers["stage_kb"] * 1024 * trips / 128 / clock
    converted = numbers["converted_kb"] * 1024 * trips / 128 / clock
    turned = _TURNED * staged * numbers["turned"]
    return {
        "resident": min(numbers["resident"], -(-programs // peaks.sms)),
        "rounds": float(np.ceil(numbers["waves"] - 1e-9)),
        "waves": max(numbers["waves"], 1.0),
        "busy": max(min(1.0, programs / peaks.sms), 0.05),
        "warps": numbers["warps"],
        "asynchronous": numbers["asynchronous"],
        "fits": float(fits),
        "trips": numbers["piped"],
        "ahead": max(numbers["stages"] - 1.0, 1.0),
        "unstaged": float(numbers["stages"] <= 1),
        "products": numbers["dot_ms"] * one,
        "special": numbers["special_ms"] * one,
        "issue": numbers["issue_ms"] * one,
        "l2": numbers["l2_ms"] * one,
        "operands": numbers["shared_ms"] * one,
        "staged": staged + converted,
        "exchanged": numbers["exchanges"] * 1e3 / 128 / clock + turned,
        "spilled": excess * 2 * numbers["warps"] * trips / clock,
        "memory": numbers["memory_ms"] * 1e3,
        "scattered": (128.0 / min(max(numbers["run_bytes"], 4.0), 128.0) - 1.0) / 3.0,
        "unpiped": numbers["unpiped"],
        "barriers": numbers["barriers"],
        "shuffled": numbers["barriers"] * numbers["warps"] / (4 * clock),
        "atomics": numbers["atomic_ms"] * 1e3,
        "serial": float(numbers["asynchronous"] and numbers["excess_registers"] > _SERIAL),
    }


def time_us(x: Mapping[str, Array], c: Mapping[str, Array], xp: Any = np) -> Array:
    """Microseconds of launches.

    Args:
        x: ``inputs_of`` one launch, or arrays of many.
        c: Constants as in ``CONSTANTS``.
        xp: ``numpy`` or ``torch``.
    """
    is_async = x["asynchronous"]
    products = x["products"] * (c["products"] * (1 - is_async) + c["async_products"] * is_async)
    operands = x["operands"] * (c["operands"] * (1 - is_async) + c["async_operands"] * is_async)
    shared = operands + c["staged"] * x["staged"] + x["exchanged"] + c["spills"] * x["spilled"]
    special = c["special"] * x["special"]
    issue = c["issue"] * x["issue"] + c["shuffles"] * x["shuffled"]
    runs = 1 + c["runs"] * x["scattered"]
    l2 = c["l2"] * x["l2"] * runs
    serial = 1 + c["serial"] * x["serial"]
    together = (
        serial * x["resident"] * _norm(c["overlap"], [products, shared, special, issue, l2], xp)
    )
    fourth = 4.0 / x["warps"]
    few = xp.maximum(fourth, fourth * 0 + 1.0) ** c["warps"]
    few = few * xp.minimum(fourth, fourth * 0 + 1.0) ** c["more_warps"]
    waiting = c["load_us"] / x["ahead"] + c["wait_us"] + c["unstaged_us"] * x["unstaged"]
    alone = serial * c["alone"] * (products + shared + special + issue) * few
    alone = alone + x["trips"] * waiting + x["unpiped"] * c["unpiped_us"]
    alone = alone + x["barriers"] * c["barrier_us"] + c["program_us"]
    rounds = c["rounds"] * x["rounds"] + (1 - c["rounds"]) * x["waves"]
    computing = rounds * _norm(c["hiding"], [together, alone], xp)
    bandwidth = c["cached"] * x["fits"] + c["memory"] * (1 - x["fits"])
    memory = x["memory"] * bandwidth * runs / x["busy"] ** 0.5
    atomics = c["atomics"] * x["atomics"]
    return _norm(c["hiding"], [computing, memory, atomics], xp) + LAUNCH_MS * 1e3


def expected_ms(numbers: Mapping[str, float], peaks: Peaks) -> float:
    """The likely time of a launch in ms; see the module."""
    return float(time_us(inputs_of(numbers, peaks), CONSTANTS)) / 1e3


def _norm(power: Array, parts: list[Array], xp: Any) -> Array:
    parts = [part + 1e-6 for part in parts]
    top = functools.reduce(xp.maximum, parts)
    return top * sum((part / top) ** power for part in parts) ** (1 / power)
