"""What is known beyond a study's own trials: descriptions, the surrogate, earlier studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.trial import TrialState

from autotune_rlm.integrations.optuna._describe import Describer, is_number_of_text
from autotune_rlm.integrations.optuna._encoding import Encoding
from autotune_rlm.integrations.optuna._model import normalised
from autotune_rlm.integrations.optuna._trials import constraints_of, maximised
from autotune_rlm.learn.gaussian_process import Points, fit
from autotune_rlm.learn.prior_mean import extend
from autotune_rlm.types import Task

if TYPE_CHECKING:
    from optuna.study import Study

_MAX_TRIALS = 400  # of an earlier study that its process is conditioned on
_MAX_ADVICE = 8  # of an earlier study's best trials that a first trial may begin with


@dataclass(frozen=True)
class EarlierTrials:
    params: Sequence[Mapping[str, Any]]
    values: np.ndarray  # with every objective to be maximised, shape (n, k)
    feasible: np.ndarray  # mask of those that violate no constraint, shape (n,)

    def best(self) -> list[Mapping[str, Any]]:
        """The parameters of its best trials, the best first; of several objectives by mean rank."""
        ranks = np.argsort(np.argsort(-self.values, axis=0, kind="stable"), axis=0).mean(1)
        order = np.argsort(ranks + len(ranks) * ~self.feasible, kind="stable")
        return [self.params[i] for i in order[:_MAX_ADVICE]]


def trials_of(studies: Sequence[Study], objectives: int) -> list[EarlierTrials]:
    """The finished trials of earlier studies; ValueError for one with other objectives."""
    found = []
    for study in studies:
        if len(study.directions) != objectives:
            raise ValueError(
                f"warm_start: study {study.study_name!r} has {len(study.directions)} "
                f"objectives, this one {objectives}"
            )
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        trials = [t for t in done if t.params and t.values is not None]
        if not trials:
            continue
        constraints = [constraints_of(t) for t in trials]
        some = any(constraints)
        feasible = [all(v <= 0.0 for v in c.values()) and bool(c or not some) for c in constraints]
        values = maximised(study, np.array([t.values for t in trials], dtype=float))
        found.append(EarlierTrials([t.params for t in trials], values, np.array(feasible)))
    return found


class EarlierStudies:
    """Processes of earlier studies over some of the same parameters; what they say leads here.

    A parameter or a category that only one of both has is left open in the other.
    """

    def __init__(self, encoding: Encoding, studies: Sequence[EarlierTrials]) -> None:
        self._encoding = encoding
        self._processes = []
        for study in studies:
            raw = np.array([encoding.raw(params) for params in study.params])
            rows = np.flatnonzero(~np.isnan(raw).all(1))
            if len(rows) < 2:
                continue
            rows = rows[np.argsort(-study.values[rows].mean(1), kind="stable")]
            rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MAX_TRIALS)).astype(int)]
            columns = normalised(study.values[rows])
            points = encoding.points(raw[rows])
            self._processes.append([fit(points, column, max_fit=160) for column in columns.T])

    def __len__(self) -> int:
        return len(self._processes)

    def predict(self, raw: np.ndarray) -> np.ndarray:
        """Predictions of each earlier study, shape (m, studies, objectives)."""
        points = self._encoding.points(raw)
        columns = [[p.predict(points)[0] for p in study] for study in self._processes]
        return np.moveaxis(np.array(columns), -1, 0)

    def slopes(self, raw: np.ndarray) -> np.ndarray:
        """Their derivatives in the raw vectors, shape (m, studies, objectives, d)."""
        points = self._encoding.points(raw)

        def of(process: Any) -> np.ndarray:
            found = process.slopes(points)
            return self._encoding.descend(raw, found.mean_spread, found.mean_linear)

        return np.moveaxis(np.array([[of(p) for p in study] for study in self._processes]), 2, 0)


class Descriptions:
    """Points with the columns that descriptions add, on scales fixed by a ``reference`` sample (r, d).

    ``tasks`` are what the surrogate is asked, per objective.
    """

    def __init__(
        self, describer: Describer, encoding: Encoding, tasks: Sequence[Task], reference: np.ndarray
    ) -> None:
        self._describer = describer
        self._encoding = encoding
        self._tasks = tasks
        facts = describer.facts(self._params(reference))
        self._known, self._width = facts, facts.shape[1]
        self._mean, self._scale = facts.mean(0), facts.std(0)
        self._live = self._scale > 1e-9
        self._alone = np.array([is_number_of_text(name) for name in describer.names], dtype=bool)
        self._word_scale = []
        if describer.asks:
            predicted = self._predicted(reference)
            self._word_scale = [(c.mean(), max(float(c.std()), 1e-9)) for c in predicted.T]

    def _params(self, raw: np.ndarray) -> list[dict[str, Any]]:
        return [self._encoding.params(row) for row in raw]

    def _predicted(self, raw: np.ndarray) -> np.ndarray:
        params = self._params(raw)
        return np.column_stack([self._describer.predicted(task, params) for task in self._tasks])

    def predict(self, raw: np.ndarray) -> np.ndarray:
        """The surrogate's standardised predictions, (m, 1, objectives); zeros without one."""
        if not self._word_scale:
            return np.zeros((len(raw), 1, len(self._tasks)))
        predicted = self._predicted(raw)
        mean, scale = np.array(self._word_scale).T
        return np.clip((predicted - mean) / scale, -4.0, 4.0)[:, None, :]

    def points(self, raw: np.ndarray) -> Points:
        """Parameters' columns, then facts: each number of a text by itself, all others together."""
        facts = self._describer.facts(self._params(raw))[:, : self._width][:, self._live]
        scaled = np.clip((facts - self._mean[self._live]) / self._scale[self._live], -4.0, 4.0)
        alone = self._alone[self._live]
        points = self._encoding.points(raw)
        for column, known in zip(
            facts[:, alone].T, self._known[:, self._live][:, alone].T, strict=True
        ):
            levels = np.unique(known)
            place = np.interp(column, levels, np.linspace(-1.0, 1.0, len(levels)))
            points = extend(points, place[:, None], distance=0.5)
        rest = scaled[:, ~alone]
        return extend(points, rest / np.sqrt(max(rest.shape[1], 1)), distance=0.5)
