"""Search over tables: samplers of Optuna compared by the best value so far."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from autotune_rlm.bench._table_surrogate import TableSurrogate
from autotune_rlm.landscapes.architectures import ArchitectureTable
from autotune_rlm.landscapes.columns import column_task
from autotune_rlm.networks.rendering import is_known_space
from autotune_rlm.networks.spaces import ArchitectureSpace
from autotune_rlm.types import Surrogate, Task, canonical_json

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = [
    "METHODS",
    "SearchRun",
    "TableObjective",
    "regularised_evolution",
    "search_json",
    "search_runs",
]

METHODS = ("rlm", "no-model", "few-shot", "tpe", "gp", "cmaes", "random", "evolution")
"""``rlm`` is ``RLMSampler`` with the space and the language model; ``no-model`` the same without it;
``few-shot`` the same led by regression on other tables."""
_POPULATION = 20
_TOURNAMENT = 5


@dataclass(frozen=True)
class SearchRun:
    """One search.

    Attributes:
        method: One of ``METHODS``.
        seed: Of the sampler.
        values: Value of each trial; None where the table does not hold the network.
        best: Best value so far after each trial; None before any.
        seconds: Wall clock of the sampler, all trials.
    """

    method: str
    seed: int
    values: tuple[float | None, ...]
    best: tuple[float | None, ...]
    seconds: float


class Objective(Protocol):
    """What a search without Optuna needs: a space, and the value of a configuration."""

    space: ArchitectureSpace

    def __call__(self, config: Mapping[str, Any]) -> float | None:
        """The value; None where there is none."""
        ...


class TableObjective:
    """A table's column as an objective: a network's configuration to its value.

    Args:
        table: The networks.
        target: The column.
    """

    def __init__(self, table: ArchitectureTable, target: str) -> None:
        self.space = table.space
        values = table.target(target)
        keys = map(canonical_json, table.configs)
        self._values = {k: float(v) for k, v in zip(keys, values, strict=True) if np.isfinite(v)}

    def __call__(self, config: Mapping[str, Any]) -> float | None:
        """The value; None where the choices give no network or none that the table holds."""
        if not self.space.valid(config):
            return None
        return self._values.get(canonical_json(self.space.canonical(config)))


def search_runs(
    table: ArchitectureTable,
    target: str,
    direction: str,
    methods: Sequence[str],
    trials: int,
    seeds: int,
    *,
    train: Sequence[ArchitectureTable] = (),
    surrogate: Surrogate | None = None,
) -> Iterator[SearchRun]:
    """Searches, one per method and seed.

    A network that the table does not hold fails its trial, for every method alike, and counts.

    Args:
        table: The networks.
        target: Column to optimise.
        direction: ``"maximize"`` or ``"minimize"``.
        methods: Names from ``METHODS``.
        trials: Trials of each search.
        seeds: Searches per method.
        train: Tables known before, which lead the method ``few-shot``.
        surrogate: Leads the method ``rlm``; by default the bundled one if it knows networks. What it
            was trained on may hold these very networks: leave them out of the table to compare.

    Raises:
        ValueError: A method is unknown, or ``few-shot`` has no table to learn from.
    """
    if unknown := sorted(set(methods) - set(METHODS)):
        raise ValueError(f"method must be of {METHODS}, got {unknown}")
    objective = TableObjective(table, target)
    leads: dict[str, Any] = {"rlm": surrogate, "no-model": False}
    if "few-shot" in methods:
        if not train:
            raise ValueError("method few-shot needs tables to learn from (train)")
        leads["few-shot"] = TableSurrogate(table, target, train)
    task = column_task(target, table.space.name, named=is_known_space(table.space))
    task = replace(task, minimize=direction == "minimize")
    for method in methods:
        for seed in range(seeds):
            if method == "evolution":
                yield regularised_evolution(objective, direction, trials, seed)
            else:
                sampler = _sampler(method, seed, objective, task, leads)
                yield _study(objective, direction, trials, seed, method, sampler)


def search_json(
    runs: Sequence[SearchRun], *, table: str, target: str, direction: str
) -> dict[str, Any]:
    """The results as plain JSON, with the mean of the best so far per method."""
    return {
        "table": table,
        "target": target,
        "direction": direction,
        "runs": [asdict(r) for r in runs],
        "summary": [_summary(m, runs) for m in dict.fromkeys(r.method for r in runs)],
    }


def _summary(method: str, runs: Sequence[SearchRun]) -> dict[str, Any]:
    curves = np.array([r.best for r in runs if r.method == method], dtype=float)
    known = ~np.isnan(curves).any(0)
    mean = [float(v) if ok else None for v, ok in zip(curves.mean(0), known, strict=True)]
    return {
        "method": method,
        "mean_best": mean,
        "mean_best_final": mean[-1],
        "mean_best_over_trials": None if np.isnan(curves).all() else float(np.nanmean(curves)),
    }


def _curve(values: Sequence[float | None], direction: str) -> tuple[float | None, ...]:
    better = max if direction == "maximize" else min
    best: float | None = None
    curve = []
    for value in values:
        if value is not None:
            best = value if best is None else better(best, value)
        curve.append(best)
    return tuple(curve)


def _study(
    objective: TableObjective,
    direction: str,
    trials: int,
    seed: int,
    method: str,
    sampler: BaseSampler,
) -> SearchRun:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    way = optuna.study.StudyDirection[direction.upper()]
    study = optuna.create_study(direction=way, sampler=sampler)
    values: list[float | None] = []
    start = time.perf_counter()
    for _ in range(trials):
        trial = study.ask()
        config = {
            name: trial.suggest_categorical(name, choices)
            for name, choices in objective.space.parameters.items()
        }
        value = objective(config)
        values.append(value)
        if value is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, value)
    seconds = time.perf_counter() - start
    return SearchRun(method, seed, tuple(values), _curve(values, direction), seconds)


def _sampler(
    method: str, seed: int, objective: TableObjective, task: Task, leads: Mapping[str, Any]
) -> BaseSampler:
    import optuna

    from autotune_rlm.integrations.optuna import RLMSampler

    if method in leads:
        return RLMSampler(
            describe=objective.space,
            context=task,
            surrogate=leads[method],
            seed=seed,
            warn_independent_sampling=False,
        )
    samplers = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if method == "tpe":
            return samplers.TPESampler(seed=seed)
        if method == "gp":
            return samplers.GPSampler(seed=seed)
        if method == "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return samplers.RandomSampler(seed=seed)


def regularised_evolution(
    objective: Objective, direction: str, trials: int, seed: int
) -> SearchRun:
    """Regularised evolution (Real et al., AAAI 2019), population 20, tournaments of 5.

    Args:
        objective: Has a ``space`` and gives the value of a configuration, or None.
        direction: ``"maximize"`` or ``"minimize"``.
        trials: Evaluations.
        seed: Of all its choices.
    """
    rng = np.random.default_rng(seed)
    sign = 1.0 if direction == "maximize" else -1.0
    start = time.perf_counter()
    population: list[tuple[dict[str, Any], float]] = []
    values: list[float | None] = []
    while len(values) < trials:
        if len(population) < _POPULATION:
            config = objective.space.sample(rng)
        else:
            picked = rng.choice(len(population), size=_TOURNAMENT, replace=False)
            parent = max((population[i] for i in picked), key=lambda member: member[1])
            config = objective.space.mutate(parent[0], rng)
        value = objective(config)
        values.append(value)
        population.append((config, -math.inf if value is None else sign * value))
        population = population[-_POPULATION:]
    seconds = time.perf_counter() - start
    return SearchRun("evolution", seed, tuple(values), _curve(values, direction), seconds)
