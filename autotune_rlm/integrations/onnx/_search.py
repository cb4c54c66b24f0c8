"""Searches an architecture space: rank, measure, learn."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from autotune_rlm._checks import check_number, check_type
from autotune_rlm.integrations.onnx._predict import FACTS
from autotune_rlm.integrations.onnx._rungs import Rungs
from autotune_rlm.networks.spaces import ArchitectureSpace
from autotune_rlm.progress import ProgressLine
from autotune_rlm.types import (
    Candidate,
    Measurement,
    Measurer,
    Status,
    Surrogate,
    Task,
    canonical_json,
)

if TYPE_CHECKING:
    import optuna

    from autotune_rlm.store import Store

Objective = Callable[..., float]
_MEASURED = ("latency_ms",)
_LISTED = 4096  # combinations of a space that is gone through to know when all were tried
_DRAWS = 1000  # random networks of a larger one among which a new one is looked for
_log = logging.getLogger(__name__)


def search(
    space: ArchitectureSpace,
    objectives: Mapping[str, str | tuple[str, Objective]],
    budget: int,
    *,
    constraints: Mapping[str, float] | None = None,
    batch: int = 4,
    seed: int | None = None,
    measurer: Measurer | None = None,
    store: Store | None = None,
    surrogate: Surrogate | str | bool | None = None,
    context: Any = None,
    study: optuna.Study | None = None,
    epochs: Sequence[int] | None = None,
    show_progress_bar: bool | None = None,
    callbacks: Sequence[Callable[[optuna.Study, optuna.trial.FrozenTrial], None]] = (),
) -> optuna.Study:
    """Search a space for networks that trade objectives off best.

    Candidates are random ones and mutants of the best so far, ranked by ``RLMSampler`` on their
    choices, costs and the surrogate's word. The best of each batch are measured, and learned from.
    A network that fails to build or to run fails its trial and stops nothing. No network is measured
    twice: configurations that give the same network (``space.canonical``) share one trial's values,
    also those of the ``study`` that is gone on with, and the search ends when all were tried.

    Example:
        ```python
        study = search(
            space("nasbench201"),
            {"accuracy": ("maximize", lambda config: train(config)), "latency_ms": "minimize"},
            budget=40,
            constraints={"latency_ms": 5.0},
        )
        for trial in study.best_trials:
            print(trial.values, trial.params)
        ```

    Args:
        space: The space.
        objectives: Direction (``"minimize"`` or ``"maximize"``) by metric, with a function of the
            configuration where it is neither ``latency_ms``, which is measured here with ONNX
            Runtime, nor a fact: parameters, macs, flops, depth, activation_mb, peak_memory_mb.
        budget: Networks to measure.
        constraints: Upper limits by metric (of the objectives, or facts, or ``latency_ms``); lower
            ones for objectives that are maximised.
        batch: Networks proposed and measured together.
        seed: Seed of the search.
        measurer: Measures ``latency_ms``; by default ``OnnxRuntimeMeasurer``.
        store: Keeps the latencies that were measured here, and answers for those it has.
        surrogate: As of ``RLMSampler``.
        context: As of ``RLMSampler``; by default each metric's name, and this machine for
            ``latency_ms``.
        study: A study to go on with; its sampler is used.
        epochs: Rising numbers of epochs, such as ``(4, 12, 36)``: functions are then called with the
            configuration and a number of them, and asked for more epochs only of the best third
            (by the first function) of the networks that came as far (asynchronous successive
            halving, arXiv 1810.05934). The trials of the others are pruned.
        show_progress_bar: Whether progress is shown on the standard error stream; by default where
            that is a terminal. Each batch is logged either way.
        callbacks: Called with the study and each trial after its batch was measured.

    Returns:
        The study. Trials carry all facts and constrained metrics as user attributes.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An objective is unknown or lacks a function, the budget is not positive, the
            epochs do not rise, or no choices are valid.
    """
    import optuna

    from autotune_rlm.integrations.optuna import RLMSampler
    from autotune_rlm.store import Store

    hint = "autotune_rlm.integrations.onnx.space(name) makes one of a published table"
    check_type("space", space, ArchitectureSpace, hint=hint)
    for name, choices in space.parameters.items():
        check_type(f"space.parameters[{name!r}]", choices, Sequence)
        if not choices:
            raise ValueError(f"space.parameters[{name!r}] must hold at least one value")
    check_number("budget", budget, least=1, whole=True)
    check_number("batch", batch, least=1, whole=True)
    check_type("store", store, Store, type(None))
    check_type("study", study, optuna.Study, type(None))
    directions, functions = _objectives(objectives)
    rungs = None if epochs is None else Rungs(epochs)
    if rungs is not None and not functions:
        raise ValueError("epochs: no objective has a function that could be called with them")
    check_type("constraints", constraints, Mapping, type(None))
    limits = dict(constraints or {})
    for name, limit in limits.items():
        check_number(f"constraints: the limit of {name!r}", limit)
        if name not in (*directions, *FACTS, *_MEASURED):
            raise ValueError(
                f"constraints: {name!r} is neither an objective, a fact ({sorted(FACTS)}) nor "
                f"'latency_ms'"
            )
    if study is None:
        sampler = RLMSampler(
            describe=space,
            surrogate=surrogate,
            context=[_context(name) for name in directions] if context is None else context,
            seed=seed,
            constraints_func=_constraints(limits, directions) if limits else None,
            warn_independent_sampling=False,
        )
        ways = [optuna.study.StudyDirection[d.upper()] for d in directions.values()]
        study = optuna.create_study(directions=ways, sampler=sampler)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(directions))
    metrics = [*directions, *(name for name in limits if name not in directions)]
    timed = "latency_ms" in metrics and "latency_ms" not in functions
    clock = _Latency(space, measurer, store) if timed else None
    job = _Job(space, study, directions, metrics, functions, clock, rungs)
    try:
        with _progress(show_progress_bar, budget) as advance:
            left = budget
            while left > 0 and (trials := job.ask(min(batch, left))):
                left -= len(trials)
                job.evaluate(trials)
                done = study.get_trials(deepcopy=False)
                for trial in trials:
                    for callback in callbacks:
                        callback(study, done[trial.number])
                advance(len(trials), _standing(study, directions))
            if left > 0:
                _log.info("%s: all networks were tried", space.name)
    finally:
        if clock is not None:
            clock.close()
    return study


@dataclass
class _Job:
    """One search: asks for networks that were not tried, and tells what they reached."""

    space: ArchitectureSpace
    study: Any
    directions: Mapping[str, str]
    metrics: Sequence[str]
    functions: Mapping[str, Objective]
    clock: _Latency | None
    rungs: Rungs | None
    tried: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        import optuna

        self._choices: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(tuple(values))
            for name, values in self.space.parameters.items()
        }
        finished = {t.number: t for t in self.study.get_trials(deepcopy=False)}
        for trial in finished.values():
            if trial.state.is_finished() and set(trial.params) == set(self._choices):
                self.tried.add(self._key(trial.params))
        self._twins: list[Any] = []
        self._all: dict[str, dict[str, Any]] | None = None
        if self.space.size <= _LISTED:
            self._all = {self._key(c): c for c in _combinations(self.space)}
            if not self._all:
                raise ValueError(f"space: no combination of choices of {self.space.name} is valid")

    def ask(self, n: int) -> list[Any]:
        """Up to n trials of networks that were not tried; none where all were."""
        trials: list[Any] = []
        while len(trials) < n and (new := self._new()) is not None:
            trial = self.study.ask(self._choices)
            if self._key(trial.params) in self.tried or not self.space.valid(trial.params):
                self._twins.append(trial)  # its values may only come with this batch
                self.study.enqueue_trial(new)
                trial = self.study.ask(self._choices)
            self.tried.add(self._key(trial.params))
            trials.append(trial)
        return trials

    def _new(self) -> dict[str, Any] | None:
        """A network that was not tried; None where there is none."""
        if self._all is not None:
            new = [config for key, config in self._all.items() if key not in self.tried]
            return new[len(self.tried) * 7919 % len(new)] if new else None
        rng = np.random.default_rng(len(self.tried))
        for _ in range(_DRAWS):
            config = self.space.sample(rng)
            if self._key(config) not in self.tried:
                return config
        return None

    def _key(self, params: Mapping[str, Any]) -> str:
        """Of the network; of the choices where these give none, or none that can be named."""
        try:
            return canonical_json(self.space.canonical(self.space.check(params)))
        except Exception:
            return canonical_json({k: repr(v) for k, v in params.items()})

    def _tell_twin(self, trial: Any) -> None:
        """The values of the same network's trial; a failed trial where that has none yet."""
        import optuna

        key = self._key(trial.params)
        for other in self.study.get_trials(deepcopy=False):
            if other.state.name == "COMPLETE" and self._key(other.params) == key:
                for name, value in {**other.user_attrs, "twin_of": other.number}.items():
                    trial.set_user_attr(name, value)
                self.study.tell(trial, list(other.values))
                return
        twin = self.space.valid(trial.params)
        reason = "the same network was tried and has no values" if twin else "no valid choices"
        trial.set_user_attr("error", reason)
        self.study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def evaluate(self, trials: Sequence[Any]) -> None:
        import optuna

        values = [self._facts(trial) for trial in trials]
        if self.clock is not None:
            sound = [i for i, found in enumerate(values) if found is not None]
            measured = self.clock([trials[i].params for i in sound])
            for i, measurement in zip(sound, measured, strict=True):
                known = values[i]
                if measurement.ok and known is not None and measurement.value is not None:
                    known["latency_ms"] = measurement.value
                else:
                    error = f"{measurement.status.value}: {measurement.reason}"
                    trials[i].set_user_attr("error", error)
                    values[i] = None
        pruned = self._trained(trials, values)
        for i, (trial, reached) in enumerate(zip(trials, values, strict=True)):
            for name, value in (reached or {}).items():
                trial.set_user_attr(name, value)
            if i in pruned:
                self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            elif reached is None:
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            elif odd := [m for m in self.metrics if not math.isfinite(reached[m])]:
                trial.set_user_attr("error", f"{odd[0]} is {reached[odd[0]]}")
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                self.study.tell(trial, [reached[name] for name in self.directions])
        while self._twins:
            self._tell_twin(self._twins.pop())

    def _facts(self, trial: Any) -> dict[str, float] | None:
        """Facts by name; None, with the error as an attribute, where the network is not built."""

        def facts() -> dict[str, float]:
            found = self.space.facts(self.space.check(trial.params))
            return {name: FACTS[name](found) for name in FACTS}

        return _caught(trial, facts)

    def _trained(self, trials: Sequence[Any], values: list[dict[str, float] | None]) -> set[int]:
        """Add what the functions say; the trials that few epochs ended."""
        steps = self.rungs.epochs if self.rungs is not None else (None,)
        going = [i for i, found in enumerate(values) if found is not None]
        pruned: set[int] = set()
        for rung, count in enumerate(steps):
            for i in list(going):
                extra = () if count is None else (count,)
                config = self.space.check(trials[i].params)

                def reached(config: Any = config, extra: Any = extra) -> dict[str, float]:
                    return {n: float(f(config, *extra)) for n, f in self.functions.items()}

                found = _caught(trials[i], reached)
                known = values[i]
                if found is None or known is None:
                    values[i] = None
                    going.remove(i)
                    continue
                known.update(found)
                if count is not None:
                    known.update({f"{name}_{count}": value for name, value in found.items()})
                    if len(self.directions) == 1:
                        trials[i].report(next(iter(found.values())), count)
            if self.rungs is None:
                break
            first = next(iter(self.functions))
            sign = -1.0 if self.directions.get(first) == "minimize" else 1.0
            scores = {trials[i].number: sign * (values[i] or {})[first] for i in going}
            keep = self.rungs.promoted(rung, scores)
            ended = {i for i in going if trials[i].number not in keep}
            pruned |= ended
            going = [i for i in going if i not in ended]
        return pruned


