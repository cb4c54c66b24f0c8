"""How one launch is timed: by the user's benchmark, the device's events, or the wall clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from triton import knobs
from triton.runtime import driver

from autotune_rlm.measure.detect import device_state
from autotune_rlm.measure.timing import Call, EventTimer, Timer, WallTimer, measure_call
from autotune_rlm.types import Measurement, Status

from ._device import has_accelerator

__all__ = ["Bench", "bench_for"]

Bench = Callable[[Call, "float | None"], Measurement]
"""Times a call; the second argument is the best median so far in milliseconds, or None."""

_QUANTILES = (0.5, 0.2, 0.8)
_DEVICE_BUDGET_S = 0.1
_INTERPRETER_BUDGET_S = 0.3


def bench_for(do_bench: Callable[..., Any] | None) -> Bench:
    """How launches are timed here.

    Args:
        do_bench: The user's ``do_bench(call, quantiles)``, which then also times the hooks, as in
            Triton; None for this package's own timing, which does not.
    """
    if do_bench is not None:
        return _given(do_bench)
    if knobs.runtime.interpret:
        return _own(WallTimer(), _INTERPRETER_BUDGET_S)
    if has_accelerator():
        return _own(EventTimer(), _DEVICE_BUDGET_S)
    return _given(driver.active.get_benchmarker())


def _own(timer: Timer, budget_s: float) -> Bench:
    def bench(call: Call, best_ms: float | None) -> Measurement:
        timing = measure_call(call, timer=timer, budget_s=budget_s, best_ms=best_ms)
        return timing.to_measurement(state=device_state())

    return bench


def _given(do_bench: Callable[..., Any]) -> Bench:
    def bench(call: Call, best_ms: float | None) -> Measurement:
        told = do_bench(call, quantiles=_QUANTILES)
        times = [float(t) for t in told] if isinstance(told, Sequence) else [float(told)]
        if not math.isfinite(times[0]):
            reason = f"the benchmark gave {times[0]} ms"
            return Measurement(status=Status.RUNTIME_ERROR, reason=reason)
        low, high = (min(times), max(times)) if len(times) > 1 else (None, None)
        return Measurement(
            status=Status.OK,
            value=times[0],
            low=low,
            high=high,
            samples=(times[0],),
            state={"timer": "do_bench", "interval": "20 to 80 % of the runs"},
        )

    return bench
