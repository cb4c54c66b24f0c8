"""The loop and nothing else: rank, measure, learn, until the budget is spent."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from autotune_rlm._version import __version__
from autotune_rlm.accuracy import (
    TuningEvent,
    first_choice_regret,
    predicted_vs_measured,
    scores,
)
from autotune_rlm.learn.columns import encode_configs
from autotune_rlm.measure.errors import remembered
from autotune_rlm.policy import Policy, is_novel
from autotune_rlm.types import (
    Candidate,
    Measurement,
    Measurer,
    Observation,
    Prediction,
    Status,
    Surrogate,
    Task,
)

if TYPE_CHECKING:
    from autotune_rlm.store import Store

__all__ = ["Tuner", "TuningError", "TuningResult", "resolve_budget"]

_log = logging.getLogger(__name__)


class TuningError(RuntimeError):
    """Nothing that was measured worked."""


@dataclass(frozen=True, kw_only=True)
class TuningResult:
    """What a tuning run found.

    Attributes:
        task: What was tuned.
        best: The best measured candidate; None where none worked.
        observations: Everything known of the candidates: reused ones first, then in the order of
            measuring, failures and skipped ones included.
        event: The run's entry in the accuracy log.
    """

    task: Task
    best: Observation | None
    observations: tuple[Observation, ...]
    event: TuningEvent

    def raise_if_failed(self) -> None:
        """Raise one error that lists the failures by reason, if nothing worked.

        Raises:
            TuningError: ``best`` is None.
        """
        if self.best is not None:
            return
        reasons = Counter(
            (o.measurement.status.value, o.measurement.reason) for o in self.observations
        )
        lines = [
            f"  {count} x {status}" + (f": {reason}" if reason else "")
            for (status, reason), count in reasons.most_common()
        ]
        raise TuningError(
            f"none of the {len(self.observations)} candidates tried for {self.task.kernel!r} on "
            f"{self.task.device.name!r} worked; raise the budget or change the candidates"
            + "".join("\n" + line for line in lines)
        )


def resolve_budget(budget: int | float | None, n: int) -> int:
    """The number of measurements that ``budget`` allows of ``n`` candidates.

    Args:
        budget: A number (int, at least 1), a fraction of the candidates (float in (0, 1]), or None
            for all of them.
        n: Candidates there are.

    Raises:
        ValueError: ``budget`` is neither.
    """
    if budget is None:
        return n
    if isinstance(budget, bool) or not isinstance(budget, (int, float)):
        raise ValueError(f"budget must be an int, a float in (0, 1] or None, got {budget!r}")
    if isinstance(budget, int):
        if budget < 1:
            raise ValueError(
                f"budget must be at least 1 measurement, got {budget}; to choose without measuring "
                "rank the candidates with the surrogate"
            )
        return min(budget, n)
    if not 0.0 < budget <= 1.0:
        raise ValueError(
            f"a float budget is a fraction of the candidates in (0, 1], got {budget!r}; "
            "pass an int for a number of measurements"
        )
    return max(1, math.ceil(budget * n))


class Tuner:
    """Finds the best of many candidates by measuring few.

    Each round the surrogate predicts all candidates from what was measured so far, the policy
    chooses a batch, the measurer tries it, and every measurement goes to the store as it arrives,
    so that a killed run loses nothing. Failures of candidates never end a run.

    Args:
        surrogate: Predicts the task's metric; None for no ranking, where all are measured anyway.
        measurer: Tries candidates. Where it has an attribute ``clock_s`` (simulated seconds so far,
            as ``ReplayMeasurer`` has), that time counts in addition to the wall clock's.
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
    ) -> TuningResult:
        """Search ``candidates`` for the best one.

        The first batch holds the default, the best configuration of the nearest known problem where
        the store knows one, and the model's choice; with room for one measurement only, the default
        goes first, which keeps the promise that the result is never worse than it.

        Args:
            task: What is tuned.
            candidates: The choices; equal ones are measured once.
            budget: How many of the candidates may have been measured when the search ends: a number
                (int), a fraction of the candidates (float in (0, 1]), or None for all unless the
                policy stops. What the store already knows of them costs nothing and counts, so
                that a killed search resumes where it was and a finished one is not repeated.
            budget_s: Seconds after which no further measurement is started, but for the default's
                where it is not known; at least one is made where none is known.
            default: Index of the candidate that is always measured; None for no such candidate.
            seed: Added to the policy's seed. Equal stores and seeds choose equal candidates.
            suggested: Indices of further candidates that are in the first batch, after the default.

        Returns:
            The best measured candidate, all observations and the event.

        Raises:
            ValueError: No candidates, or an argument out of range.
        """
        unique: dict[str, Candidate] = {}
        for candidate in candidates:
            unique.setdefault(candidate.key, candidate)
        if not candidates:
            raise ValueError("candidates must not be empty; pass at least one Candidate")
        if default is not None and not 0 <= default < len(candidates):
            raise ValueError(
                f"default must be an index into the {len(candidates)} candidates or None, "
                f"got {default!r}"
            )
        if budget_s is not None and not budget_s > 0:
            raise ValueError(f"budget_s must be greater than 0 seconds, got {budget_s!r}")
        policy = dataclasses.replace(self.policy, seed=self.policy.seed + seed)
        search = _Search(self, task, list(unique.values()), policy, budget_s)
        first = None if default is None else search.index[candidates[default].key]
        others = [search.index[candidates[i].key] for i in suggested]
        stop = search.run(resolve_budget(budget, len(unique)), first, others)
        result = search.result(stop, seed)
        if self.store is not None and result.event.n_measured:
            search.try_store("event", self.store.add_event, result.event)
        _log.info(
            "%s on %s: best %s after %d measurements (%d reused) of %d candidates in %.2f s; %s",
            task.kernel,
            task.device.name,
            result.event.best_value,
            result.event.n_measured,
            result.event.n_reused,
            len(unique),
            result.event.total_s,
            stop,
        )
        return result


