"""Gaussian process regression on mixed columns, in numpy: the Bayesian layer on numbers.

The covariance of two points is

    s * Matern52(sqrt(sum_g w_g * distance_g^2)) + sum_h v_h * <linear_h, linear_h'> + 1

with an inverse squared length ``w_g`` per group of *spread* columns, a variance ``v_h`` per group
of *linear* columns (main effects, or another model's prediction), and noise. All are fitted by
maximum a posteriori with exact gradients. Targets are expected to be about standard normal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import blas, cho_solve, cholesky, lapack
from scipy.optimize import minimize

__all__ = ["GaussianProcess", "Points", "Slopes", "fit"]

_SQRT5 = np.sqrt(5.0)
_JITTER = 1e-8


@dataclass(frozen=True)
class Points:
    """n encoded points.

    Attributes:
        spread: Columns that distances are taken of, shape (n, a); numbers within about [0, 1],
            categories one-hot divided by sqrt(2).
        linear: Columns with linear effects, shape (n, b), about unit scale.
        spread_groups: Group of each spread column, shape (a,), counted from 0.
        linear_groups: Group of each linear column, shape (b,), counted from 0.
    """

    spread: np.ndarray
    linear: np.ndarray
    spread_groups: np.ndarray
    linear_groups: np.ndarray

    def __len__(self) -> int:
        return len(self.spread)

    def take(self, rows: np.ndarray) -> Points:
        """The points at ``rows``."""
        return Points(self.spread[rows], self.linear[rows], self.spread_groups, self.linear_groups)


@dataclass(frozen=True)
class Slopes:
    """A prediction of m points, and its derivatives in their columns.

    Attributes:
        mean: Shape (m,), as of ``GaussianProcess.predict``.
        deviation: Shape (m,).
        mean_spread: Of the mean in the spread columns, shape (m, a).
        mean_linear: Of the mean in the linear columns, shape (m, b).
        deviation_spread: Of the deviation in the spread columns.
        deviation_linear: Of the deviation in the linear columns.
    """

    mean: np.ndarray
    deviation: np.ndarray
    mean_spread: np.ndarray
    mean_linear: np.ndarray
    deviation_spread: np.ndarray
    deviation_linear: np.ndarray


@dataclass(frozen=True)
class _Priors:
    """Means and deviations of the logarithms of all hyperparameters."""

    mean: np.ndarray
    deviation: np.ndarray

    def penalty(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        z = (theta - self.mean) / self.deviation
        return 0.5 * float(z @ z), z / self.deviation


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted process. ``theta`` are the logarithms of (w, s, v, noise)."""

    points: Points
    theta: np.ndarray
    factor: np.ndarray
    weights: np.ndarray

    @property
    def noise(self) -> float:
        """Variance of the noise."""
        return float(np.exp(self.theta[-1]))

    def predict(self, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the noise-free value, each of shape (m,)."""
        cross = _cross(self.theta, self.points, points)
        mean = cross.T @ self.weights
        half = self._half(cross)
        variance = _diagonal(self.theta, points) - np.einsum("ij,ij->i", half, half)
        return mean, np.sqrt(np.maximum(variance, 1e-10))

    @cached_property
    def _inverse(self) -> np.ndarray:
        return np.asarray(lapack.dtrtri(self.factor, lower=1)[0])

    def _half(self, cross: np.ndarray) -> np.ndarray:
        """H of shape (m, n) with ``H @ H.T = cross.T @ inverse covariance @ cross``."""
        # A product from the right reads ``cross`` as it lies, in a third of the time of a solution.
        return np.asarray(blas.dtrmm(1.0, self._inverse, cross.T, side=1, lower=1, trans_a=1))

    def slopes(self, points: Points) -> Slopes:
        """The prediction, and how it changes with each column of the points."""
        w, s, v, _ = _split(self.theta, points)
        scale = np.sqrt(w[points.spread_groups])
        here, there = self.points.spread * scale, points.spread * scale
        r = _SQRT5 * np.sqrt(_squared(here, there))
        decay = np.exp(-r)
        cross = s * (1.0 + r + r * r / 3.0) * decay + 1.0
        strength = v[points.linear_groups]
        if points.linear.shape[1]:
            cross += (self.points.linear * strength) @ points.linear.T
        inverse = cho_solve((self.factor, True), cross, check_finite=False)
        variance = np.maximum(
            _diagonal(self.theta, points) - np.einsum("ij,ij->j", cross, inverse), 1e-10
        )
        deviation = np.sqrt(variance)
        steep = (-5.0 / 3.0 * s) * (1.0 + r) * decay  # d cross / d (half of the squared distance)

        def of_spread(weights: np.ndarray) -> np.ndarray:
            pull = steep * weights
            return (there * pull.sum(0)[:, None] - pull.T @ here) * scale

        from_cross = (-2.0 * strength) * (inverse.T @ self.points.linear)
        return Slopes(
            mean=cross.T @ self.weights,
            deviation=deviation,
            mean_spread=of_spread(self.weights[:, None]),
            mean_linear=np.tile(strength * (self.points.linear.T @ self.weights), (len(points), 1)),
            deviation_spread=of_spread(-2.0 * inverse) / (2.0 * deviation[:, None]),
            deviation_linear=(2.0 * strength * points.linear + from_cross)
            / (2.0 * deviation[:, None]),
        )

    def left_out(self) -> np.ndarray:
        """Errors in standard deviations, shape (n,), of each observation predicted from the others.

        In closed form (Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", 5.4.2),
        with the hyperparameters that all of them gave.
        """
        inverse = cho_solve((self.factor, True), np.eye(len(self.factor)), check_finite=False)
        return self.weights / np.sqrt(np.diag(inverse))

    def given(self, points: Points, targets: np.ndarray) -> GaussianProcess:
        """The same process with more observations and unchanged hyperparameters."""
        old_targets = self.factor @ (self.factor.T @ self.weights)
        together = Points(
            np.vstack([self.points.spread, points.spread]),
            np.vstack([self.points.linear, points.linear]),
            self.points.spread_groups,
            self.points.linear_groups,
        )
        return _condition(self.theta, together, np.concatenate([old_targets, targets]))


def fit(
    points: Points,
    targets: np.ndarray,
    *,
    start: np.ndarray | None = None,
    noise: float = 1e-3,
    max_fit: int = 250,
    iterations: int = 40,
) -> GaussianProcess:
    """Fit the hyperparameters by maximum a posteriori and condition on all points.

    Args:
        points: The observed points.
        targets: Their values, shape (n,), about standard normal.
        start: ``theta`` of an earlier fit to start from; skipped where its length differs.
        noise: Expected variance of the noise (the median of its prior).
        max_fit: Hyperparameters are fitted to at most this many points: the best half of them,
            the rest evenly from the others.
        iterations: Most L-BFGS-B iterations.
    """
    targets = np.asarray(targets, dtype=np.float64)
    priors = _priors(points, noise)
    sample = _sample(targets, max_fit)
    begin = start if start is not None and len(start) == len(priors.mean) else priors.mean
    if len(targets) < 2 or iterations == 0:
        return _condition(begin, points, targets)
    optimum = minimize(
        _objective,
        begin,
        args=(points.take(sample), targets[sample], priors),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(priors.mean - 6.0, priors.mean + 6.0, strict=True)),
        options={"maxiter": iterations, "ftol": 1e-5},
    )
    return _condition(optimum.x, points, targets)


def _priors(points: Points, noise: float) -> _Priors:
    spread = _count(points.spread_groups)
    linear = _count(points.linear_groups)
    mean = np.concatenate(
        [
            np.full(spread, np.log(3.0) - np.log(max(spread, 1))),
            [np.log(0.7)],
            np.full(linear, np.log(0.1)),
            [np.log(noise)],
        ]
    )
    deviation = np.concatenate([np.full(spread, 1.5), [0.7], np.full(linear, 1.5), [1.5]])
    return _Priors(mean, deviation)


def _sample(targets: np.ndarray, most: int) -> np.ndarray:
    if len(targets) <= most:
        return np.arange(len(targets))
    order = np.argsort(-targets, kind="stable")
    best, rest = order[: most // 2], order[most // 2 :]
    return np.concatenate([best, rest[np.linspace(0, len(rest) - 1, most - most // 2).astype(int)]])


def _count(groups: np.ndarray) -> int:
    return int(groups.max()) + 1 if len(groups) else 0


def _split(theta: np.ndarray, points: Points) -> tuple[np.ndarray, float, np.ndarray, float]:
    spread = _count(points.spread_groups)
    values = np.exp(theta)
    return values[:spread], float(values[spread]), values[spread + 1 : -1], float(values[-1])


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = -2.0 * (a @ b.T)
    squared += np.einsum("ij,ij->i", a, a)[:, None]
    squared += np.einsum("ij,ij->i", b, b)[None, :]
    return np.maximum(squared, 0.0, out=squared)


def _cross(theta: np.ndarray, a: Points, b: Points) -> np.ndarray:
    w, s, v, _ = _split(theta, a)
    scale = np.sqrt(w[a.spread_groups])
    r = _squared(a.spread * scale, b.spread * scale)
    np.sqrt(r, out=r)
    r *= _SQRT5
    covariance = np.exp(-r)
    covariance *= (r / 3.0 + 1.0) * r + 1.0
    covariance *= s
    if a.linear.shape[1]:
        covariance += (a.linear * v[a.linear_groups]) @ b.linear.T
    covariance += 1.0
    return covariance


def _diagonal(theta: np.ndarray, points: Points) -> np.ndarray:
    _, s, v, _ = _split(theta, points)
    return 1.0 + s + (points.linear**2) @ v[points.linear_groups]


def _condition(theta: np.ndarray, points: Points, targets: np.ndarray) -> GaussianProcess:
    covariance = _cross(theta, points, points)
    diagonal = np.einsum("ii->i", covariance)
    diagonal += np.exp(theta[-1])
    for jitter in (_JITTER, 1e-6, 1e-4, 1e-2):
        diagonal += jitter
        try:
            factor = cholesky(covariance, lower=True, check_finite=False)
            break
        except np.linalg.LinAlgError:
            continue
    else:
        diagonal += 1.0
        factor = cholesky(covariance, lower=True, check_finite=False)
    return GaussianProcess(points, theta, factor, cho_solve((factor, True), targets))


def _objective(
    theta: np.ndarray, points: Points, targets: np.ndarray, priors: _Priors
) -> tuple[float, np.ndarray]:
    """Negative log posterior and its gradient in ``theta``."""
    w, s, v, noise = _split(theta, points)
    x = points.spread
    scale = np.sqrt(w[points.spread_groups])
    r = _SQRT5 * np.sqrt(_squared(x * scale, x * scale))
    decay = np.exp(-r)
    matern = (1.0 + r + r * r / 3.0) * decay
    covariance = s * matern + 1.0
    if points.linear.shape[1]:
        covariance += (points.linear * v[points.linear_groups]) @ points.linear.T
    np.einsum("ii->i", covariance)[:] += noise + _JITTER
    factor, failed = lapack.dpotrf(covariance, lower=1, clean=1)
    if failed:
        return 1e10, np.zeros_like(theta)
    alpha = lapack.dpotrs(factor, targets, lower=1)[0]
    inverse = lapack.dpotri(factor, lower=1)[0]
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    outer = 0.5 * (inverse - np.outer(alpha, alpha))

    slope = outer * ((-5.0 / 6.0 * s) * (1.0 + r) * decay)  # d/d(squared distance)
    per_column = 2.0 * (slope.sum(0) @ (x * x) - np.einsum("ij,ij->j", x, slope @ x))
    gradient = np.empty_like(theta)
    gradient[: len(w)] = w * np.bincount(points.spread_groups, per_column, len(w))
    gradient[len(w)] = s * np.vdot(outer, matern)
    if len(v):
        effect = np.einsum("ij,ij->j", points.linear, outer @ points.linear)
        gradient[len(w) + 1 : -1] = v * np.bincount(points.linear_groups, effect, len(v))
    gradient[-1] = noise * np.trace(outer)
    value = 0.5 * float(targets @ alpha) + float(np.log(np.diag(factor)).sum())
    penalty, slope_of_penalty = priors.penalty(theta)
    return value + penalty, gradient + slope_of_penalty
