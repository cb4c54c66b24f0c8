"""Times the candidates of one workload one after the other, and keeps what they share.

A ``Job`` is one candidate made runnable; a ``Bench`` turns jobs into measurements: correctness
first, then time; identical binaries once; the clock warm and watched for drift; what may win timed in
turn with what it has to beat; every failure a status.
"""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from autotune_rlm._checks import check_number
from autotune_rlm.measure.detect import device_state
from autotune_rlm.measure.errors import Fault, Owner, Stage, classify, failed, owner_of
from autotune_rlm.measure.statistics import StoppingRule, median_interval
from autotune_rlm.measure.statistics.timing import (
    Call,
    Timer,
    default_timer,
    measure_call,
    race_calls,
    warm_up,
)
from autotune_rlm.measure.workers.device_lock import device_lock
from autotune_rlm.types import Measurement, Status

from .compile import CompileResult, CompileSpec
from .correctness import disagreement, snapshot

_PAUSES_S = (0.25, 0.75, 2.0)
"""Waited in all, per bench, for a memory that is full or a device that is busy for a moment."""

Outputs = Mapping[str, Any]
_MIN_ROUNDS = 6
_REACH = 1.05  # a drift of the clock may hide so much
_RACE_S = 1.0  # for a new best against the default, which decides what a search gives
_IDLE_S = 0.05  # a device that stood idle for longer is warmed up again


@dataclass(frozen=True)
class Job:
    """One candidate, ready to run.

    Attributes:
        call: Launches it.
        outputs: Gives the tensors that it wrote, by name; None where nothing is compared.
        prepare: Brings the outputs into their state before a launch, so that what an earlier
            candidate wrote cannot pass for this one's; run before the launch whose outputs are
            compared.
        spec: Gives what to compile ahead of the launch; None where it compiles itself.
        grid: Launch grid; equal binaries on equal grids take equal time. None where unknown.
    """

    call: Call
    outputs: Callable[[], Outputs] | None = None
    prepare: Callable[[], None] | None = None
    spec: Callable[[], CompileSpec | None] | None = None
    grid: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """How the candidates of a workload are timed.

    Attributes:
        budget_s: Seconds of sampling per candidate.
        relative: Wanted half width of the median's interval.
        confidence: Of that interval.
        max_samples: Samples at most.
        drop_factor: A candidate surely slower than this many times the best is not sampled further.
        rtol: Relative tolerance of outputs; None for the dtype's.
        atol: Absolute tolerance; None for one relative to the size of the expected values.
        warm_s: Seconds of work before the first sample counts, where the device stood idle; its clocks
            rise that long. None where the timer warms up and repeats by itself, as a ``do_bench`` does.
        drift_every_s: Seconds between two timings of the anchor (the first candidate that worked).
        drift_tolerance: Relative change of the anchor's time above which measurements are flagged.
    """

    budget_s: float = 0.1
    relative: float = 0.01
    confidence: float = 0.95
    max_samples: int = 1000
    drop_factor: float = 3.0
    rtol: float | None = None
    atol: float | None = None
    warm_s: float | None = 0.05
    drift_every_s: float = 10.0
    drift_tolerance: float = 0.05

    def __post_init__(self) -> None:
        check_number("budget_s", self.budget_s, above=0)
        check_number("drop_factor", self.drop_factor, least=1)
        check_number("warm_s", self.warm_s, least=0, none=True)
        for name in ("rtol", "atol"):
            check_number(name, getattr(self, name), least=0, none=True)
        self.rule()

    def rule(self) -> StoppingRule:
        """The stopping rule of the samples."""
        return StoppingRule(
            relative=self.relative,
            confidence=self.confidence,
            min_samples=min(8, self.max_samples),
            max_samples=self.max_samples,
        )


@dataclass
class Busy:
    """Until when the device worked, by ``time.perf_counter``; its benches that take turns share it."""

    until: float = -math.inf