def _combinations(space: ArchitectureSpace) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*space.parameters.values()):
        config = dict(zip(space.parameters, values, strict=True))
        if space.valid(config):
            yield config


def _caught(trial: Any, function: Callable[[], dict[str, float]]) -> dict[str, float] | None:
    try:
        return function()
    except Exception as error:
        trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:500])
        return None


def _context(metric: str) -> dict[str, Any]:
    if metric not in _MEASURED:
        return {"metric": metric}
    from autotune_rlm.measure.detect import cpu_device

    return {"metric": metric, "device": cpu_device(), "runtime": "onnxruntime", "batch": 1}


def _objectives(
    objectives: Mapping[str, str | tuple[str, Objective]],
) -> tuple[dict[str, str], dict[str, Objective]]:
    check_type("objectives", objectives, Mapping)
    if not objectives:
        raise ValueError("objectives must name at least one metric")
    directions: dict[str, str] = {}
    functions: dict[str, Objective] = {}
    for name, given in objectives.items():
        direction, *rest = [given] if isinstance(given, str) or callable(given) else given
        if direction not in ("minimize", "maximize"):
            raise ValueError(f"objectives: {name} must minimize or maximize, got {direction!r}")
        directions[name] = direction
        if rest and callable(rest[0]):
            functions[name] = cast("Objective", rest[0])
        elif rest or (name not in FACTS and name not in _MEASURED):
            raise ValueError(
                f"objectives: {name!r} needs a function of the configuration: "
                f'{{"{name}": ("{direction}", function)}}'
            )
    return directions, functions


