"""How long a call takes: the wall clock, and adaptive sampling on top of any timer.

What is timed is ``Call.run`` alone. ``setup`` and ``teardown`` (hooks, resets, restored values)
happen around every run outside of the timed region, and the caches are flushed before it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from autotune_rlm._checks import check_number
from autotune_rlm.measure.interpreter import interpreting
from autotune_rlm.types import Measurement, Status

from .intervals import Interval, RaceResult, StoppingRule, is_hopeless, median_interval, race

_MAX_WARM_UP = 8.0
_SETTLED = 0.01
_MAX_AT_ONCE = 1000
_MAX_ROUNDS = 100


@dataclass(frozen=True)
class Call:
    """What is timed, and what has to happen around each run.

    Attributes:
        run: Timed.
        setup: Before each run, not timed; None for nothing.
        teardown: After each run, not timed; takes the exception that ``run`` raised, or None.
    """

    run: Callable[[], Any]
    setup: Callable[[], Any] | None = None
    teardown: Callable[[Exception | None], Any] | None = None

    def __call__(self) -> None:
        """Everything once."""
        self.around(self.run)

    def around(self, run: Callable[[], Any]) -> None:
        """``run`` in place of this call's own, between its setup and teardown."""
        if self.setup is not None:
            self.setup()
        try:
            run()
        except Exception as error:
            if self.teardown is not None:
                self.teardown(error)
            raise
        if self.teardown is not None:
            self.teardown(None)


class Timer(Protocol):
    """Runs a call n times and gives n times in milliseconds, once all of them are over."""

    name: str

    def sample(self, call: Call, n: int) -> list[float]:
        """Milliseconds of ``n`` runs; raises what the runs raise, also late errors of a device."""
        ...


@runtime_checkable
class TellsLaunchBound(Protocol):
    """A timer that knows whether the times of its last ``sample`` hold time on the CPU."""

    launch_bound: bool


