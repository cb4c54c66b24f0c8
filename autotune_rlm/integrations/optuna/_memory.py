"""A study's trials in the store, and earlier studies from it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from autotune_rlm._json import is_json
from autotune_rlm.integrations.optuna._describe import tasks_of
from autotune_rlm.integrations.optuna._knowledge import EarlierTrials
from autotune_rlm.integrations.optuna._trials import maximised
from autotune_rlm.types import Candidate, Measurement, Status, Task, canonical_json

if TYPE_CHECKING:
    from optuna.study import Study

    from autotune_rlm.store import Store

_logger = optuna.logging.get_logger(__name__)
_MAX_STUDIES = 4
_MIN_TRIALS = 4


class StudyMemory:
    """Writes each finished trial to a store, and finds earlier studies of the same kind there.

    A study is known by ``context["space"]``, the architecture space that describes it, or its name;
    of one kind are those with this name, the metric and its direction. A store that fails while the
    study runs does not end it: a warning says so once, and the study goes on without.
    """

    def __init__(self, store: Store | str | os.PathLike[str], context: Any, space: str | None):
        self._given = store
        self._store: Store | None = _opened(store)  # now, so that a wrong one is an error at once
        self._context = context
        self._space = space
        self._warned = False

    @property
    def store(self) -> Store:
        """The store; opened again in a process that a copy of the sampler was sent to."""
        if self._store is None:
            self._store = _opened(self._given)
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        opened = not isinstance(self._given, (str, os.PathLike))
        return self.__dict__ if opened else {**self.__dict__, "_store": None}

    def tasks(self, study: Study) -> list[Task]:
        tasks = tasks_of(study, self._context, self._space or study.study_name)
        if self._space is None:
            tasks = [dataclasses.replace(t, language="optuna") for t in tasks]
        return tasks

    def add(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        try:
            self._add(study, trial, state, values)
        except Exception as error:  # the machine's: disk full, server gone
            self._warn(error)

    def _add(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        if state not in (TrialState.COMPLETE, TrialState.FAIL) or not is_json(trial.params):
            return
        candidate = Candidate(dict(trial.params))
        for i, task in enumerate(self.tasks(study)):
            if state == TrialState.COMPLETE and values is not None and np.isfinite(values[i]):
                measurement = Measurement(status=Status.OK, value=float(values[i]))
            else:
                measurement = Measurement(status=Status.RUNTIME_ERROR, reason="the trial failed")
            self.store.add(task, candidate, measurement)

    def earlier(self, study: Study) -> list[EarlierTrials]:
        """The trials of the nearest earlier studies, the nearest first; this study's are left out."""
        try:
            return self._earlier(study)
        except Exception as error:
            self._warn(error)
            return []

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(
                f"RLMSampler: the store cannot be used ({type(error).__name__}: {error}); the study "
                "goes on without it, and this is said once."
            )

    def _earlier(self, study: Study) -> list[EarlierTrials]:
        own = {_key(t.params) for t in study.get_trials(deepcopy=False)}
        tasks = self.tasks(study)
        found = []
        for problem in self._problems(tasks[0]):
            columns = [self._values(task, problem) for task in tasks]
            keys = [k for k in columns[0] if k not in own and all(k in c for c in columns)]
            if len(keys) < _MIN_TRIALS:
                continue
            values = np.array([[column[key][1] for column in columns] for key in keys])
            params = [columns[0][key][0] for key in keys]
            found.append(
                EarlierTrials(params, maximised(study, values), np.ones(len(keys), dtype=bool))
            )
        return found[:_MAX_STUDIES]

    def _problems(self, task: Task) -> list[Mapping[str, Any]]:
        near = self.store.nearest(task, 4 * _MAX_STUDIES, same_device=False)
        problems = [task.problem, *(other.problem for other, _ in near)]
        return list({canonical_json(dict(p)): p for p in problems}.values())

    def _values(
        self, task: Task, problem: Mapping[str, Any]
    ) -> dict[str, tuple[Mapping[str, Any], float]]:
        asked = dataclasses.replace(task, problem=problem)
        return {
            _key(o.candidate.config): (o.candidate.config, o.measurement.value)
            for o in self.store.observations(asked)
            if o.measurement.value is not None
        }


def _opened(store: Store | str | os.PathLike[str]) -> Store:
    from autotune_rlm.store import Store

    return store if isinstance(store, Store) else Store(store)


def _key(params: Mapping[str, Any]) -> str:
    return repr(sorted(params.items()))
