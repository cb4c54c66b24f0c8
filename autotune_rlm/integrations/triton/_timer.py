"""How launches are timed here: by the user's benchmark, the device's events, or the wall clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from triton import knobs
from triton.runtime import driver

from autotune_rlm.measure.statistics.device_timers import EventTimer
from autotune_rlm.measure.statistics.timing import Call, Timer, WallTimer
from autotune_rlm.measure.triton.job import BenchSettings

from .device import has_accelerator

_INTERPRETER_BUDGET_S = 0.15


def timing_for(do_bench: Callable[..., Any] | None) -> tuple[Timer, BenchSettings]:
    """The timer and its settings; a user's ``do_bench`` also times the hooks, as in Triton."""
    if do_bench is None and knobs.runtime.interpret:
        return WallTimer(), BenchSettings(budget_s=_INTERPRETER_BUDGET_S, warm_s=0.0)
    if do_bench is None and has_accelerator():
        return EventTimer(), BenchSettings()
    timer = BenchmarkTimer(do_bench or driver.active.get_benchmarker())
    return timer, BenchSettings(max_samples=1, warm_s=None)


class RejectedError(RuntimeError):
    """The user's benchmark gave no finite time, by which it turns a configuration down."""


class BenchmarkTimer:
    """A ``Timer`` that asks a ``do_bench(call, quantiles)`` for its median, in milliseconds."""

    name = "do_bench"

    def __init__(self, do_bench: Callable[..., Any]) -> None:
        self._do_bench = do_bench

    def sample(self, call: Call, n: int) -> list[float]:
        """``n`` medians; raises RejectedError where one is not finite."""
        return [self._median(call) for _ in range(n)]

    def _median(self, call: Call) -> float:
        told = self._do_bench(call, quantiles=(0.5, 0.2, 0.8))
        median = float(told[0] if isinstance(told, Sequence) else told)
        if not math.isfinite(median):
            raise RejectedError(f"the benchmark gave {median} ms")
        return median
