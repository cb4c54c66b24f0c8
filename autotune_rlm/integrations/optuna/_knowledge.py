"""What is known beyond a study's own trials: descriptions, the surrogate, earlier studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution

from autotune_rlm.integrations.optuna._describe import Describer
from autotune_rlm.integrations.optuna._encoding import Encoding, extend
from autotune_rlm.integrations.optuna._trials import collect
from autotune_rlm.learn.gaussian_process import Points, fit
from autotune_rlm.types import Task

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["Descriptions", "EarlierStudies", "trials_of"]


class EarlierStudies:
    """Processes of earlier studies over the same parameters; their means are trends here.

    Args:
        encoding: Of the parameters.
        studies: Raw vectors (n, d) and values (n, k), to be maximised, of each.
    """

    def __init__(
        self, encoding: Encoding, studies: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> None:
        from autotune_rlm.integrations.optuna._model import normalise

        self._encoding = encoding
        self._processes = []
        for raw, values in studies:
            if len(values) < 2:
                continue
            points = encoding.points(raw)
            columns = [normalise(column) for column in values.T]
            self._processes.append([fit(points, column, max_fit=160) for column in columns])

    def __len__(self) -> int:
        return len(self._processes)

    def trends(self, raw: np.ndarray) -> np.ndarray:
        """Predictions of each earlier study, shape (studies, m, objectives)."""
        points = self._encoding.points(raw)
        return np.array(
            [
                np.column_stack([process.predict(points)[0] for process in study])
                for study in self._processes
            ]
        )


def trials_of(
    studies: Sequence[Study],
    encoding: Encoding,
    space: Mapping[str, BaseDistribution],
    objectives: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Raw vectors and values of the finished trials of earlier studies.

    Raises:
        ValueError: A study has another number of objectives.
    """
    found = []
    for study in studies:
        if len(study.directions) != objectives:
            raise ValueError(
                f"warm_start: study {study.study_name!r} has {len(study.directions)} "
                f"objectives, this one {objectives}"
            )
        data = collect(study, encoding, space, own_id=-1, cache={})
        found.append((data.raw, data.values))
    return found


class Descriptions:
    """Points with the columns that descriptions add, on scales fixed by a reference sample.

    Args:
        describer: Describes parameters.
        encoding: The parameters' own columns.
        tasks: What the surrogate is asked, per objective.
        reference: Raw vectors that fix location and scale of the columns, shape (r, d).
    """

    def __init__(
        self, describer: Describer, encoding: Encoding, tasks: Sequence[Task], reference: np.ndarray
    ) -> None:
        self._describer = describer
        self._encoding = encoding
        self._tasks = tasks
        facts = describer.facts(self._params(reference))
        self._width = facts.shape[1]
        self._mean, self._scale = facts.mean(0), facts.std(0)
        self._live = self._scale > 1e-9
        self._trend_scale = []
        if describer.asks:
            predicted = self._predicted(reference)
            self._trend_scale = [(c.mean(), max(float(c.std()), 1e-9)) for c in predicted.T]

    def _params(self, raw: np.ndarray) -> list[dict[str, Any]]:
        return [self._encoding.params(row) for row in raw]

    def _predicted(self, raw: np.ndarray) -> np.ndarray:
        params = self._params(raw)
        return np.column_stack([self._describer.predicted(task, params) for task in self._tasks])

    def trend(self, raw: np.ndarray) -> np.ndarray:
        """The surrogate's standardised predictions, shape (m, objectives); zeros without one."""
        if not self._trend_scale:
            return np.zeros((len(raw), len(self._tasks)))
        predicted = self._predicted(raw)
        mean, scale = np.array(self._trend_scale).T
        return np.clip((predicted - mean) / scale, -4.0, 4.0)

    def points(self, raw: np.ndarray) -> Points:
        """Parameters' columns, then facts."""
        facts = self._describer.facts(self._params(raw))[:, : self._width][:, self._live]
        scaled = np.clip((facts - self._mean[self._live]) / self._scale[self._live], -4.0, 4.0)
        return extend(self._encoding.points(raw), scaled)
