"""What a surrogate predicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Prediction"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The surrogate's prediction for n candidates; every array has shape (n,).

    Attributes:
        metric: Name of the predicted value with its unit.
        median: Predicted median in the metric's unit, given that the candidate works.
        low: 5 % quantile in the metric's unit.
        high: 95 % quantile in the metric's unit.
        spread: Standard deviation of ``log(value)`` for positive metrics (``log_scale``), else of
            the value.
        p_valid: Probability that the candidate compiles and runs.
        log_scale: Whether the metric is modelled on a logarithmic scale.
        unfamiliar: Reasons, as sentences, why the training data hardly covers the task; empty where
            it covers the task.
        familiar: Whether the training data has values of similar candidates. Without them the
            predicted order is a guess.
        informed: Whether the compiler's facts order the candidates although no values of similar
            candidates were in the training data.
    """

    metric: str
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    spread: np.ndarray
    p_valid: np.ndarray
    log_scale: bool = True
    unfamiliar: tuple[str, ...] = ()
    familiar: bool = True
    informed: bool = False

    def __post_init__(self) -> None:
        shapes = {name: np.shape(getattr(self, name)) for name in self._arrays()}
        if len(set(shapes.values())) != 1 or len(shapes["median"]) != 1:
            raise ValueError(f"all arrays of a Prediction must have one shape (n,), got {shapes}")

    @staticmethod
    def _arrays() -> tuple[str, ...]:
        return ("median", "low", "high", "spread", "p_valid")

    def __len__(self) -> int:
        return len(self.median)

    @property
    def ordered(self) -> bool:
        """Whether the order is more than a guess: the prediction is ``familiar`` or ``informed``."""
        return self.familiar or self.informed

    @property
    def location(self) -> np.ndarray:
        """The median on the modelled scale: its natural logarithm where ``log_scale``."""
        return np.log(self.median) if self.log_scale else self.median

    def order(self, *, minimize: bool = True) -> np.ndarray:
        """Indices from the most to the least promising; ties keep their order.

        The sort key is the median on the modelled scale plus a penalty of ``-log(p_valid)`` (times the
        medians' standard deviation where the scale is linear), so likely failures rank behind.
        """
        sign = 1.0 if minimize else -1.0
        scale = 1.0 if self.log_scale else float(np.std(self.median)) or 1.0
        penalty = -scale * np.log(np.clip(self.p_valid, 1e-9, 1.0))
        return np.argsort(sign * self.location + penalty, kind="stable")

    def take(self, indices: Sequence[int] | np.ndarray) -> Prediction:
        """The prediction of the candidates at ``indices``."""
        picked = {name: getattr(self, name)[np.asarray(indices)] for name in self._arrays()}
        return dataclasses.replace(self, **picked)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary with lists."""
        arrays = {name: [float(x) for x in getattr(self, name)] for name in self._arrays()}
        reasons = {"unfamiliar": list(self.unfamiliar)} if self.unfamiliar else {}
        names = ("metric", "log_scale", "familiar", "informed")
        return {**{name: getattr(self, name) for name in names}, **reasons, **arrays}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prediction:
        """The inverse of ``to_json``."""
        arrays = {name: np.asarray(data[name], dtype=np.float64) for name in cls._arrays()}
        return cls(
            metric=data["metric"],
            log_scale=data["log_scale"],
            unfamiliar=tuple(data.get("unfamiliar", ())),
            familiar=data.get("familiar", True),
            informed=data.get("informed", False),
            **arrays,
        )
