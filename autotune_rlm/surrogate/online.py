"""The fast online layer: what was measured of a task corrects what the model says of the rest.

The model leads, and one Gaussian process (``learn.gaussian_process``) is fitted to what it did not
tell: on the parameters, with a length for each that is learned from this task, on the network's hidden
states, and, as far as the model is not trusted, on its own prediction as one more input, so that an order
that turns out to be wrong loses its say. Failures are learned apart. Everything is fitted anew at each
call: a pure function of what was measured, deterministic, some tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist

from autotune_rlm.learn.gaussian_process import GaussianProcess, Points, fit
from autotune_rlm.learn.transform import standardised

__all__ = ["Posterior", "Prior", "correct"]

_MIN_SPREAD = 0.05
_MAX_SPREAD = (
    1.2  # a network's doubt beyond it says that it knows nothing, not that all is possible
)
_OFFSET_SD = 3.0
_STRENGTH = (
    3.0  # half the measurements that a trusted model's spread is worth against residuals seen
)
_DOUBTFUL = 0.5  # how much wider the spread is where the model is not trusted at all
_TRUST = 0.9
_NOISE = 1e-3  # of the values' variance: timings repeat to some per mille
_MAX_COUNT = 400  # measurements that the process is conditioned on, and as many failures
_FITTED = 60  # and that its lengths are fitted to
_ITERATIONS = 25
_MIN_FITTED = 4  # measurements from which lengths are fitted
_HIDDEN = 6  # leading directions of the hidden states
_REACH = 0.4  # how far a failure tells, in whole ranges of a parameter
_SHARED = 0.7  # of a failure's variance, that neighbours have in common
_BLOCK = 8192  # candidates that are predicted at once
_SAMPLE = 2000  # candidates that the directions of the hidden states are taken from


@dataclass(frozen=True, kw_only=True)
class Prior:
    """What the model says of n candidates before anything is measured.

    Attributes:
        mean: Predicted value on the modelled scale, shape (n,).
        spread: Its standard deviation, shape (n,).
        p_valid: Probability of working, shape (n,).
        hidden: Hidden states, shape (n, d).
        parameters: The parameters as features of comparable size, shape (n, f).
        offset_sd: Standard deviation of the error that all candidates of the task share.
        trust: Weight of the model's order before any of it is checked: 1 is all, 0 is none.
    """

    mean: np.ndarray
    spread: np.ndarray
    p_valid: np.ndarray
    hidden: np.ndarray
    parameters: np.ndarray
    offset_sd: float = _OFFSET_SD
    trust: float = _TRUST

    @cached_property
    def unit(self) -> np.ndarray:
        """The parameters, each with the range [0, 1], shape (n, f)."""
        low, width = self.parameters.min(0), np.ptp(self.parameters, axis=0)
        return (self.parameters - low) / np.where(width > 0, width, 1.0)

    @cached_property
    def points(self) -> Points:
        """Parameters, hidden states and the model's prediction, as the process sees them."""
        states = self.hidden - self.hidden.mean(0)
        some = states[:: max(1, len(states) // _SAMPLE)]
        states = states @ np.linalg.svd(some, full_matrices=False)[2][:_HIDDEN].T
        length = float(np.sqrt((states**2).sum(1).mean())) or 1.0
        columns = self.unit.shape[1]
        return Points(
            np.hstack([self.unit, states / length]),
            (1.0 - self.trust) * standardised(self.mean)[:, None],
            np.concatenate([np.arange(columns), np.full(states.shape[1], columns)]),
            np.zeros(1, dtype=int),
        )


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """What is believed of the n candidates after the measurements, each of shape (n,)."""

    mean: np.ndarray
    spread: np.ndarray
    p_valid: np.ndarray


def correct(prior: Prior, index: np.ndarray, value: np.ndarray) -> Posterior:
    """Correct the model's predictions by what was measured.

    Args:
        prior: The model's predictions.
        index: Which candidates were measured, shape (k,).
        value: What was measured, on the modelled scale; NaN where the candidate failed. Shape (k,).

    Returns:
        The corrected predictions for all n candidates, the measured ones included.
    """
    index, value = np.asarray(index), np.asarray(value, dtype=float)
    worked = np.isfinite(value)
    mean, spread = prior.mean, prior.spread
    if worked.any():
        mean, spread = _values(prior, *_kept(index[worked], value[worked]))
    return Posterior(mean=mean, spread=spread, p_valid=_validity(prior, index, worked))


def _kept(index: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Not too many: the best half, the rest evenly from the others."""
    if len(index) <= _MAX_COUNT:
        return index, value
    order = np.argsort(value, kind="stable")
    rest = order[_MAX_COUNT // 2 :][
        np.linspace(0, len(index) - _MAX_COUNT // 2 - 1, _MAX_COUNT // 2).astype(int)
    ]
    kept = np.sort(np.concatenate([order[: _MAX_COUNT // 2], rest]))
    return index[kept], value[kept]


def _values(prior: Prior, at: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    own = float(np.clip(np.sqrt(np.mean(prior.spread**2)), _MIN_SPREAD, _MAX_SPREAD))
    trust = prior.trust if len(at) > 1 else 1.0
    lead = prior.mean.mean() + trust * (prior.mean - prior.mean.mean())
    rest = value - lead[at]
    doubt = prior.offset_sd**2
    shift = float(rest.mean()) * doubt / (doubt + own**2 / len(at))
    if len(at) == 1:  # tells the level, and nothing of the order
        return lead + shift, np.maximum(prior.spread, _MIN_SPREAD)
    strength = 2 * _STRENGTH * max(prior.trust, 0.1)
    squares = strength * own**2 + float(((rest - shift) ** 2).sum())
    scale = float(np.sqrt(squares / (strength + len(at))))
    process = fit(
        prior.points.take(at),
        (rest - shift) / scale,
        noise=_NOISE,
        max_fit=_FITTED,
        iterations=_ITERATIONS if len(at) >= _MIN_FITTED else 0,
    )
    mean, deviation = _predicted(process, prior.points)
    doubtful = 1.0 + _DOUBTFUL * (1.0 - prior.trust)
    return lead + shift + scale * mean, doubtful * scale * deviation


def _predicted(process: GaussianProcess, points: Points) -> tuple[np.ndarray, np.ndarray]:
    found = [process.predict(points.take(rows)) for rows in _blocks(len(points))]
    mean, deviation = (np.concatenate(part) for part in zip(*found, strict=True))
    return mean, deviation


def _blocks(n: int) -> Iterator[np.ndarray]:
    for start in range(0, n, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, n))


def _validity(prior: Prior, index: np.ndarray, worked: np.ndarray) -> np.ndarray:
    """Probabilities of working, moved by a linear process of the last failures and successes."""
    p = np.clip(prior.p_valid, 0.02, 0.98)
    size = np.sqrt(p * (1 - p))
    last, x = index[-_MAX_COUNT:], prior.unit
    inner = _SHARED * _near(x[last], x[last]) * np.outer(size[last], size[last])
    inner += np.diag((1 - _SHARED) * size[last] ** 2)
    weight = cho_solve(cho_factor(inner, lower=True), worked[-_MAX_COUNT:].astype(float) - p[last])
    weight *= _SHARED * size[last]
    gain = np.concatenate([_near(x[rows], x[last]) @ weight for rows in _blocks(len(p))]) * size
    out = np.where(np.abs(gain) < 1e-3, prior.p_valid, np.clip(p + gain, 1e-4, 1 - 1e-4))
    out[index] = np.where(worked, 1.0 - 1e-4, 1e-4)
    return out


def _near(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.exp(cdist(a, b) / -_REACH)
