"""Times the candidates of one workload one after the other, and keeps what they share.

A ``Job`` is one candidate made runnable; a ``Bench`` turns jobs into measurements: correctness
first, then time; identical binaries once; the clock watched for drift; every failure a status.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..types import Measurement, Status
from .compile import CompileResult, CompileSpec
from .correctness import disagreement, snapshot
from .errors import Fault, classify
from .statistics import StoppingRule, median_interval
from .timing import Call, Timer, default_timer, measure_call, race_calls

__all__ = ["Bench", "BenchSettings", "Job"]

Outputs = Mapping[str, Any]
_FEWEST_ROUNDS = 6
_REACH = 1.05  # a drift of the clock may hide so much


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
    drift_every_s: float = 10.0
    drift_tolerance: float = 0.05

    def rule(self) -> StoppingRule:
        """The stopping rule of the samples."""
        return StoppingRule(
            relative=self.relative,
            confidence=self.confidence,
            min_samples=min(8, self.max_samples),
            max_samples=self.max_samples,
        )


class Bench:
    """Measures the jobs of one workload on this process's device.

    Args:
        settings: How.
        timer: By default events on an accelerator, else the wall clock.
        expected: Right outputs by name, or a function that gives them; None to take those of the
            first candidate that works (let it be the default configuration).
        state: Gives the device's state for each measurement; None for ``detect.device_state``.

    Attributes:
        poison: Why this process can measure nothing any more; empty while it can.
        best_ms: Best median so far.
    """

    def __init__(
        self,
        settings: BenchSettings | None = None,
        *,
        timer: Timer | None = None,
        expected: Outputs | Callable[[], Outputs] | None = None,
        state: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self.settings = settings or BenchSettings()
        self.timer = timer or default_timer()
        self.poison = ""
        self.best_ms: float | None = None
        self._rule = self.settings.rule()
        self._expected = expected
        self._state = state
        self._by_binary: dict[Any, Measurement] = {}
        self._best: tuple[Job, Measurement] | None = None
        self._anchor: tuple[Job, float] | None = None
        self._anchored = 0.0
        self._drift: float | None = None

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
            fault = Fault(compiled.status, compiled.reason)
        else:
            try:
                return self._measured(job(), compiled, begin)
            except Exception as error:
                fault = classify(error, stage="run")
                self.poison = fault.reason if fault.poisoned else ""
        return Measurement(
            status=fault.status,
            reason=fault.reason,
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
            measurement = Measurement(status=Status.WRONG_RESULT, reason=wrong)
        else:
            measurement = measure_call(
                job.call,
                timer=self.timer,
                rule=self._rule,
                budget_s=self.settings.budget_s,
                warmup=0 if job.outputs or getattr(self.timer, "warms_up", False) else 1,
                best_ms=self.best_ms,
                drop_factor=self.settings.drop_factor,
            ).to_measurement()
            measurement = self._beside_best(job, measurement)
            assert measurement.value is not None
            if self._best is None or measurement.value < (self._best[1].value or 0.0):
                self._best = (job, measurement)
            self.best_ms = min(self.best_ms or measurement.value, measurement.value)
            if self._anchor is None:
                self._anchor, self._anchored = (job, measurement.value), time.monotonic()
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

    def _beside_best(self, job: Job, alone: Measurement) -> Measurement:
        """Where the best so far is within reach, time both in turn and judge by their ratio.

        The two meet the same clock and the same neighbours then, so that a difference is theirs. The
        value is the best's, times the median of the ratios.
        """
        if self._best is None or getattr(self.timer, "warms_up", False):
            return alone
        other, best = self._best
        ends = [m.low if m.low is not None else m.value for m in (alone, best)]
        tops = [m.high if m.high is not None else m.value for m in (alone, best)]
        if None in (*ends, *tops, alone.value, best.value):
            return alone
        apart = ends[0] > _REACH * tops[1] or ends[1] > _REACH * tops[0]  # type: ignore[operator]
        rounds_s = _FEWEST_ROUNDS * (alone.value + best.value) / 1e3  # type: ignore[operator]
        if apart or rounds_s > self.settings.budget_s:
            return alone
        (_, raced) = race_calls(
            [other.call, job.call], timer=self.timer, budget_s=self.settings.budget_s
        )
        ours, theirs = raced.samples[1], raced.samples[0]
        pairs = zip(ours, theirs, strict=False)
        samples = [best.value * a / b for a, b in pairs if b > 0]  # type: ignore[operator]
        if len(samples) < _FEWEST_ROUNDS:
            return alone
        interval = median_interval(samples, confidence=self.settings.confidence)
        return replace(
            alone,
            value=interval.median,
            low=interval.low,
            high=interval.high,
            samples=tuple(samples),
            state={**alone.state, "beside_best": True, "confidence": round(interval.confidence, 4)},
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
        self.timer.sample(replace(job.call, run=run), 1)
        if callable(self._expected):
            self._expected = self._expected()
        if self._expected is None:
            self._expected = seen
            return None
        settings = self.settings
        return disagreement(seen, self._expected, rtol=settings.rtol, atol=settings.atol)

    def _watch_drift(self) -> None:
        if self._anchor is None or time.monotonic() - self._anchored < self.settings.drift_every_s:
            return
        job, before = self._anchor
        budget_s = self.settings.budget_s / 2
        now = measure_call(job.call, timer=self.timer, rule=self._rule, budget_s=budget_s)
        ratio = now.interval.median / before if before else 1.0
        significant = not now.interval.low <= before <= now.interval.high
        changed = significant and abs(ratio - 1) > self.settings.drift_tolerance
        self._drift = ratio if changed else None
        self._anchored = time.monotonic()

    def _device_state(self) -> dict[str, Any]:
        if self._state is not None:
            return dict(self._state())
        from .detect import device_state

        return device_state()


def _identity(job: Job, compiled: CompileResult) -> Any:
    binary = compiled.facts.get("binary_hash")
    if binary is None or job.grid is None:
        return None
    return binary, job.grid, compiled.facts.get("shared_bytes"), compiled.facts.get("num_warps")