class WallTimer:
    """The wall clock: for CPUs and Triton's interpreter.

    Args:
        synchronize: Waits for the device, where the call only starts something on one.
    """

    name = "wall"

    def __init__(self, synchronize: Callable[[], Any] | None = None) -> None:
        self._synchronize = synchronize or (lambda: None)

    def sample(self, call: Call, n: int) -> list[float]:
        """See ``Timer``."""
        times: list[float] = []

        def timed() -> None:
            self._synchronize()
            begin = time.perf_counter()
            call.run()
            self._synchronize()
            times.append((time.perf_counter() - begin) * 1e3)

        for _ in range(n):
            call.around(timed)
        return times


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The samples of one call.

    Attributes:
        samples: Milliseconds.
        interval: Of their median.
        dropped: Whether sampling ended early because the call is hopelessly slow.
        launch_bound: Whether the samples hold time on the CPU: the device waited for the launch.
        timer: The timer's name.
        cost_s: Wall-clock seconds of warm-up and samples.
    """

    samples: tuple[float, ...]
    interval: Interval
    dropped: bool = False
    launch_bound: bool = False
    timer: str = ""
    cost_s: float = 0.0

    def to_measurement(self, **fields: Any) -> Measurement:
        """The measurement, with ``fields`` such as ``compile_s``, ``facts`` and ``state``."""
        state = {"timer": self.timer, "confidence": round(self.interval.confidence, 4)}
        if self.dropped:
            state["dropped"] = True
        if self.launch_bound:
            state["launch_bound"] = True
        state.update(fields.pop("state", {}))
        return Measurement(
            status=Status.OK,
            value=self.interval.median,
            low=self.interval.low,
            high=self.interval.high,
            samples=self.samples,
            cost_s=fields.pop("cost_s", self.cost_s),
            state=state,
            **fields,
        )


def measure_call(
    call: Call,
    *,
    timer: Timer,
    rule: StoppingRule | None = None,
    budget_s: float = 0.1,
    warmup: int = 1,
    best_ms: float | None = None,
    drop_factor: float = 3.0,
) -> Timing:
    """Time ``call`` until the interval of its median is narrow, or it is hopeless, or time is up.

    Args:
        call: What to time.
        timer: How.
        rule: When there are enough samples; by default an interval of 1 % at 95 %, 8 to 1000
        samples.
        budget_s: Seconds for the samples; at least one is taken whatever it costs.
        warmup: Runs before the first sample.
        best_ms: Best median so far. A call that is surely slower than ``drop_factor`` times this is
            not sampled further.
        drop_factor: See ``best_ms``.

    Raises:
        ValueError: A setting is out of range.
        Exception: What the call raises.
    """
    rule = rule or StoppingRule(min_samples=8)
    check_number("budget_s", budget_s, above=0)
    check_number("warmup", warmup, least=0, whole=True)
    begin = time.perf_counter()
    if warmup:
        timer.sample(call, warmup)
    started = time.perf_counter()
    samples = list(timer.sample(call, 1))
    each_s = max(time.perf_counter() - started, 1e-7)
    look, dropped = 0, False
    while not rule.enough(samples):
        left = int((budget_s - (time.perf_counter() - started)) / each_s)
        if left < 1:
            break
        target = rule.min_samples if len(samples) < rule.min_samples else len(samples) * 3 // 2 + 1
        size = min(target - len(samples), left, rule.max_samples - len(samples))
        batch = time.perf_counter()
        samples += timer.sample(call, size)
        each_s = max((time.perf_counter() - batch) / size, 1e-7)
        look += 1
        if best_ms is not None and is_hopeless(samples, best_ms, factor=drop_factor, look=look):
            dropped = True
            break
    return Timing(
        samples=tuple(samples),
        interval=median_interval(samples, confidence=rule.confidence),
        dropped=dropped,
        launch_bound=isinstance(timer, TellsLaunchBound) and timer.launch_bound,
        timer=timer.name,
        cost_s=time.perf_counter() - begin,
    )


def warm_up(call: Call, *, timer: Timer, seconds: float) -> None:
    """Run ``call`` until the device's clocks have risen, with ``timer`` as when it is timed.

    A device that stood idle starts at a fraction of its clock and takes tens of milliseconds of work
    to reach it, whatever number of runs these are. So runs count by the seconds that they take: at
    least ``seconds``, and up to ``_MAX_WARM_UP`` times as long while they still become faster.

    Raises:
        Exception: What the call raises.
    """
    started = time.perf_counter()
    size, before = 1, math.inf
    for _ in range(_MAX_ROUNDS):
        begin = time.perf_counter()
        now = statistics.median(timer.sample(call, size))
        end = time.perf_counter()
        settled = now > before * (1 - _SETTLED)
        if end - started >= seconds * (1 if settled else _MAX_WARM_UP):
            return
        each_s = max((end - begin) / size, 1e-7)
        size, before = max(1, min(int(seconds / 4 / each_s), _MAX_AT_ONCE)), now


def race_calls(
    calls: Sequence[Call], *, timer: Timer, budget_s: float = 1.0, **options: Any
) -> tuple[list[Timing], RaceResult]:
    """Time finalists in turn until one is the fastest: see ``statistics.race`` for ``options``.

    Returns:
        A ``Timing`` per call, from these runs only, and how the race ended.

    Raises:
        ValueError: No calls.
        Exception: What a call raises.
    """
    begin = time.perf_counter()
    for call in calls:
        timer.sample(call, 1)

    def sample(index: int) -> float:
        if time.perf_counter() - begin > budget_s and all(result):
            raise StopIteration
        value = timer.sample(calls[index], 1)[0]
        result[index].append(value)
        return value

    result: list[list[float]] = [[] for _ in calls]
    raced = race(len(calls), sample, **options)
    cost_s = (time.perf_counter() - begin) / max(len(calls), 1)
    timings = []
    for index, call in enumerate(calls):
        samples = raced.samples[index] or timer.sample(call, 1)
        interval = median_interval(samples)
        timings.append(
            Timing(samples=tuple(samples), interval=interval, timer=timer.name, cost_s=cost_s)
        )
    return timings, raced


def default_timer(device: Any = None) -> Timer:
    """Events where there is an accelerator and kernels are compiled for it, else the wall clock.

    Args:
        device: torch device, or None for the current one.
    """
    import torch

    if interpreting():
        return WallTimer()
    if device is not None and torch.device(device).type == "cpu":
        return WallTimer()
    from .device_timers import EventTimer, accelerator

    return EventTimer(device) if accelerator() is not None else WallTimer()