class _Search:
    """The state of one run."""

    def __init__(
        self,
        tuner: Tuner,
        task: Task,
        candidates: list[Candidate],
        policy: Policy,
        budget_s: float | None,
    ) -> None:
        self.surrogate, self.measurer, self.store = tuner.surrogate, tuner.measurer, tuner.store
        self.task, self.candidates, self.policy = task, candidates, policy
        self.when = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.budget_s = budget_s
        self.started = self._now()
        self.model_s = 0.0
        self.zero_shot: Prediction | None = None
        self.novel = is_novel(tuner.surrogate, task, candidates)
        self.index = {candidate.key: i for i, candidate in enumerate(candidates)}
        stored = [] if self.store is None else remembered(self.store.observations(task))
        tried = {o.candidate.key: o for o in stored}
        self.known: dict[int, Measurement] = {
            self.index[key]: o.measurement for key, o in tried.items() if key in self.index
        }
        self.elsewhere = [o for key, o in tried.items() if key not in self.index]
        self.reused = frozenset(self.known)
        self.claimed: dict[int, tuple[float, float]] = {}

    def run(self, budget: int, default: int | None, suggested: Sequence[int] = ()) -> str:
        """Measure in rounds; returns why it ended."""
        features = None
        size = self.policy.batch_size(budget)
        must = None
        while True:
            if len(self.known) >= len(self.index):
                return "measured all"
            if len(self.known) >= budget:
                return "budget"
            if self.known and self._seconds_are_over():
                return self._ended_by_seconds(default)
            if must is None:
                must = self._must(default, suggested)
            begin = time.perf_counter()
            if features is None:
                features = encode_configs([c.config for c in self.candidates])
            prediction = self.predict()
            tried = self.observations()
            wanted = [i for i in must if i not in self.known]
            if (
                not wanted
                and self.surrogate is not None
                and self._last_claims_held()
                and self.policy.should_stop(
                    self.task, self.candidates, prediction, tried, features=features
                )
            ):
                self.model_s += time.perf_counter() - begin
                return "no better one is likely"
            chosen = self.policy.choose(
                self.task,
                self.candidates,
                prediction,
                tried,
                min(size + len(wanted), budget - len(self.known)),
                must=wanted,
                zero_shot=self.zero_shot,
                novel=self.novel,
                features=features,
            )
            self.model_s += time.perf_counter() - begin
            self.claimed = {i: (prediction.low[i], prediction.high[i]) for i in chosen}
            _log.debug("measuring %d candidates of %s: %s", len(chosen), self.task.kernel, chosen)
            if not self._measure(chosen):
                over = self._seconds_are_over()
                return self._ended_by_seconds(default) if over else "measurer failed"

    def _ended_by_seconds(self, default: int | None) -> str:
        """The reason, after the default was measured, whatever a pool compiled before it."""
        if default is not None and default not in self.known:
            self._measure([default])
        return "seconds"

    def _last_claims_held(self) -> bool:
        """Whether half of the last batch fell into the intervals predicted for it.

        That no better candidate is likely is a claim of the same model: a search whose model has
        just been wrong goes on, on a device or kernel that it knows nothing about above all.
        """
        tried = {i: self.known[i].value for i in self.claimed}
        held = [
            v is not None and self.claimed[i][0] <= v <= self.claimed[i][1]
            for i, v in tried.items()
        ]
        return 2 * sum(held) >= len(held)

    def predict(self) -> Prediction:
        """The surrogate's word given everything measured so far."""
        if self.surrogate is None:
            return self._no_idea()
        if self.zero_shot is None:
            self.zero_shot = self.surrogate.predict(self.task, self.candidates)
        observed = [o for o in self.observations() if o.measurement.status is not Status.SKIPPED]
        observed += self.elsewhere
        if not observed:
            return self.zero_shot
        return self.surrogate.predict(self.task, self.candidates, observed=observed)

    def _no_idea(self) -> Prediction:
        ones = np.ones(len(self.candidates))
        return Prediction(
            metric=self.task.metric, median=ones, low=ones, high=ones, spread=ones, p_valid=ones
        )

    def observations(self) -> list[Observation]:
        """What is known of the candidates, in the order in which it became known."""
        return [Observation(self.candidates[i], m) for i, m in self.known.items()]

    def _must(self, default: int | None, suggested: Sequence[int]) -> list[int]:
        must = list(dict.fromkeys([*([] if default is None else [default]), *suggested]))
        if self.store is not None:
            for _, observation in self.store.nearest(self.task, 1):
                near = self.index.get(observation.candidate.key)
                if near is not None and near not in must:
                    must.append(near)
        return must

    def _measure(self, chosen: list[int]) -> bool:
        """Measure a batch; False where the measurer gave nothing or the seconds are over."""
        pending = {self.candidates[i].key: i for i in chosen}
        reason = "the measurer gave no result"
        over = False
        results: Any = ()
        try:
            results = self.measurer.measure(self.task, [self.candidates[i] for i in chosen])
            for candidate, measurement in results:
                i = pending.pop(candidate.key, None)
                if i is None:
                    _log.warning("ignored a result that was not asked for: %s", candidate)
                    continue
                self.known[i] = measurement
                if self.store is not None and measurement.status is not Status.SKIPPED:
                    tried = self.candidates[i]
                    self.try_store("measurement", self.store.add, self.task, tried, measurement)
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
        for i in pending.values():
            self.known[i] = Measurement(status=Status.SKIPPED, reason=reason)
        return len(pending) < len(chosen)

    def try_store(self, what: str, write: Any, *args: Any) -> None:
        """Write to the store; a store that cannot be written to costs a warning, not the run."""
        try:
            write(*args)
        except Exception as error:
            _log.warning(
                "could not store the %s: %s: %s", what, type(error).__name__, _first_line(error)
            )

    def result(self, stop: str, seed: int) -> TuningResult:
        """The result of the run that ended for the reason ``stop``."""
        values = {i: m.value for i, m in self.known.items() if m.value is not None}
        sign = 1.0 if self.task.minimize else -1.0
        best = min(values, key=lambda i: (sign * values[i], i), default=None)
        return TuningResult(
            task=self.task,
            best=None if best is None else Observation(self.candidates[best], self.known[best]),
            observations=tuple(self.observations()),
            event=self._event(stop, seed, values, best),
        )

    def _event(
        self, stop: str, seed: int, values: dict[int, float], best: int | None
    ) -> TuningEvent:
        known, task = self.known, self.task
        new = [m for i, m in known.items() if i not in self.reused]
        tried = [m for m in new if m.status is not Status.SKIPPED]
        cost_s = sum(m.cost_s for m in tried)
        compile_s = sum(m.compile_s or 0.0 for m in tried)
        left = len(self.index) - sum(m.status is not Status.SKIPPED for m in known.values())
        return TuningEvent(
            task_key=task.key,
            kernel=task.kernel,
            device=task.device.name,
            problem=dict(task.problem),
            metric=task.metric,
            minimize=task.minimize,
            when=self.when,
            versions={**task.versions, "autotune_rlm": __version__},
            n_candidates=len(self.index),
            n_measured=len(tried),
            n_reused=len(self.reused),
            n_failed=dict(Counter(m.status.value for m in known.values() if m.status.is_failure)),
            reasons=dict(Counter(m.reason for m in known.values() if not m.ok and m.reason)),
            n_skipped=len(new) - len(tried),
            best_config=None if best is None else dict(self.candidates[best].config),
            best_value=None if best is None else known[best].value,
            compile_s=compile_s,
            measure_s=max(0.0, cost_s - compile_s),
            saved_s=left * cost_s / len(tried) if tried else 0.0,
            stop=stop,
            seed=seed,
            **self._accuracy(values),
            model_s=self.model_s,
            total_s=self._now() - self.started,
        )

    def _accuracy(self, values: dict[int, float]) -> dict[str, Any]:
        first = self.zero_shot
        if first is None:
            return {}
        begin = time.perf_counter()
        final = self.predict()
        self.model_s += time.perf_counter() - begin
        worked, measured = np.array(list(values), dtype=int), list(values.values())
        before, after = (scores(p.take(worked), measured) for p in (first, final))
        return {
            **before,
            **{f"{name}_final": value for name, value in after.items()},
            "first_choice_regret": first_choice_regret(
                first.median[worked], measured, minimize=self.task.minimize
            ),
            "points": tuple(
                predicted_vs_measured(first, i, self.candidates[i], m, i in self.reused)
                for i, m in self.known.items()
                if m.status is not Status.SKIPPED
            ),
        }

    def _now(self) -> float:
        return time.perf_counter() + float(getattr(self.measurer, "clock_s", 0.0))

    def _seconds_are_over(self) -> bool:
        return self.budget_s is not None and self._now() - self.started >= self.budget_s


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
