"""Gaussian processes of a study's objectives and constraints, and the acquisition over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy.stats import yeojohnson

from autotune_rlm.integrations.optuna._acquisition import (
    log_expected_improvement,
    log_feasible,
    scalarised_improvement,
)
from autotune_rlm.integrations.optuna._encoding import extend
from autotune_rlm.integrations.optuna._trials import StudyData
from autotune_rlm.learn.gaussian_process import GaussianProcess, Points, fit

__all__ = ["StudyModel", "Trend", "normalise"]

_MOST_POINTS = 400  # the processes are conditioned on at most this many trials

Encode = Callable[[np.ndarray], Points]
Trend = Callable[[np.ndarray], np.ndarray]
_TRUST = 0.6  # weight of the trends together, before any of it is checked


def normalise(values: np.ndarray) -> np.ndarray:
    """Values (n,) to be maximised, monotonically to about standard normal.

    Hopeless values are drawn in (no lower than the median minus four times the way from the median
    to the best), and a power transform (Yeo and Johnson, 2000) takes the skew out.
    """
    values = np.asarray(values, dtype=float)
    middle, best = np.median(values), values.max()
    if best > middle:
        values = np.maximum(values, middle - 4.0 * (best - middle))
    spread = values.std()
    if spread <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return np.zeros_like(values)
    scaled = (values - values.mean()) / spread
    if len(values) >= 8:
        try:
            moved = yeojohnson(scaled)[0]
        except Exception:  # the likelihood's optimum can lie beyond floating point
            moved = scaled
        if np.isfinite(moved).all() and moved.std() > 1e-6:
            scaled = (moved - moved.mean()) / moved.std()
    return scaled


@lru_cache(maxsize=16)
def _normalised(values: bytes) -> np.ndarray:
    """``normalise``, once for all models of the same trials."""
    return normalise(np.frombuffer(values))


class StudyModel:
    """One process per objective and per constraint, conditioned on finished and pending trials.

    Args:
        data: The trials.
        encode: Raw vectors (m, d) to points.
        trends: Standardised predictions of other models, raw vectors (m, d) to (m, k). They are
            the prior mean, and a linear input each, so that their weight is learned.
        name: Tells the fits of several models apart in ``starts``.
        starts: ``theta`` of each process's last fit by name, read and written here.
        refit: Whether to fit hyperparameters, rather than to reuse ``starts`` where they are.
        noise: Expected variance of the noise relative to the values.
    """

    def __init__(
        self,
        data: StudyData,
        encode: Encode,
        *,
        trends: Sequence[Trend] = (),
        name: str = "",
        starts: dict[str, np.ndarray],
        refit: bool,
        noise: float,
    ) -> None:
        self._plain_encode = encode
        self._trends = trends
        self._name = name
        self._starts = starts
        self._refit = refit
        self._noise = noise
        n, k = data.values.shape
        self._values = np.column_stack([_normalised(data.values[:, i].tobytes()) for i in range(k)])
        self._feasible = data.feasible
        rows = self._keep(n)
        points, prior = self._encode(data.raw[rows])
        pending = self._encode(data.pending)[0] if len(data.pending) else None
        targets = self._values[rows] - prior
        self._objectives = [
            self._fit(f"objective {i}", points, targets[:, i], pending) for i in range(k)
        ]
        self._constraints: list[tuple[GaussianProcess, float]] = []
        if data.constraints is not None:
            for i, column in enumerate(data.constraints.T):
                scale = max(float(column.std()), 1e-9)
                bounded = np.clip(column / scale, -3.0, 3.0)
                process = self._fit(f"constraint {i}", points, bounded[rows], None)
                self._constraints.append((process, 0.0))
        means = prior + np.column_stack([g.predict(points)[0] for g in self._objectives])
        self._observed = means[self._feasible[rows]]
        if pending is not None and len(self._observed):
            believed = np.column_stack([g.predict(pending)[0] for g in self._objectives])
            believed += self._encode(data.pending)[1]
            self._observed = np.vstack([self._observed, believed])

    def _encode(self, raw: np.ndarray) -> tuple[Points, np.ndarray]:
        """Points with the trends as columns, and the prior mean (m, k)."""
        points = self._plain_encode(raw)
        k = self._values.shape[1]
        if not self._trends:
            return points, np.zeros((len(raw), k))
        columns = [trend(raw) for trend in self._trends]
        prior = _TRUST * np.mean(columns, axis=0)
        return extend(points, np.hstack(columns), distance=False), prior

    def _keep(self, n: int) -> np.ndarray:
        if n <= _MOST_POINTS:
            return np.arange(n)
        order = np.argsort(-self._values.mean(1), kind="stable")
        best = order[: _MOST_POINTS // 2]
        recent = np.arange(n - _MOST_POINTS // 4, n)
        rest = np.setdiff1d(np.arange(n), np.concatenate([best, recent]))
        left = _MOST_POINTS - len(np.union1d(best, recent))
        spaced = rest[np.linspace(0, len(rest) - 1, left).astype(int)] if len(rest) else rest
        return np.unique(np.concatenate([best, recent, spaced]))

    def _fit(
        self, name: str, points: Points, targets: np.ndarray, pending: Points | None
    ) -> GaussianProcess:
        name = f"{self._name} {name}"
        start = self._starts.get(name)
        iterations = 30 if self._refit or start is None else 0
        process = fit(
            points,
            targets,
            start=start,
            noise=self._noise,
            max_fit=160,
            iterations=iterations,
        )
        self._starts[name] = process.theta
        if pending is not None:  # believe the mean: the spread around trials that run shrinks
            process = process.given(pending, process.predict(pending)[0])
        return process

    def score(self, raw: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """Acquisition of raw vectors, shape (m,); only its order means something."""
        points, prior = self._encode(raw)
        feasible: np.ndarray | float = 0.0
        if self._constraints:
            spreads = [(*g.predict(points), limit) for g, limit in self._constraints]
            feasible = log_feasible(*map(list, zip(*spreads, strict=True)))
            if not self._feasible.any():
                return np.asarray(feasible)
        predicted = [g.predict(points) for g in self._objectives]
        if len(predicted) == 1:
            mean, deviation = predicted[0][0] + prior[:, 0], predicted[0][1]
            best = float(self._observed[:, 0].max())
            return log_expected_improvement(mean, deviation, best) + feasible
        means = prior + np.column_stack([p[0] for p in predicted])
        deviations = np.column_stack([p[1] for p in predicted])
        gain = scalarised_improvement(means, deviations, self._observed, rng)
        return gain + feasible
