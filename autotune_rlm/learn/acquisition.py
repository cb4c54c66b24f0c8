"""Acquisition functions: the worth of a point given its prediction, as a logarithm to maximise."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import erfcx, log_ndtr, logsumexp, ndtr

__all__ = [
    "Boxes",
    "Sloped",
    "feasible_slopes",
    "free_boxes",
    "hypervolume_slopes",
    "improvement_slopes",
    "log_expected_improvement",
    "log_hypervolume_improvement",
    "non_dominated",
]

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_SQRT_HALF_PI = math.sqrt(math.pi / 2)
_ASYMPTOTIC = -1e6  # below it, 1 - x of the exact form has no digits left


class Sloped(NamedTuple):
    """A value of m points and its derivatives in their predicted means and deviations.

    Attributes:
        value: Shape (m,).
        in_mean: Shape of the mean: (m,), or (m, k) of k objectives.
        in_deviation: Shape of the deviation.
    """

    value: np.ndarray
    in_mean: np.ndarray
    in_deviation: np.ndarray


def log_expected_improvement(
    mean: np.ndarray, deviation: np.ndarray, best: float | np.ndarray
) -> np.ndarray:
    """Logarithm of the expected improvement over ``best`` of normal predictions.

    Exact and increasing over the whole range of ``(mean - best) / deviation``, in three pieces as in
    Ament et al. 2023, "Unexpected Improvements to Expected Improvement" (arXiv 2310.20708).

    Args:
        mean: Predicted values, shape (m,).
        deviation: Their standard deviations, greater than 0, shape (m,).
        best: The best value so far.

    Returns:
        Shape (m,).
    """
    return _log_improvement((np.asarray(mean, dtype=float) - best) / deviation) + np.log(deviation)


def _log_improvement(u: np.ndarray) -> np.ndarray:
    """Logarithm of the expected positive part of a normal of mean u and variance 1."""
    near = np.maximum(u, -1.0)
    value = np.log(np.exp(-0.5 * near**2 - _LOG_SQRT_2PI) + near * ndtr(near))
    far = np.minimum(u, -1.0)
    left = np.clip(far, _ASYMPTOTIC, None)
    ratio = -left * _SQRT_HALF_PI * erfcx(-left / math.sqrt(2))  # of u Phi(u) to phi(u), below 1
    log_share = np.where(far > _ASYMPTOTIC, np.log1p(-np.minimum(ratio, 1.0 - 1e-16)), 0.0)
    log_share = np.where(far > _ASYMPTOTIC, log_share, -2.0 * np.log(-far))
    tail = -0.5 * far**2 - _LOG_SQRT_2PI + log_share
    return np.where(u > -1.0, value, tail)


def improvement_slopes(mean: np.ndarray, deviation: np.ndarray, best: float | np.ndarray) -> Sloped:
    """``log_expected_improvement`` and its derivatives in mean and deviation."""
    u = (mean - best) / deviation
    log_part = _log_improvement(u)
    return Sloped(
        log_part + np.log(deviation),
        np.exp(log_ndtr(u) - log_part) / deviation,
        np.exp(-0.5 * u**2 - _LOG_SQRT_2PI - log_part) / deviation,
    )


def feasible_slopes(mean: np.ndarray, deviation: np.ndarray, limit: float) -> Sloped:
    """Log of the probability of staying below a limit, with its derivatives in mean and deviation."""
    u = (limit - mean) / deviation
    value = log_ndtr(u)
    hazard = np.exp(-0.5 * u**2 - _LOG_SQRT_2PI - value) / deviation
    return Sloped(value, -hazard, -hazard * u)


def non_dominated(values: np.ndarray) -> np.ndarray:
    """Mask of the rows of ``values`` (n, k), all to be maximised, that no other row dominates."""
    better = np.all(values[None, :, :] >= values[:, None, :], axis=-1)
    strictly = np.any(values[None, :, :] > values[:, None, :], axis=-1)
    return ~np.any(better & strictly, axis=1)


def log_hypervolume_improvement(
    means: np.ndarray,
    deviations: np.ndarray,
    observed: np.ndarray,
    rng: np.random.RandomState,
    *,
    directions: int = 48,
    samples: int = 16,
) -> np.ndarray:
    """Logarithm of the expected gain in hypervolume, shape (m,), by random scalarisation.

    Hypervolume is an expectation over directions of ``max_y min_i (y_i - z_i)_+ / d_i`` to the
    power of k (Zhang and Golovin, arXiv 2006.04655); the gain is averaged over directions and over
    samples from the posterior.

    Args:
        means: Predicted values, all to be maximised, shape (m, k).
        deviations: Their standard deviations, shape (m, k).
        observed: Values measured so far, shape (n, k).
        rng: Source of directions and samples.
        directions: Number of directions.
        samples: Number of samples of each candidate.
    """
    k = means.shape[1]
    front = observed[non_dominated(observed)]
    low, high = front.min(0), front.max(0)
    span = np.where(high > low, high - low, np.maximum(observed.std(0), 1e-9))
    reference = low - 0.1 * span
    rays = np.abs(rng.standard_normal((directions, k))) + 1e-3
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    normal = rng.standard_normal((samples, 1, k))

    def reach(values: np.ndarray) -> np.ndarray:
        scaled = np.maximum((values - reference) / span, 0.0)
        return (scaled[..., None, :] / rays).min(-1) ** k

    best = reach(front).max(0)
    drawn = means + normal * deviations
    gain = np.maximum(reach(drawn) - best, 0.0).mean((0, 2))
    optimism = ((means + deviations - reference) / span).min(1)
    return np.log(gain + 1e-12) + 1e-3 * optimism


class Boxes(NamedTuple):
    """The region above a reference point that a front does not dominate, as b disjoint boxes.

    Attributes:
        lower: Lower corners, shape (b, k).
        upper: Upper corners, infinite where a box is open, shape (b, k).
    """

    lower: np.ndarray
    upper: np.ndarray


def free_boxes(front: np.ndarray, reference: np.ndarray) -> Boxes:
    """The boxes above ``reference`` that no point of a front dominates.

    Slabs of the last objective, and in each of them those of the others: at most n + 1 boxes of two
    objectives, about n^2 / 2 of three.

    Args:
        front: Points that do not dominate each other, all to be maximised, shape (n, k).
        reference: Lowest corner, shape (k,).
    """
    front = front[np.all(front > reference, axis=1)]
    if len(reference) == 1:
        lowest = max(float(reference[0]), float(front.max(initial=-math.inf)))
        return Boxes(np.array([[lowest]]), np.array([[math.inf]]))
    levels = np.unique(np.append(front[:, -1], reference[-1]))
    lower, upper = [], []
    for i, bottom in enumerate(levels):
        top = levels[i + 1] if i + 1 < len(levels) else math.inf
        above = front[front[:, -1] > bottom, :-1]
        inner = free_boxes(above[non_dominated(above)], reference[:-1])
        n = len(inner.lower)
        lower.append(np.column_stack([inner.lower, np.full(n, bottom)]))
        upper.append(np.column_stack([inner.upper, np.full(n, top)]))
    return Boxes(np.vstack(lower), np.vstack(upper))


def hypervolume_slopes(means: np.ndarray, deviations: np.ndarray, boxes: Boxes) -> Sloped:
    """Logarithm of the expected hypervolume improvement of normal predictions, with derivatives.

    Exact for independent objectives: in a box the product over objectives of the expected length
    inside of it (Yang et al. 2019, "Efficient computation of expected hypervolume improvement using box
    decomposition algorithms"), summed over the boxes.

    Args:
        means: Predicted values, all to be maximised, shape (m, k).
        deviations: Their standard deviations, shape (m, k).
        boxes: The non-dominated region, from ``free_boxes``.
    """
    total = np.zeros((len(means), len(boxes.lower)))
    parts = []
    for j in range(means.shape[1]):
        levels, index = np.unique(
            np.concatenate([boxes.lower[:, j], boxes.upper[:, j]]), return_inverse=True
        )
        low, high = np.split(index, 2)
        open_end = ~np.isfinite(levels)
        at = np.where(open_end, 0.0, levels)
        mean, deviation = means[:, j, None], deviations[:, j, None]
        gain = improvement_slopes(mean, deviation, at[None, :])
        value = np.where(open_end, -np.inf, gain.value)
        ratio = np.exp(np.minimum(value[:, high] - value[:, low], -1e-12))
        total += value[:, low] + np.log1p(-ratio)
        slopes = [
            (slope[:, low] - slope[:, high] * ratio) / (1.0 - ratio)
            for slope in (gain.in_mean, gain.in_deviation)
        ]
        parts.append(slopes)
    value = logsumexp(total, axis=1)
    share = np.exp(total - value[:, None])
    in_mean, in_deviation = (
        np.column_stack([np.einsum("mb,mb->m", share, part[i]) for part in parts]) for i in (0, 1)
    )
    return Sloped(value, in_mean, in_deviation)
