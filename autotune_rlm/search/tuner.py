"""The loop around the engine: measures the candidates it asks for, until the search or the time ends."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from autotune_rlm._checks import check_all, check_number, check_type
from autotune_rlm.measure.errors import remembered
from autotune_rlm.search._event import tuning_event
from autotune_rlm.search.engine import Search
from autotune_rlm.search.policy import Policy
from autotune_rlm.search.result import Progress, TuningError, TuningResult, resolve_budget
from autotune_rlm.types import (
    Candidate,
    Measurement,
    Measurer,
    Parallel,
    Preparing,
    Simulated,
    Status,
    Surrogate,
    Task,
)

if TYPE_CHECKING:
    from autotune_rlm.store import Store
    from autotune_rlm.store.accuracy import TuningEvent

__all__ = ["Progress", "Tuner", "TuningError", "TuningResult", "resolve_budget"]

_log = logging.getLogger(__name__)
_AHEAD = 16  # candidates that a measurer may prepare while another is measured
_NO_LOSS = 0.05  # share of its worth that may be given up for a candidate that is already compiled
_GIVE_UP = 3  # rounds in a row without a result after which the measurer counts as failed


class Tuner:
    """Finds the best of many candidates by measuring few.

    The engine (``Search``) asks for one candidate at a time, the measurer runs it, and its measurement
    informs the next choice. A measurer that can prepare candidates (``Preparing``: compile them in
    parallel) gets the likely next ones meanwhile. A measurer with several workers (``Parallel``) gets
    a candidate for each worker, chosen when the worker is free. Every measurement goes to the store
    as it arrives, so that a killed run loses nothing. Failures of candidates never end a run.

    Args:
        surrogate: Predicts the task's metric; None for no ranking, where all are measured anyway.
        measurer: Runs candidates. The seconds of a ``Simulated`` one count beside the wall clock's.
        store: Keeps every measurement; None keeps them for the run alone.
        policy: Chooses and stops; by default ``Policy()``.
    """

    def __init__(
        self,
        *,
        surrogate: Surrogate | None,
        measurer: Measurer,
        store: Store | None = None,
        policy: Policy | None = None,
    ) -> None:
        check_type("measurer", measurer, Measurer)
        self.surrogate = surrogate
        self.measurer = measurer
        self.store = store
        self.policy = policy or Policy()

    def tune(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        *,
        budget: int | float | None = None,
        budget_s: float | None = None,
        default: int | None = 0,
        seed: int = 0,
        suggested: Sequence[int] = (),
        progress: Callable[[Progress], None] | None = None,
    ) -> TuningResult:
        """Search ``candidates`` for the best one.

        The default is measured first, so that the result is never worse than it. The suggested
        candidates follow, then the model's choices and, between them, the best configurations of the
        nearest problems in the store, on whatever device.

        Args:
            task: What is tuned.
            candidates: The choices; equal ones are measured once.
            budget: How many of the candidates may have been measured when the search ends: a number
                (int), a fraction of the candidates (float in (0, 1]), or None for all unless the
                policy stops. Measurements in the store count and cost nothing, so that a killed
                search resumes where it was and a finished one is not repeated.
            budget_s: Seconds after which no further measurement is started, except the default's
                where it has none. At least one is made where the store has none.
            default: Index of the candidate that is always measured; None for no such candidate.
            seed: Added to the policy's seed. Equal stores and seeds choose equal candidates.
            suggested: Indices of further candidates that are measured right after the default.
            progress: Called after each measurement, and once at the end with the reason.

        Returns:
            The best measured candidate, all observations and the event.

        Raises:
            ValueError: No candidates, or an argument out of range.
        """
        check_all("candidates", candidates, Candidate)
        if not candidates:
            raise ValueError("candidates must not be empty; pass at least one Candidate")
        check_number("default", default, least=0, below=len(candidates), whole=True, none=True)
        check_number("budget_s", budget_s, above=0, none=True)
        search = Search(
            task,
            candidates,
            self.surrogate,
            dataclasses.replace(self.policy, seed=self.policy.seed + seed),
            first=[candidates[i] for i in ([] if default is None else [default]) + [*suggested]],
            near=() if self.store is None else self.store.near_best(task),
            observed=() if self.store is None else remembered(self.store.observations(task)),
            budget=resolve_budget(budget, len({c.key for c in candidates})),
        )
        run = _Run(
            self, search, budget_s, None if default is None else candidates[default], progress
        )
        stop = run.to_the_end()
        result = TuningResult(
            task=task,
            best=search.best,
            observations=tuple(search.observations),
            event=run.event(stop, seed),
        )
        if self.store is not None and result.event.n_measured:
            run.try_store("event", self.store.add_event, result.event)
        _log.info(
            "%s on %s: best %s after %d measurements (%d reused) of %d candidates in %.2f s; %s",
            task.kernel,
            task.device.name,
            result.event.best_value,
            result.event.n_measured,
            result.event.n_reused,
            len(search.candidates),
            result.event.total_s,
            stop,
        )
        return result


class _Run:
    """One run of a search: its clock, its measurements, its entry in the accuracy log."""

    def __init__(
        self,
        tuner: Tuner,
        search: Search,
        budget_s: float | None,
        default: Candidate | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.measurer, self.store, self.search = tuner.measurer, tuner.store, search
        self.task, self.budget_s, self.default = search.task, budget_s, default
        self.progress = progress
        self.when = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.model_s = 0.0
        self.started = self._now()
        self.empty = 0

    def to_the_end(self) -> str:
        """Measure until the search ends; returns the reason."""
        stop = self._until_stopped()
        if stop == "seconds" and self.default is not None:
            measured = {o.candidate.key for o in self.search.observations}
            if self.default.key not in measured:
                self._measure([self.default])
        self._tell(stop)
        return stop

    def _until_stopped(self) -> str:
        if isinstance(self.measurer, Parallel):
            return self._several_at_a_time()
        search, ahead = self.search, isinstance(self.measurer, Preparing)
        while True:
            if search.observations and self._seconds_are_over():
                return "seconds"
            begin = time.perf_counter()
            stop = search.ended
            proposed = [] if stop else search.ask(max(search.policy.batch, _AHEAD if ahead else 1))
            self.model_s += time.perf_counter() - begin
            if stop:
                return stop
            first, n = self._prepared(proposed), search.policy.batch
            chosen = [first] if n == 1 else proposed[:n]
            _log.debug("measuring %d candidates of %s", len(chosen), self.task.kernel)
            if not self._measure(chosen):
                return "seconds" if self._seconds_are_over() else "measurer failed"

    def _prepared(self, proposed: list[Candidate], workers: int = 1) -> Candidate:
        """The first, or one that is as good and compiled already; the others are compiled meanwhile.

        With several workers the next few are all measured before they inform a choice, so that their
        order matters little.
        """
        if not isinstance(self.measurer, Preparing):
            return proposed[0]
        self.measurer.prepare(self.task, proposed)
        ready = [c for c in proposed if self.measurer.is_ready(c)]
        soon = next((c for c in proposed[:workers] if c in ready), None)
        return soon or self.search.as_good(proposed[0], ready, loss=_NO_LOSS)

    def _several_at_a_time(self) -> str:
        while True:
            if self.search.observations and self._seconds_are_over():
                return "seconds"
            if stop := self.search.ended:
                return stop
            pending: dict[str, Candidate] = {}
            if not self._measure(self._wanted(pending), pending):
                return "seconds" if self._seconds_are_over() else "measurer failed"

    def _wanted(self, pending: dict[str, Candidate]) -> Iterator[Candidate]:
        """Candidates for free workers, each chosen when its worker is free; ``pending`` are at work."""
        assert isinstance(self.measurer, Parallel)
        search = self.search
        ahead = _AHEAD if isinstance(self.measurer, Preparing) else 0
        while not (search.observations and self._seconds_are_over()):
            if len(search.observations) + len(pending) >= search.budget:
                return
            begin = time.perf_counter()
            proposed = [] if search.ended else search.ask(len(pending) + 1 + ahead)
            self.model_s += time.perf_counter() - begin
            new = [c for c in proposed if c.key not in pending]
            if not new:
                return
            chosen = self._prepared(new, self.measurer.workers)
            pending[chosen.key] = chosen
            yield chosen

    def _measure(
        self, chosen: Iterable[Candidate], pending: dict[str, Candidate] | None = None
    ) -> bool:
        """Measure ``chosen``; False where the seconds are over or the measurer gives no results any more.

        Args:
            chosen: The candidates.
            pending: Candidates taken from ``chosen`` and not measured yet, by key, where ``chosen`` adds
                them itself.
        """
        if pending is None:
            chosen = list(chosen)
            pending = {c.key: c for c in chosen}
        n_taken = 0
        reason = "the measurer gave no result"
        over = False
        results: Any = ()
        try:
            results = self.measurer.measure(self.task, chosen)
            for candidate, measurement in results:
                tried = pending.pop(candidate.key, None)
                if tried is None or not self.search.tell(tried, measurement):
                    _log.warning("ignored a result that was not asked for: %s", candidate)
                    continue
                n_taken += 1
                if self.store is not None and measurement.status is not Status.SKIPPED:
                    self.try_store("measurement", self.store.add, self.task, tried, measurement)
                self._tell(None)
                over = bool(pending) and self._seconds_are_over()
                if over:
                    break
        except Exception as error:
            reason = f"the measurer raised {type(error).__name__}: {_first_line(error)}"
            _log.exception("the measurer raised; its remaining candidates are skipped")
        finally:
            if hasattr(results, "close"):
                results.close()
        if over:
            return False
        for candidate in pending.values():
            self.search.tell(candidate, Measurement(status=Status.SKIPPED, reason=reason))
        self.empty = 0 if n_taken else self.empty + 1
        return self.empty < _GIVE_UP

    def _tell(self, stop: str | None) -> None:
        if self.progress is None:
            return
        search = self.search
        values = {o.candidate.key: o.measurement.value for o in search.observations}
        self.progress(
            Progress(
                task=self.task,
                measured=len(values),
                planned=search.budget,
                candidates=len(search.candidates),
                best=search.best,
                default=None if self.default is None else values.get(self.default.key),
                seconds=self._now() - self.started,
                stop=stop,
            )
        )

    def try_store(self, what: str, write: Any, *args: Any) -> None:
        """Write to the store; a store that cannot be written to costs a warning, not the run."""
        try:
            write(*args)
        except Exception as error:
            _log.warning(
                "could not store the %s: %s: %s", what, type(error).__name__, _first_line(error)
            )

    def event(self, stop: str, seed: int) -> TuningEvent:
        """The run's entry in the accuracy log."""
        begin = time.perf_counter()
        found = tuning_event(self.search, stop=stop, seed=seed, when=self.when)
        model_s = self.model_s + time.perf_counter() - begin
        return dataclasses.replace(found, model_s=model_s, total_s=self._now() - self.started)

    def _now(self) -> float:
        simulated = self.measurer.clock_s if isinstance(self.measurer, Simulated) else 0.0
        return time.perf_counter() + simulated

    def _seconds_are_over(self) -> bool:
        return self.budget_s is not None and self._now() - self.started >= self.budget_s


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
