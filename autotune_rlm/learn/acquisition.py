"""What a point is worth, given a prediction: everything in logarithms, everything maximised."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

__all__ = [
    "log_expected_improvement",
    "log_feasible",
    "log_hypervolume_improvement",
    "non_dominated",
]

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_SQRT_HALF_PI = math.sqrt(math.pi / 2)
_ASYMPTOTIC = -1e6  # below it, 1 - x of the exact form has no digits left


def log_expected_improvement(
    mean: np.ndarray, deviation: np.ndarray, best: float | np.ndarray
) -> np.ndarray:
    """Logarithm of the improvement over ``best`` that normal predictions are expected to bring.

    Exact and increasing over the whole range of ``(mean - best) / deviation``, in three pieces as in
    Ament et al. 2023, "Unexpected Improvements to Expected Improvement" (arXiv 2310.20708).

    Args:
        mean: Predicted values, shape (m,).
        deviation: Their standard deviations, greater than 0, shape (m,).
        best: The best value so far.

    Returns:
        Shape (m,).
    """
    u = (np.asarray(mean, dtype=float) - best) / deviation
    near = np.maximum(u, -1.0)
    value = np.log(np.exp(-0.5 * near**2 - _LOG_SQRT_2PI) + near * ndtr(near))
    far = np.minimum(u, -1.0)
    left = np.clip(far, _ASYMPTOTIC, None)
    ratio = -left * _SQRT_HALF_PI * erfcx(-left / math.sqrt(2))  # of u Phi(u) to phi(u), below 1
    log_share = np.where(far > _ASYMPTOTIC, np.log1p(-np.minimum(ratio, 1.0 - 1e-16)), 0.0)
    log_share = np.where(far > _ASYMPTOTIC, log_share, -2.0 * np.log(-far))
    tail = -0.5 * far**2 - _LOG_SQRT_2PI + log_share
    return np.where(u > -1.0, value, tail) + np.log(deviation)


def log_feasible(
    means: Sequence[np.ndarray], deviations: Sequence[np.ndarray], limits: Sequence[float]
) -> np.ndarray | float:
    """Logarithm of the probability that every constraint stays at or below its limit.

    Args:
        means: Predicted values of each constraint, shape (m,) each.
        deviations: Their standard deviations.
        limits: One number per constraint.

    Returns:
        Shape (m,); 0.0 where there are no constraints.
    """
    total: np.ndarray | float = 0.0
    for mean, deviation, limit in zip(means, deviations, limits, strict=True):
        total = total + log_ndtr((limit - mean) / deviation)
    return total


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
        observed: Values seen so far, shape (n, k).
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
