"""Values as about standard normal numbers, and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import yeojohnson

__all__ = ["PowerTransform", "standardised"]

_MIN_COUNT = 8  # fewest values from which a skew is estimated
_POWERS = (-2.0, 4.0)  # bounds of the power, beyond which the inverse overflows


def standardised(values: np.ndarray) -> np.ndarray:
    """Values of mean 0 and variance 1, shape (n,) or by column (n, k); zeros where all are equal."""
    centred = values - values.mean(0)
    spread = values.std(0)
    least = 1e-12 * np.maximum(1.0, np.abs(values).max(0, initial=0.0))
    return centred / np.where(spread > least, spread, 1.0) * (spread > least)


@dataclass(frozen=True)
class PowerTransform:
    """A monotone map of n values to about standard normal, after Yeo and Johnson (2000).

    Attributes:
        values: The values that it is fitted to, shape (n,).
        reach: Values are clipped below at the median minus ``reach`` times the distance from the
            median to the best (largest) value; None does not clip.
    """

    values: np.ndarray
    reach: float | None = None

    @cached_property
    def _floor(self) -> float:
        middle, best = float(np.median(self.values)), float(self.values.max())
        return (
            -np.inf
            if self.reach is None or best <= middle
            else middle - self.reach * (best - middle)
        )

    @cached_property
    def _scale(self) -> tuple[float, float]:
        drawn = np.maximum(self.values, self._floor)
        spread = float(drawn.std())
        least = 1e-12 * max(1.0, float(np.abs(drawn).max()))
        return float(drawn.mean()), spread if spread > least else 0.0

    @cached_property
    def _power(self) -> float:
        middle, spread = self._scale
        if len(self.values) < _MIN_COUNT or spread == 0.0:
            return 1.0
        try:
            power = yeojohnson((np.maximum(self.values, self._floor) - middle) / spread)[1]
        except Exception:  # the likelihood's optimum can lie beyond floating point
            return 1.0
        return float(np.clip(power, *_POWERS)) if np.isfinite(power) else 1.0

    @cached_property
    def _moved(self) -> tuple[float, float, float, float]:
        moved = self._forward(self.values)
        shift, width = float(moved.mean()), float(moved.std()) or 1.0
        return shift, width, float(moved.min()) - 2.0 * width, float(moved.max()) + 2.0 * width

    def _forward(self, values: np.ndarray) -> np.ndarray:
        middle, spread = self._scale
        scaled = (np.maximum(values, self._floor) - middle) / (spread or 1.0)
        return np.asarray(yeojohnson(scaled, lmbda=self._power))

    @property
    def normal(self) -> np.ndarray:
        """The values themselves, transformed; zeros where all are equal."""
        if self._scale[1] == 0.0:
            return np.zeros(len(self.values))
        shift, width, _, _ = self._moved
        return (self._forward(self.values) - shift) / width

    def back(self, score: np.ndarray) -> np.ndarray:
        """The inverse transform; scores far outside of the fitted range are clipped."""
        middle, spread = self._scale
        shift, width, low, high = self._moved
        moved = np.clip(score * width + shift, low, high)
        return middle + (spread or 1.0) * _inverse(moved, self._power)


def _inverse(y: np.ndarray, power: float) -> np.ndarray:
    """Inverse of the transform of Yeo and Johnson (2000), clipped where it has none."""
    positive, negative = np.maximum(y, 0.0), np.minimum(y, 0.0)
    if abs(power) < 1e-9:
        up = np.expm1(positive)
    else:
        up = np.maximum(power * positive + 1.0, 1e-12) ** (1.0 / power) - 1.0
    other = 2.0 - power
    if abs(other) < 1e-9:
        down = -np.expm1(-negative)
    else:
        down = 1.0 - np.maximum(1.0 - other * negative, 1e-12) ** (1.0 / other)
    return np.where(y >= 0, up, down)
