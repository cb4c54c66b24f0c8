"""Maps finite numbers to a scale on which their errors are comparable, and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_SKEWED = (
    20.0  # ratio of the 95 % to the 5 % quantile of sizes, from which the scale is logarithmic
)
_FAR = 40.0  # argument from which sinh(x) equals exp(x) / 2 in floating point
_HUGE = float(np.finfo(np.float64).max)


@dataclass(frozen=True, kw_only=True)
class TargetScale:
    """Standardised numbers: ``(f(x) - center) / spread``.

    Where sizes span more than one order of magnitude, f is the inverse hyperbolic sine of ``x / unit``:
    the logarithm of large numbers, linear around 0, odd. Else f is the identity, and ``unit`` infinite.

    ``least`` is the smallest number that a place on the scale stands for: 0 where none of the training
    was below, a tiny one where all were above.
    """

    unit: float
    center: float  # mean of f
    spread: float  # standard deviation of f, positive
    least: float = -_HUGE

    @classmethod
    def fit(cls, values: np.ndarray) -> TargetScale:
        """The scale of finite numbers, shape (n,)."""
        sizes = np.abs(values[values != 0])
        unit, least = np.inf, 0.0 if values.min() >= 0 else -_HUGE
        if len(sizes):
            low, high = np.quantile(sizes, (0.05, 0.95))
            if high > _SKEWED * low:
                unit = float(max(low, high * 1e-12))
                if values.min() > 0:  # the logarithm, for all that is like these numbers
                    unit = least = float(max(values.min() * 1e-3, np.finfo(float).tiny))
        raw = cls(unit=unit, center=0.0, spread=1.0).to_scale(values)
        spread = float(raw.std()) or 1.0
        return cls(unit=unit, center=float(raw.mean()), spread=spread, least=least)

    def to_scale(self, values: np.ndarray) -> np.ndarray:
        """Standardised numbers; NaN stays NaN."""
        x = np.asarray(values, dtype=np.float64)
        if np.isfinite(self.unit):
            size = np.abs(x)
            far = size > 1e100 * self.unit  # where the quotient could be no float
            near = np.arcsinh(np.where(far, 1.0, size) / self.unit)
            with np.errstate(divide="ignore"):
                log = np.log(2.0) + np.log(size) - np.log(self.unit)
            x = np.sign(x) * np.where(far, log, near)
        with np.errstate(over="ignore"):
            return np.clip(x / self.spread - self.center / self.spread, -_HUGE, _HUGE)

    def from_scale(self, z: np.ndarray) -> np.ndarray:
        """Numbers of standardised ones, always finite and at least ``least``."""
        with np.errstate(over="ignore"):
            x = np.asarray(z, dtype=np.float64) * self.spread + self.center
            if np.isfinite(self.unit):
                far = np.exp(np.abs(x) + np.log(self.unit) - np.log(2.0))
                near = np.sinh(np.clip(np.abs(x), 0.0, _FAR)) * self.unit
                x = np.sign(x) * np.where(np.abs(x) > _FAR, far, near)
        return np.clip(x, self.least, _HUGE)

    def log_slope(self, values: np.ndarray) -> np.ndarray:
        """Logarithm of the derivative of ``to_scale``, which turns densities into those of numbers."""
        x = np.asarray(values, dtype=np.float64)
        inner = np.zeros_like(x)
        if np.isfinite(self.unit):
            inner = -np.log(np.hypot(x, self.unit))
        return inner - np.log(self.spread)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        data = asdict(self)
        return {**data, "unit": None if np.isinf(self.unit) else self.unit}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TargetScale:
        """The inverse of ``to_json``."""
        return cls(**{**data, "unit": np.inf if data["unit"] is None else data["unit"]})
