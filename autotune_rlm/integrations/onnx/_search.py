"""Searches an architecture space: rank, measure, learn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autotune_rlm.integrations.onnx._predict import FACTS
from autotune_rlm.networks.spaces import ArchitectureSpace
from autotune_rlm.types import Candidate, Measurement, Measurer, Status, Surrogate, Task

if TYPE_CHECKING:
    import optuna

    from autotune_rlm.store import Store

__all__ = ["search"]

Objective = Callable[[dict[str, Any]], float]
_MEASURED = ("latency_ms",)


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
    callbacks: Sequence[Callable[[optuna.Study, optuna.trial.FrozenTrial], None]] = (),
) -> optuna.Study:
    """Search a space for networks that trade objectives off best.

    Candidates are random ones and mutants of the best so far, ranked by ``RLMSampler`` on their
    choices, costs and the surrogate's word. The best of each batch are measured, and learned from.
    A network that fails to build or to run fails its trial and stops nothing.

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
        callbacks: Called with the study and each trial after its batch was measured.

    Returns:
        The study. Trials carry all facts and constrained metrics as user attributes.

    Raises:
        ValueError: An objective is unknown or lacks a function, or the budget is not positive.
    """
    import optuna

    from autotune_rlm.integrations.optuna import RLMSampler

    if budget < 1 or batch < 1:
        raise ValueError(f"budget and batch must be at least 1, got {budget} and {batch}")
    if not objectives:
        raise ValueError("objectives must name at least one metric")
    directions, functions = _objectives(objectives)
    limits = dict(constraints or {})
    for name in limits:
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
    choices: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution(tuple(values))
        for name, values in space.parameters.items()
    }
    clock = (
        _Latency(space, measurer, store)
        if "latency_ms" in metrics and ("latency_ms" not in functions)
        else None
    )
    try:
        left = budget
        while left > 0:
            trials = [study.ask(choices) for _ in range(min(batch, left))]
            left -= len(trials)
            _evaluate(study, space, trials, directions, metrics, functions, clock)
            done = study.get_trials(deepcopy=False)
            for trial in trials:
                for callback in callbacks:
                    callback(study, done[trial.number])
    finally:
        if clock is not None:
            clock.close()
    return study


def _context(metric: str) -> dict[str, Any]:
    if metric not in _MEASURED:
        return {"metric": metric}
    from autotune_rlm.measure.detect import cpu_device

    return {"metric": metric, "device": cpu_device(), "runtime": "onnxruntime", "batch": 1}


def _objectives(
    objectives: Mapping[str, str | tuple[str, Objective]],
) -> tuple[dict[str, str], dict[str, Objective]]:
    directions: dict[str, str] = {}
    functions: dict[str, Objective] = {}
    for name, given in objectives.items():
        direction = given if isinstance(given, str) else given[0]
        if direction not in ("minimize", "maximize"):
            raise ValueError(f"objectives: {name} must minimize or maximize, got {direction!r}")
        directions[name] = direction
        if not isinstance(given, str):
            functions[name] = given[1]
        elif name not in FACTS and name not in _MEASURED:
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


def _evaluate(
    study: Any,
    space: ArchitectureSpace,
    trials: Sequence[Any],
    directions: Mapping[str, str],
    metrics: Sequence[str],
    functions: Mapping[str, Objective],
    clock: _Latency | None,
) -> None:
    import optuna

    values = [_known(space, trial, functions) for trial in trials]
    if clock is not None:
        sound = [i for i, found in enumerate(values) if found is not None]
        for i, measurement in zip(sound, clock([trials[i].params for i in sound]), strict=True):
            known = values[i]
            if measurement.ok and known is not None and measurement.value is not None:
                known["latency_ms"] = measurement.value
            else:
                trials[i].set_user_attr(
                    "error", f"{measurement.status.value}: {measurement.reason}"
                )
                values[i] = None
    for trial, reached in zip(trials, values, strict=True):
        if reached is None or not all(math.isfinite(reached[m]) for m in metrics):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        for name, value in reached.items():
            trial.set_user_attr(name, value)
        study.tell(trial, [reached[name] for name in directions])


def _known(
    space: ArchitectureSpace, trial: Any, functions: Mapping[str, Objective]
) -> dict[str, float] | None:
    """Facts and the functions' values; None, with the error as an attribute, where one fails."""
    try:
        config = space.check(trial.params)
        facts = space.facts(config)
        found = {name: FACTS[name](facts) for name in FACTS}
        found.update({name: float(function(config)) for name, function in functions.items()})
    except Exception as error:
        trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:500])
        return None
    return found


class _Latency:
    """Measures batches of networks, and remembers them in a store."""

    def __init__(
        self, space: ArchitectureSpace, measurer: Measurer | None, store: Store | None
    ) -> None:
        from autotune_rlm.measure.detect import cpu_device, versions
        from autotune_rlm.measure.onnxruntime import OnnxRuntimeMeasurer

        self._space = space
        self._own = measurer is None
        self._measurer = measurer or OnnxRuntimeMeasurer(self._bytes)
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

    def _bytes(self, candidate: Candidate) -> bytes:
        return self._space.model(candidate.config).SerializeToString()

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
        """End the measurer that was started here."""
        if self._own:
            self._measurer.close()  # type: ignore[attr-defined]