class Bench:
    """Measures the jobs of one workload on this process's device.

    Args:
        settings: How.
        timer: By default events on an accelerator, else the wall clock.
        expected: Right outputs by name, or a function that gives them; None to take those of the
            first candidate that works (let it be the default configuration).
        state: Gives the device's state for each measurement; None for ``detect.device_state``.
        alone: Gives what is held while a candidate is on the device; by default the lock that all
            processes of this user share for it.
        busy: When the device last worked; for benches that take turns. By default this bench's own.
        stage: What an exception that nothing else is known of belongs to; see ``errors.classify``.

    Attributes:
        poison: Why this process can measure nothing any more; empty while it can.
        first_error: The first exception that a candidate raised here.
        fatal: The exception that belongs to no candidate and ends the search: the caller's own, or one
            after which the device cannot be used; None as long as there is none.
        best_ms: Best median so far.
    """

    def __init__(
        self,
        settings: BenchSettings | None = None,
        *,
        timer: Timer | None = None,
        expected: Outputs | Callable[[], Outputs | None] | None = None,
        state: Callable[[], Mapping[str, Any]] | None = None,
        alone: Callable[[], AbstractContextManager[Any]] = device_lock,
        busy: Busy | None = None,
        stage: Stage = "run",
    ) -> None:
        self.first_error: Exception | None = None
        self.fatal: Exception | None = None
        self.poison = ""
        self.best_ms: float | None = None
        self.settings = settings or BenchSettings()
        self.timer = timer or default_timer()
        self._stage, self._expected, self._state, self._alone = stage, expected, state, alone
        self._pauses = iter(_PAUSES_S)
        self._rule = self.settings.rule()
        self._by_binary: dict[Any, Measurement] = {}
        self._best: tuple[Job, Measurement] | None = None
        self._default: tuple[Job, Measurement] | None = None
        self._anchored = 0.0
        self._busy = busy or Busy()
        self._drift: float | None = None

    @property
    def ended(self) -> bool:
        """Whether this bench can measure nothing any more."""
        return self.fatal is not None or bool(self.poison)

    def measure(self, job: Callable[[], Job], compiled: CompileResult | None = None) -> Measurement:
        """Run and time one candidate; never raises for what it does.

        Args:
            job: Makes the job.
            compiled: What compiling it ahead gave, if it was.
        """
        begin = time.perf_counter()
        compiled = compiled or CompileResult(status=Status.OK)
        facts, compile_s = dict(compiled.facts), compiled.compile_s
        if self.poison:
            fault = Fault(Status.SKIPPED, f"the device failed before: {self.poison}")
        elif not compiled.ok:
            owner = owner_of(compiled.status) or Owner.MACHINE
            fault = Fault(compiled.status, compiled.reason, owner=owner)
        else:
            try:
                return self._patiently(job, compiled, begin)
            except Exception as error:
                fault = classify(error, stage=self._stage)
                self.poison = fault.reason if fault.poisoned else ""
                self.first_error = self.first_error or error
                if fault.owner is Owner.CALLER or (fault.poisoned and fault.owner is Owner.MACHINE):
                    self.fatal = error
        return failed(
            fault,
            compile_s=compile_s,
            cost_s=time.perf_counter() - begin + (compile_s or 0.0),
            facts=facts,
            state={} if self.poison else self._device_state(),
        )

    def adopt(self, job: Job) -> None:
        """Run ``job``, which worked before, and take its outputs for the right ones if none are given.

        Raises:
            Exception: What the job raises.
        """
        self._check(job)

    def _patiently(
        self, job: Callable[[], Job], compiled: CompileResult, begin: float
    ) -> Measurement:
        """Measure; where the machine has no room or time at the moment, wait and measure again."""
        while True:
            try:
                made = job()
                with self._alone():
                    return self._measured(made, compiled, begin)
            except Exception as error:
                passes = classify(error, stage=self._stage).passes
                pause_s = next(self._pauses, None) if passes else None
                if pause_s is None:
                    raise
            _free_memory()
            time.sleep(pause_s)

    def _measured(self, job: Job, compiled: CompileResult, begin: float) -> Measurement:
        identity = _identity(job, compiled)
        twin = self._by_binary.get(identity) if identity else None
        if twin is not None:
            cost_s = time.perf_counter() - begin + (compiled.compile_s or 0.0)
            state = {**twin.state, "same_binary": True}
            return replace(twin, compile_s=compiled.compile_s, cost_s=cost_s, state=state)
        self._watch_drift()
        wrong = self._check(job)
        if wrong:
            measurement = failed(Fault(Status.WRONG_RESULT, wrong))
        else:
            self._warm_up(job)
            measurement = measure_call(
                job.call,
                timer=self.timer,
                rule=self._rule,
                budget_s=self.settings.budget_s,
                warmup=0,
                best_ms=self.best_ms,
                drop_factor=self.settings.drop_factor,
            ).to_measurement()
            measurement = self._in_turn(job, measurement)
            self._busy.until = time.perf_counter()
            assert measurement.value is not None
            if self._best is None or measurement.value < (self._best[1].value or 0.0):
                self._best = (job, measurement)
            self.best_ms = min(self.best_ms or measurement.value, measurement.value)
            if self._default is None:
                self._default, self._anchored = (job, measurement), time.monotonic()
        drift = {} if self._drift is None else {"drift": round(self._drift, 4)}
        measurement = replace(
            measurement,
            compile_s=compiled.compile_s,
            cost_s=time.perf_counter() - begin + (compiled.compile_s or 0.0),
            facts=dict(compiled.facts),
            state={**self._device_state(), **measurement.state, **drift},
        )
        if identity:
            self._by_binary[identity] = measurement
        return measurement

    @property
    def has_default(self) -> bool:
        """Whether a candidate has worked, which the others are compared with."""
        return self._default is not None

    def _warm_up(self, job: Job) -> None:
        """Run until the clocks are up where the device stood idle, else once unless that is done."""
        warm_s = self.settings.warm_s
        if warm_s is None:
            return
        if time.perf_counter() - self._busy.until > _IDLE_S:
            warm_up(job.call, timer=self.timer, seconds=warm_s)
        elif job.outputs is None:
            self.timer.sample(job.call, 1)

    def _in_turn(self, job: Job, alone: Measurement) -> Measurement:
        """Time what may be the new best in turn with the best, or with the default if clearly faster.

        The two meet the same clock and the same neighbours then, so that a difference is theirs. The
        value is the other's, times the median of the ratios: whatever was timed when the clock was
        another one, the best and the default are ordered as they are when they take turns.
        """
        if self._best is None or self._default is None or self.settings.warm_s is None:
            return alone
        name, (other, rival), seconds = "best", self._best, self.settings.budget_s
        (low, high), (best_low, best_high) = _ends(alone), _ends(rival)
        if low > _REACH * best_high:
            return alone
        if best_low > _REACH * high:
            name, (other, rival), seconds = "default", self._default, _RACE_S
        assert alone.value is not None
        assert rival.value is not None
        if _MIN_ROUNDS * (alone.value + rival.value) / 1e3 > seconds:
            return alone
        (_, raced) = race_calls([other.call, job.call], timer=self.timer, budget_s=seconds)
        pairs = zip(raced.samples[1], raced.samples[0], strict=False)
        samples = [rival.value * ours / theirs for ours, theirs in pairs if theirs > 0]
        if len(samples) < _MIN_ROUNDS:
            return alone
        interval = median_interval(samples, confidence=self.settings.confidence)
        state = {f"beside_{name}": True, "confidence": round(interval.confidence, 4)}
        return replace(
            alone,
            value=interval.median,
            low=interval.low,
            high=interval.high,
            samples=tuple(samples),
            state={**alone.state, **state},
        )

    def _check(self, job: Job) -> str | None:
        """Run once and compare; one line where the outputs are wrong."""
        if job.outputs is None:
            return None
        seen: dict[str, Any] = {}

        def run() -> None:
            job.call.run()
            seen.update(snapshot(job.outputs()))  # type: ignore[misc]

        if job.prepare is not None:
            job.prepare()
        job.call.around(run)
        if callable(self._expected):
            self._expected = self._expected()
        if self._expected is None:
            self._expected = seen
            return None
        settings = self.settings
        return disagreement(seen, self._expected, rtol=settings.rtol, atol=settings.atol)

    def _watch_drift(self) -> None:
        seconds = time.monotonic() - self._anchored
        if self._default is None or seconds < self.settings.drift_every_s:
            return
        job, before = self._default[0], self._default[1].value or 0.0
        self._warm_up(job)
        budget_s = self.settings.budget_s / 2
        now = measure_call(job.call, timer=self.timer, rule=self._rule, budget_s=budget_s, warmup=0)
        ratio = now.interval.median / before if before else 1.0
        significant = not now.interval.low <= before <= now.interval.high
        changed = significant and abs(ratio - 1) > self.settings.drift_tolerance
        self._drift = ratio if changed else None
        self._anchored, self._busy.until = time.monotonic(), time.perf_counter()

    def _device_state(self) -> dict[str, Any]:
        return device_state() if self._state is None else dict(self._state())


def _ends(measurement: Measurement) -> tuple[float, float]:
    value = measurement.value or 0.0
    low, high = measurement.low, measurement.high
    return (value if low is None else low), (value if high is None else high)


def _free_memory() -> None:
    """Give back what this process only keeps for later."""
    gc.collect()
    torch = sys.modules.get("torch")
    empty = getattr(getattr(torch, "accelerator", None), "empty_cache", None)
    with contextlib.suppress(Exception):  # also where there is no accelerator
        (empty or torch.cuda.empty_cache)()  # type: ignore[union-attr]


def _identity(job: Job, compiled: CompileResult) -> Any:
    binary = compiled.facts.get("binary_hash")
    if binary is None or job.grid is None:
        return None
    return binary, job.grid, compiled.facts.get("shared_bytes"), compiled.facts.get("num_warps")
