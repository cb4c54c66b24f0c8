"""Chooses a launch's configuration: from the store, by measuring a few, or by the model alone."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import triton

from autotune_rlm.ir import Launch
from autotune_rlm.measure.errors import Fault, Owner, failed, owner_of, remembered
from autotune_rlm.measure.triton import IsolatedMeasurer, TritonMeasurer
from autotune_rlm.measure.triton.job import Bench
from autotune_rlm.search.engine import Search
from autotune_rlm.search.policy import Policy
from autotune_rlm.search.progress import Reporter
from autotune_rlm.search.tuner import Tuner, TuningError, TuningResult
from autotune_rlm.store import Recall
from autotune_rlm.types import Candidate, Measurer, Observation, Status, Task, digest

from ._errors import KernelTuningError
from ._facts import with_facts
from ._interrupted import noted, without_failures
from ._recommended import recommended
from ._refresh import Later
from ._timer import RejectedError
from .device import device_of
from .resources import LazySurrogate, open_store, process_lock
from .settings import Settings
from .task import KernelTasks

_log = logging.getLogger(__name__)
_NOTED = 32  # candidates noted in the store for a watcher to benchmark
_ADVISED = 4  # recommended configurations that a search measures first


@dataclass(frozen=True)
class Outcome:
    """A chosen configuration and its origin.

    ``how`` is ``"store"``, ``"measured"``, ``"disk"`` (Triton's own cache of timings), ``"file"`` (a
    recommendation), ``"model"``, or ``"rejected"`` where the user's benchmark gave no time.
    """

    config: triton.Config
    how: str
    # median and interval in ms of what was measured, now or before; infinite where it failed
    timings: dict[triton.Config, list[float]] = field(default_factory=dict)
    seconds: float = 0.0  # of the search
    expected_ms: float | None = None  # by prediction
    measured_later: Later | None = None  # of a predicted choice: what others have measured since
    is_of_this: bool = True  # whether ``timings`` are of this problem, not of a similar one


class Selector:
    """Chooses among the configurations of the kernel of ``tasks``, by its ``key`` arguments."""

    def __init__(self, tasks: KernelTasks, key: Sequence[str], settings: Settings) -> None:
        self._tasks = tasks
        self.key = list(key)
        self.settings = settings
        self.store = open_store(settings.store)
        self._surrogate = LazySurrogate(settings.surrogate, settings.store)
        self._known: dict[str, Recall] = {}

    def task(self, arguments: Mapping[str, Any]) -> Task:
        task = self._tasks.build(arguments, device_of(self.settings.device))
        if self.settings.check is None:
            return task
        # Results measured without the check may be wrong. Compile failures stay valid.
        return dataclasses.replace(
            task,
            versions={**task.versions, "check": self.settings.check},
            like=digest([task.like, self.settings.check]),
        )

    def known(self, task: Task) -> Recall:
        """Everything in the store that is relevant to a task; queried once per task."""
        recall = self._known.get(task.key)
        if recall is None:
            recall = Recall() if self.store is None else self.store.recall(task)
            self._known[task.key] = recall
        return recall

    def feasible(self, task: Task, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates without those whose binaries are known not to compile or not to fit.

        A configuration that does not compile, or needs too much shared memory, for one problem fails
        for every other problem with the same binary. Returns all candidates if none would be left.
        """
        failed = {o.candidate.key for o in self.known(task).failed}
        kept = [c for c in candidates if c.key not in failed]
        if len(kept) < len(candidates):
            _log.info(
                "%s: %d configurations failed for another problem of equal binaries and are left out",
                task.kernel,
                len(candidates) - len(kept),
            )
        return kept or list(candidates)

    def read(
        self, task: Task, candidates: Sequence[Candidate], launch_of: Callable[[Candidate], Launch]
    ) -> list[Candidate]:
        """The candidates, with the compiler's facts where a model will rank them."""
        n = len(candidates)
        if self.settings.mode != "predict" and self._budget(task, n) >= n:
            return list(candidates)

        def order(known: Sequence[Candidate]) -> list[int]:
            prediction = self._surrogate.predict(task, known)
            return prediction.order(minimize=task.minimize).tolist()

        report = with_facts(self._tasks.kernel, candidates, launch_of, task.device, order=order)
        return report.candidates

    def finished(self, task: Task, candidates: Sequence[Candidate]) -> Outcome | None:
        """The best of an earlier finished search, of any process; None where there was none.

        It is a search of this problem, or else of the nearest alike problem: one that differs only in
        sizes, and in those by less than a factor of two.
        """
        others = self.known(task).alike
        for other, observed in ((task, self._observed(task, candidates)), *others):
            here = _among(candidates, observed)
            if _any_ok(here) and self._has_ended(other, candidates, here):
                return dataclasses.replace(_best(here), is_of_this=other is task)
        return None

    def _has_ended(
        self, task: Task, candidates: Sequence[Candidate], observed: Sequence[Observation]
    ) -> bool:
        enough = len(observed) >= self._budget(task, len(candidates))
        return enough or self._ended_early(task, candidates, observed)

    def best_measured(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        chosen: triton.Config,
        expected_ms: float | None,
    ) -> triton.Config | None:
        """The fastest measured configuration where it may replace a predicted choice, else None.

        While ``chosen`` is unmeasured, only what is faster than its predicted time replaces it.
        """
        observed = self._observed(task, candidates)
        if not _any_ok(observed):
            return None
        best = _best(observed)
        if expected_ms is None or any(o.candidate.payload == chosen for o in observed):
            return best.config
        return best.config if best.timings[best.config][0] < expected_ms else None

    def by_model(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        workload: Callable[[Sequence[Candidate]], Mapping[str, Any] | None] | None = None,
    ) -> Outcome:
        """The best measured configuration, or the model's choice; measures nothing.

        A predicted configuration replaces the best measured one only where the model, given the
        measurements, predicts a shorter time for it. With ``workload``, which tells how another process
        can run candidates, the problem is noted in the store, for ``autotune-rlm watch``.
        """
        observed = self._observed(task, candidates)
        alike = self._alike(task, candidates)
        best = next((_best(here) for here in (observed, *alike) if _any_ok(here)), None)
        if best is not None and not _any_ok(observed):
            return best  # times of another size are not comparable with predictions here
        failed = {o.candidate.key for o in observed if not o.measurement.ok}
        advised = [c for c in self.recommended(task, candidates) if c.key not in failed]
        if best is not None and advised:
            return best
        expected: dict[str, float] = {}
        if advised:
            order = list(dict.fromkeys([*advised, *candidates]))
        else:
            prediction = self._surrogate.predict(task, candidates, observed=observed)
            order = [candidates[i] for i in prediction.order(minimize=task.minimize)]
            times = prediction.median.tolist()
            if len(set(times)) > 1:  # equal predictions carry no information
                expected = {c.key: t for c, t in zip(candidates, times, strict=True)}
        pick = next((c for c in order if c.key not in failed), order[0])
        if best is not None and not expected.get(pick.key, math.inf) < best.timings[best.config][0]:
            return best
        if workload is not None and self.store is not None:
            default = [c for c in candidates[:1] if c not in order[:_NOTED]]
            noted = [*default, *order[:_NOTED]]
            self.store.note_request(task, noted, workload=workload(noted))
        how = "file" if advised else "model"
        return Outcome(pick.payload, how, expected_ms=expected.get(pick.key))

    def leave_out(
        self, task: Task, candidates: Sequence[Candidate], unfit: Any, fault: Fault
    ) -> None:
        """Store that the binary of the configuration ``unfit`` failed at its launch."""
        for candidate in candidates:
            if self.store is not None and candidate.payload is unfit:
                self.store.add(task, candidate, failed(fault))

    def recommended(self, task: Task, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Candidates that ``configs_from`` or the kernel's package recommends, best first."""
        given = self.settings.configs_from
        return recommended(given, self._tasks.file, task, candidates, self.key)

    def by_measuring(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        measurer: Callable[..., TritonMeasurer],
        isolated: Callable[[], IsolatedMeasurer | None] | None = None,
    ) -> Outcome:
        """Search within the budget, and beyond it only while no configuration works.

        ``measurer`` makes that of this process (``LiveLaunch.measurer``), ``isolated`` that of a
        separate process, or None where that is not possible.

        Raises:
            Exception: The caller's own, from the grid, a hook, the arguments or the benchmark; or the
                first of all where every configuration failed alike.
            KernelTuningError: No configuration worked, for several reasons; or one broke the device for
                this process.
        """
        with process_lock(task):
            self._known.clear()  # another process may have finished while this one waited
            outcome = self.finished(task, candidates)
            if outcome is not None:
                return outcome
            result = None
            if isolated is not None:
                result = self._isolated(task, candidates, isolated)
                if result is not None and result.best is not None:
                    return _measured(result)
                if result is not None:  # candidates that crashed there would crash here
                    candidates = [c for c in candidates if not _of_launch(result, c)]
                    if not candidates:
                        raise KernelTuningError(_explained(result))
            with noted(self.store, task) as begins:
                here = measurer(begins=begins, ahead=True)
                result = self._tune(task, candidates, here, self.store)
                unsure = [c for c in candidates if c.key not in here.tried]
                if result.best is None and unsure and not here.bench.ended:
                    # A stored failure or a compile worker's report alone is no reason to give up.
                    again = measurer(begins=begins, ahead=False)
                    result = self._tune(task, unsure, again, without_failures(self.store))
                    again.bench.first_error = again.bench.first_error or here.bench.first_error
                    here = again
        return _outcome(task, result, here.bench)

    def _isolated(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        isolated: Callable[[], IsolatedMeasurer | None],
    ) -> TuningResult | None:
        """The search in a separate process; None where that process could try no candidate."""
        made = isolated()
        if made is None:
            return None
        with made as measurer:
            result = self._tune(task, candidates, measurer, self.store)
        if all(o.measurement.status is Status.SKIPPED for o in result.observations):
            _log.warning(
                "%s is measured in this process, another cannot run it: %s",
                task.kernel,
                result.observations[0].measurement.reason if result.observations else "",
            )
            return None
        return result

    def shortlist(self, task: Task, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates that a search would measure, in the model's order.

        With ``mode="predict"`` it is the one that a launch would use.
        """
        if self.settings.mode == "predict":
            chosen = self.by_model(task, candidates).config
            return [c for c in candidates if c.payload is chosen]
        budget = self._budget(task, len(candidates))
        if budget >= len(candidates):
            return list(candidates)
        observed = self._observed(task, candidates)
        keep: set[triton.Config] = set()
        for here in (observed, *self._alike(task, candidates)):
            working = [o for o in here if o.measurement.ok]
            keep |= {_best(working).config} if working and not keep else set()
        first = [candidates[0], *(c for c in candidates if c.payload in keep)]
        first += self.recommended(task, candidates)[:_ADVISED]
        policy = Policy(seed=self.settings.seed)
        search = Search(task, candidates, self._surrogate, policy, first=first, observed=observed)
        measured_keys = {o.candidate.key for o in observed}
        chosen = [c for c in first if c.key in measured_keys] + search.ask(budget)
        keys = list(dict.fromkeys(c.key for c in chosen))[:budget]
        order = search.prediction.order(minimize=task.minimize)
        return [candidates[i] for i in order if candidates[i].key in keys]

    def predicted(self, task: Task, candidates: Sequence[Candidate]) -> list[float]:
        """Predicted milliseconds of each candidate, divided by its probability of working."""
        observed = self._observed(task, candidates)
        prediction = self._surrogate.predict(task, candidates, observed=observed)
        return (prediction.median / prediction.p_valid.clip(1e-9)).tolist()

    def _tune(
        self, task: Task, candidates: Sequence[Candidate], measurer: Measurer, store: Any
    ) -> TuningResult:
        n = len(candidates)
        budget = self._budget(task, n)
        budget_s = None if self.settings.mode == "full" else self.settings.budget_s
        places = {c.key: i for i, c in enumerate(candidates)}
        advised = [places[c.key] for c in self.recommended(task, candidates)[:_ADVISED]]
        while True:
            in_full = budget >= n
            tuner = Tuner(
                surrogate=None if in_full else self._surrogate,
                measurer=measurer,
                store=store,
                policy=Policy(),
            )
            with Reporter(quiet=self.settings.quiet) as line:
                result = tuner.tune(
                    task,
                    candidates,
                    budget=budget,
                    budget_s=budget_s,
                    seed=self.settings.seed,
                    suggested=advised,
                    progress=line,
                )
                line.done(result.event)
            if result.best is not None or result.event.stop not in ("budget", "seconds"):
                return result
            if in_full and result.event.stop == "budget":
                return result
            _log.warning("none of %d configurations of %s worked; going on", budget, task.kernel)
            budget, budget_s = min(n, 2 * budget), None

    def _budget(self, task: Task, n: int) -> int:
        return self.settings.measurements(n, near=self.known(task).has_near)

    def _observed(self, task: Task, candidates: Sequence[Candidate]) -> list[Observation]:
        return [] if self.store is None else _among(candidates, self.store.observations(task))

    def _alike(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[list[Observation]]:
        """Observations of the candidates in alike problems, the nearest problem first."""
        return (_among(candidates, observed) for _, observed in self.known(task).alike)

    def _ended_early(
        self, task: Task, candidates: Sequence[Candidate], observed: Sequence[Observation]
    ) -> bool:
        """Whether a search of these candidates stopped before its budget was spent."""
        if self.settings.mode == "full":
            return False
        return any(
            event.n_candidates >= len(candidates)
            and event.stop in ("no better one is likely", "seconds")
            and event.n_measured + event.n_reused <= len(observed)
            for event in self.store.events(task=task)
        )


def _measured(result: TuningResult) -> Outcome:
    assert result.best is not None
    return dataclasses.replace(
        _best(result.observations),
        config=result.best.candidate.payload,  # of equal times the first in the list, as in Triton
        how="measured",
        seconds=result.event.total_s,
    )


def _outcome(task: Task, result: TuningResult, bench: Bench) -> Outcome:
    """The best of a search in this process, or the exception that says why there is none."""
    if bench.fatal is not None:
        raise bench.fatal
    if bench.poison:
        raise KernelTuningError(
            f"a configuration of {task.kernel!r} broke the device for this process "
            f"({bench.poison}); it is kept as failed, so that the next process goes on without it for "
            f"a day, or until `autotune-rlm store clear --kernel {task.kernel}`"
        ) from bench.first_error
    if result.best is not None:
        return _measured(result)
    reasons = [o.measurement for o in result.observations]
    alike = len({(m.status, m.reason.partition(":")[0]) for m in reasons}) == 1
    if bench.first_error is None or not alike:
        raise KernelTuningError(_explained(result)) from bench.first_error
    if isinstance(bench.first_error, RejectedError):  # with no times Triton takes the first
        _log.warning("the benchmark of %s gave no finite time; taking the first", task.kernel)
        return Outcome(
            result.observations[0].candidate.payload, "rejected", _times(result.observations)
        )
    raise bench.first_error


def _explained(result: TuningResult) -> str:
    try:
        result.raise_if_failed()
        return ""
    except TuningError as error:
        return str(error)


def _of_launch(result: TuningResult, candidate: Candidate) -> bool:
    """Whether a candidate failed at run time."""
    statuses = (o.measurement.status for o in result.observations if o.candidate == candidate)
    return any(owner_of(status) is Owner.LAUNCH for status in statuses)


def _among(candidates: Sequence[Candidate], observed: Iterable[Observation]) -> list[Observation]:
    """Observations of these candidates, without skipped ones and old failures of launches."""
    here = {c.key: c for c in candidates}
    believed = [o for o in remembered(observed) if o.candidate.key in here]
    return [Observation(here[o.candidate.key], o.measurement) for o in believed]


def _any_ok(observed: Sequence[Observation]) -> bool:
    return any(o.measurement.ok for o in observed)


def _best(observed: Sequence[Observation]) -> Outcome:
    timings = _times(observed)
    return Outcome(min(timings, key=lambda config: timings[config][0]), "store", timings)


def _times(observed: Sequence[Observation]) -> dict[triton.Config, list[float]]:
    """Median and interval in ms of each configuration, infinite where it failed."""
    timings: dict[triton.Config, list[float]] = {}
    for o in observed:
        m = o.measurement
        if m.value is not None:
            ends = (m.low, m.high)
            times = [m.value, *(m.value if end is None else end for end in ends)]
        elif m.status.is_failure:
            times = [math.inf] * 3
        else:
            continue
        timings[o.candidate.payload] = times
    return timings
