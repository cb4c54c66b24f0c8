"""What a candidate is worth: improvement expected of it, on the logarithm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import log_ndtr, ndtr

__all__ = ["dominated_front", "log_expected_improvement", "log_feasible", "scalarised_improvement"]


def log_expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """Logarithm of the expected improvement over ``best`` (to be maximised), shape (m,).

    Stable far from the best, after Ament et al., "Unexpected improvements to expected improvement"
    (arXiv 2310.20708).
    """
    z = (mean - best) / deviation
    plain = np.maximum(z, -5.0)
    value = np.log(np.exp(-0.5 * plain**2) / np.sqrt(2 * np.pi) + plain * ndtr(plain))
    far = np.minimum(z, -5.0)
    tail = -0.5 * far**2 - 0.5 * np.log(2 * np.pi) - 2.0 * np.log(-far)
    return np.where(z > -5.0, value, tail) + np.log(deviation)


def log_feasible(
    means: Sequence[np.ndarray], deviations: Sequence[np.ndarray], limits: Sequence[float]
) -> np.ndarray | float:
    """Logarithm of the probability that every constraint stays at or below its limit."""
    total: np.ndarray | float = 0.0
    for mean, deviation, limit in zip(means, deviations, limits, strict=True):
        total = total + log_ndtr((limit - mean) / deviation)
    return total


def dominated_front(values: np.ndarray) -> np.ndarray:
    """Mask of the rows of ``values`` (n, k), all to be maximised, that no other row dominates."""
    better = np.all(values[None, :, :] >= values[:, None, :], axis=-1)
    strictly = np.any(values[None, :, :] > values[:, None, :], axis=-1)
    return ~np.any(better & strictly, axis=1)


def scalarised_improvement(
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
    front = observed[dominated_front(observed)]
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