def _constraints(
    limits: Mapping[str, float], directions: Mapping[str, str]
) -> Callable[[Any], Sequence[float]]:
    def violations(trial: Any) -> list[float]:
        found = []
        for name, limit in limits.items():
            value = trial.user_attrs.get(name, math.inf)
            scale = abs(limit) or 1.0
            sign = -1.0 if directions.get(name) == "maximize" else 1.0
            found.append(sign * (value - limit) / scale if math.isfinite(value) else 1.0)
        return found

    return violations


def _standing(study: Any, directions: Mapping[str, str]) -> str:
    done = [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
    if not done:
        return "none has worked yet"
    bests = []
    for i, (name, direction) in enumerate(directions.items()):
        values = [t.values[i] for t in done]
        bests.append(f"{name} {(min if direction == 'minimize' else max)(values):.4g}")
    return "best " + ", ".join(bests)


@contextlib.contextmanager
def _progress(shown: bool | None, budget: int) -> Iterator[Callable[[int, str], None]]:
    """A function that is told how many networks were measured, and how the search stands."""
    begin, count, told = time.monotonic(), 0, ""
    with ProgressLine(total=budget, quiet=shown is False) as line:

        def advance(n: int, text: str) -> None:
            nonlocal count, told
            count += n
            seconds = time.monotonic() - begin
            told = f"{count} of {budget} networks, {seconds:.0f} s: {text}"
            _log.info("%s", told)
            line(told, count)

        yield advance
    if shown and told:
        line.print(told)


class _Latency:
    """Measures batches of networks, and remembers them in a store."""

    def __init__(
        self, space: ArchitectureSpace, measurer: Measurer | None, store: Store | None
    ) -> None:
        from autotune_rlm.measure.detect import cpu_device, versions
        from autotune_rlm.measure.onnxruntime import OnnxRuntimeMeasurer

        self._space = space
        self._own = measurer is None
        self._measurer = measurer or OnnxRuntimeMeasurer(lambda c: space.model(c.config))
        self._store = store
        known = {k: v for k, v in versions().items() if k == "onnxruntime"}
        self.task = Task(
            kernel=space.name,
            device=cpu_device(),
            problem={"input": list(space.input_shape)},
            language="onnx",
            metric="latency_ms",
            versions=known,
        )

    def __call__(self, configs: Sequence[Mapping[str, Any]]) -> list[Measurement]:
        candidates = [Candidate(self._space.canonical(c)) for c in configs]
        known = {}
        if self._store is not None:
            for seen in self._store.observations(self.task):
                if seen.measurement.ok:
                    known[seen.candidate.key] = seen.measurement
        new = {c.key: c for c in candidates if c.key not in known}
        for candidate, measurement in self._measurer.measure(self.task, list(new.values())):
            known[candidate.key] = measurement
            if self._store is not None:
                self._store.add(self.task, candidate, measurement)
        missing = Measurement(status=Status.SKIPPED, reason="the measurer gave no answer")
        return [known.get(c.key, missing) for c in candidates]

    def close(self) -> None:
        if self._own:
            self._measurer.close()  # type: ignore[attr-defined]
