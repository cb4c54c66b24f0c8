"""What other tables say of an architecture table, behind the ``Surrogate`` protocol."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autotune_rlm.landscapes.architectures import ArchitectureTable
from autotune_rlm.networks.regression import Source, few_shot
from autotune_rlm.types import Candidate, Observation, Prediction, Task, canonical_json


class TableSurrogate:
    """Predicts the target of a table's networks from other tables.

    Args:
        table: The networks that may be asked for.
        target: The column that is predicted; the table's own values are not looked at.
        train: Tables known before.
    """

    def __init__(
        self, table: ArchitectureTable, target: str, train: Sequence[ArchitectureTable]
    ) -> None:
        sources = [Source(known, column) for known in train for column in known.targets]
        trend = few_shot(table, target, sources).trend
        self._space = table.space
        keys = map(canonical_json, table.configs)
        self._trend = dict(zip(keys, trend.tolist(), strict=True))

    def predict(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        *,
        observed: Sequence[Observation] = (),
    ) -> Prediction:
        """Standardised predictions; the worst for networks that the table does not hold."""
        worst = min(self._trend.values()) if not task.minimize else max(self._trend.values())
        median = np.array([self._trend.get(self._key(c), worst) for c in candidates])
        ones = np.ones(len(median))
        return Prediction(
            metric=task.metric,
            median=median,
            low=median - 1.6449,
            high=median + 1.6449,
            spread=ones,
            p_valid=ones,
            log_scale=False,
        )

    def _key(self, candidate: Candidate) -> str:
        config = {name: candidate.config.get(name) for name in self._space.parameters}
        return canonical_json(config)
