"""The online layer: a task's measurements correct the model's predictions of its other candidates.

The model's prediction is the prior mean. A Gaussian process (``learn.gaussian_process``) is fitted to
the residuals. Its inputs are the parameters, each with a length scale learned from this task, and the
network's hidden states. Where the model is not fully trusted, its prediction is one more input, so
that measurements can overrule the predicted order, and its hidden states soon count no more. Once
something failed there, or much was measured, the process takes turns with a random forest over the
parameters (Hutter et al. 2011, SMAC). A second process models failures. All are fitted anew at each
call, which is deterministic and takes some tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist

from autotune_rlm.learn.gaussian_process import GaussianProcess, Points, fit
from autotune_rlm.learn.transform import standardised

__all__ = ["Posterior", "Prior", "correct"]

_MIN_SPREAD = 0.05
# The prior standard deviation is capped: a larger one shows that the network is untrained on the task,
# not that its values vary so much. Logarithms of the metric, as _MIN_SPREAD and _OFFSET_SD.
_MAX_SPREAD = 1.2
_OFFSET_SD = 3.0
# Half the pseudo-observations that a fully trusted model's spread counts for against the residuals.
_STRENGTH = 3.0
_DOUBTFUL = 0.5  # relative widening of the posterior spread at trust 0
_TRUST = 0.9
_NOISE = 1e-3  # of the values' variance: timings repeat to some per mille
_MAX_COUNT = 400  # measurements that the process is conditioned on, and as many failures
_FITTED = 60  # measurements that the process's length scales are fitted to
_ITERATIONS = 25
_MIN_FITTED = 4  # fewest measurements to which length scales or a forest are fitted
# Where the model is not fully trusted and nothing failed: measurements from which its hidden states are
# left out, and from which the forest takes turns too. Chosen on ten convolutions and seven GEMMs.
_PLAIN = 8
_TURNS = 16
_TREES = 64
_COLUMNS = 0.8  # share of the columns that a split of a tree considers
_HIDDEN = 6  # principal components of the hidden states
_REACH = 0.4  # correlation length of failures, as a fraction of a parameter's range
# Share of their correlation that follows from single parameters, such as a large tile, at trust 0. A
# trusted model knows such effects. Chosen with two Triton matmuls, judged with two others.
_ALONE = 0.75
_SHARED = 0.7  # share of a failure's variance that correlates between candidates
_BLOCK = 1024  # candidates that are predicted at once; more do not fit into the processor's caches
_SAMPLE = 2000  # candidates from which the principal components are computed


@dataclass(frozen=True, kw_only=True)
class Prior:
    """The model's prediction for n candidates before anything is measured.

    Attributes:
        mean: Predicted value on the modelled scale, shape (n,).
        spread: Its standard deviation, shape (n,).
        p_valid: Probability of working, shape (n,).
        hidden: Hidden states, shape (n, d).
        parameters: The parameters as features of comparable scale, shape (n, f).
        offset_sd: Standard deviation of the error that all candidates of the task share.
        trust: Weight of the model's order before any measurement, from 0 (ignored) to 1 (full).
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
        """The process's inputs: parameters, hidden states and the model's prediction."""
        states = self.hidden - self.hidden.mean(0)
        some = states[:: max(1, len(states) // _SAMPLE)]
        states = states @ np.linalg.svd(some, full_matrices=False)[2][:_HIDDEN].T
        length = float(np.sqrt((states**2).sum(1).mean())) or 1.0
        plain, columns = self.plain_points, self.unit.shape[1]
        return replace(
            plain,
            spread=np.hstack([plain.spread, states / length]),
            spread_groups=np.append(plain.spread_groups, np.full(states.shape[1], columns)),
        )

    @cached_property
    def plain_points(self) -> Points:
        """``points`` without the hidden states."""
        lead = (1.0 - self.trust) * standardised(self.mean)[:, None]
        return Points(self.unit, lead, np.arange(self.unit.shape[1]), np.zeros(1, dtype=int))


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """The prediction for n candidates after the measurements, each of shape (n,)."""

    mean: np.ndarray
    spread: np.ndarray
    p_valid: np.ndarray


def correct(prior: Prior, index: np.ndarray, value: np.ndarray) -> Posterior:
    """The predictions for all n candidates, corrected by the measurements.

    Args:
        prior: The model's predictions.
        index: Which candidates were measured, shape (k,).
        value: Measured values on the modelled scale; NaN where the candidate failed. Shape (k,).
    """
    index, value = np.asarray(index), np.asarray(value, dtype=float)
    worked = np.isfinite(value)
    mean, spread = prior.mean, prior.spread
    if worked.any():
        mean, spread = _values(prior, *_kept(index[worked], value[worked]), cliffs=not worked.all())
    return Posterior(mean=mean, spread=spread, p_valid=_validity(prior, index, worked))


def _kept(index: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most ``_MAX_COUNT`` measurements: the best half, and the other half evenly by rank."""
    if len(index) <= _MAX_COUNT:
        return index, value
    order = np.argsort(value, kind="stable")
    rest = order[_MAX_COUNT // 2 :][
        np.linspace(0, len(index) - _MAX_COUNT // 2 - 1, _MAX_COUNT // 2).astype(int)
    ]
    kept = np.sort(np.concatenate([order[: _MAX_COUNT // 2], rest]))
    return index[kept], value[kept]


def _values(
    prior: Prior, measured: np.ndarray, value: np.ndarray, *, cliffs: bool
) -> tuple[np.ndarray, np.ndarray]:
    guessed, k = prior.trust < _TRUST and bool(prior.unit.any()), len(measured)
    if guessed and k >= (_MIN_FITTED if cliffs else _TURNS) and k % 2:
        return _forest(prior.unit, measured, value)
    prior_spread = float(np.clip(np.sqrt(np.mean(prior.spread**2)), _MIN_SPREAD, _MAX_SPREAD))
    trust = prior.trust if len(measured) > 1 else 1.0
    lead = prior.mean.mean() + trust * (prior.mean - prior.mean.mean())
    residual = value - lead[measured]
    offset_var = prior.offset_sd**2
    shift = float(residual.mean()) * offset_var / (offset_var + prior_spread**2 / len(measured))
    if len(measured) == 1:  # one value determines the level, not the order
        return lead + shift, np.maximum(prior.spread, _MIN_SPREAD)
    strength = 2 * _STRENGTH * max(prior.trust, 0.1)
    squares = strength * prior_spread**2 + float(((residual - shift) ** 2).sum())
    scale = float(np.sqrt(squares / (strength + len(measured))))
    points = prior.plain_points if guessed and not cliffs and k >= _PLAIN else prior.points
    process = fit(
        points.take(measured),
        (residual - shift) / scale,
        noise=_NOISE,
        max_fit=_FITTED,
        iterations=_ITERATIONS if len(measured) >= _MIN_FITTED else 0,
    )
    mean, deviation = _predicted(process, points)
    widening = 1.0 + _DOUBTFUL * (1.0 - prior.trust)
    return lead + shift + scale * mean, widening * scale * deviation


def _forest(
    x: np.ndarray, measured: np.ndarray, value: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread over the trees of a random forest, each of shape (n,)."""
    from sklearn.ensemble import RandomForestRegressor  # half a second, only where it is needed

    x = np.ascontiguousarray(x, dtype=np.float32)
    forest = RandomForestRegressor(_TREES, max_features=_COLUMNS, random_state=0)
    trees = forest.fit(x[measured], value).estimators_
    votes = np.stack([tree.tree_.predict(x)[:, 0] for tree in trees])
    return votes.mean(0), np.maximum(votes.std(0), _MIN_SPREAD)


def _predicted(process: GaussianProcess, points: Points) -> tuple[np.ndarray, np.ndarray]:
    predictions = [process.predict(points.take(rows)) for rows in _blocks(len(points))]
    mean, deviation = (np.concatenate(part) for part in zip(*predictions, strict=True))
    return mean, deviation


def _blocks(n: int) -> Iterator[np.ndarray]:
    for start in range(0, n, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, n))


def _validity(prior: Prior, index: np.ndarray, worked: np.ndarray) -> np.ndarray:
    """Probabilities of working, corrected by a Gaussian process on recent failures and successes.

    Where the model is not fully trusted and something failed, its probabilities are drawn towards the
    share that worked, and what failed also tells of candidates that have one parameter in common with it.
    """
    sure = 1.0 if worked.all() else min(1.0, prior.trust / _TRUST)
    alone = _ALONE * (1.0 - sure)
    share = float(1 + worked.sum()) / (1 + len(worked))
    p = np.clip(sure * prior.p_valid + (1.0 - sure) * share, 0.02, 0.98)
    size = np.sqrt(p * (1 - p))
    last, x = index[-_MAX_COUNT:], prior.unit
    near = _near(x[last], x[last], np.eye(len(last)), alone)
    inner = _SHARED * near * np.outer(size[last], size[last])
    inner += np.diag((1 - _SHARED) * size[last] ** 2)
    weight = cho_solve(cho_factor(inner, lower=True), worked[-_MAX_COUNT:].astype(float) - p[last])
    weight *= _SHARED * size[last]
    gain = _near(x, x[last], weight, alone) * size
    out = np.clip(p + gain, 1e-4, 1 - 1e-4)
    if not alone:
        out = np.where(np.abs(gain) < 1e-3, prior.p_valid, out)
    out[index] = np.where(worked, 1.0 - 1e-4, 1e-4)
    return out


def _near(a: np.ndarray, b: np.ndarray, weight: np.ndarray, alone: float) -> np.ndarray:
    """The correlation of failures times ``weight``: by all parameters, a share of it by single ones."""
    together = [np.exp(cdist(a[rows], b) / -_REACH) @ weight for rows in _blocks(len(a))]
    total = (1 - alone) * np.concatenate(together)
    for own, other in zip(a.T, b.T, strict=True) if alone else ():
        levels, place = np.unique(own, return_inverse=True)
        here = np.exp(np.abs(levels[:, None] - other) / -_REACH) @ weight
        total += alone / a.shape[1] * here[place]
    return total
