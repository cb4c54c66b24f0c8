"""One recorded search space: a task, its candidates and what each of them did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autotune_rlm._checks import check_all, check_type
from autotune_rlm.types import Candidate, Measurement, Observation, Task


@dataclass(frozen=True)
class Landscape:
    """The candidates of one task with their measurements, ``n`` of each.

    Attributes:
        task: What was tuned.
        candidates: The n configurations, in the order of the record.
        measurements: The n measurements, one per candidate.
        id: Name of the landscape; by default kernel, device and the task's key.

    Raises:
        ValueError: If the numbers of candidates and measurements differ.
    """

    task: Task
    candidates: tuple[Candidate, ...]
    measurements: tuple[Measurement, ...]
    id: str = ""

    def __post_init__(self) -> None:
        check_type("task", self.task, Task)
        object.__setattr__(self, "candidates", tuple(self.candidates))
        object.__setattr__(self, "measurements", tuple(self.measurements))
        check_all("candidates", self.candidates, Candidate)
        check_all("measurements", self.measurements, Measurement)
        if len(self.candidates) != len(self.measurements):
            raise ValueError(
                f"candidates and measurements must be equally many, got {len(self.candidates)} "
                f"and {len(self.measurements)}"
            )
        if not self.id:
            name = f"{self.task.kernel}/{self.task.device.name}/{self.task.key}"
            object.__setattr__(self, "id", name)

    @classmethod
    def from_observations(
        cls, task: Task, observations: Iterable[Observation], *, id: str = ""
    ) -> Landscape:
        """The landscape of what was observed of ``task``."""
        pairs = tuple(observations)
        return cls(
            task=task,
            candidates=tuple(o.candidate for o in pairs),
            measurements=tuple(o.measurement for o in pairs),
            id=id,
        )

    def __len__(self) -> int:
        return len(self.candidates)

    def __hash__(self) -> int:
        return hash((self.id, self.task.key, len(self)))

    def __repr__(self) -> str:
        return f"Landscape({self.id!r}, {len(self)} candidates, {int(self.ok.sum())} ok)"

    @cached_property
    def ok(self) -> np.ndarray:
        """Mask of the candidates that worked, shape (n,)."""
        return _frozen(np.array([m.ok for m in self.measurements], dtype=bool))

    @cached_property
    def values(self) -> np.ndarray:
        """The metric in its unit, float64 of shape (n,); NaN where the candidate failed."""
        numbers = [np.nan if m.value is None else m.value for m in self.measurements]
        return _frozen(np.array(numbers, dtype=np.float64))

    @cached_property
    def best_index(self) -> int | None:
        """Index of the first best candidate; None where none worked."""
        if not self.ok.any():
            return None
        pick = np.nanargmin if self.task.minimize else np.nanargmax
        return int(pick(self.values))

    @property
    def best(self) -> float:
        """The best value; NaN where none worked."""
        return float("nan") if self.best_index is None else float(self.values[self.best_index])

    @cached_property
    def worst(self) -> float:
        """The worst value among the candidates that worked; NaN where none did."""
        if self.best_index is None:
            return float("nan")
        pick = np.nanmax if self.task.minimize else np.nanmin
        return float(pick(self.values))

    def regret(self, value: float | None) -> float:
        """How much worse than the best ``value`` is, as a fraction of the best.

        ``value / best - 1`` where smaller is better, ``(best - value) / |best|`` where larger is.
        NaN for None, for NaN and where no candidate worked.
        """
        if value is None or self.best_index is None:
            return float("nan")
        loss = value - self.best if self.task.minimize else self.best - value
        if loss == 0:
            return 0.0
        return loss / abs(self.best) if self.best else float("inf")

    @property
    def observations(self) -> tuple[Observation, ...]:
        """The n candidates with their measurements."""
        return tuple(map(Observation, self.candidates, self.measurements))

    def take(self, indices: Sequence[int] | np.ndarray) -> Landscape:
        """The landscape of the candidates at ``indices`` (or under a mask), with the same id."""
        chosen = np.arange(len(self))[np.asarray(indices)]
        return Landscape(
            task=self.task,
            candidates=tuple(self.candidates[i] for i in chosen),
            measurements=tuple(self.measurements[i] for i in chosen),
            id=self.id,
        )


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
