"""The fast online layer: a Gaussian process on the model's residuals, in closed form.

What was measured of a task corrects what the model said of its other candidates. The residual between
the measured and the predicted logarithm is modelled as

    ``residual_i = offset + slope * prediction_i + s_i * g_i + noise``

with ``s_i`` the model's own spread and ``g`` a Gaussian process (Rasmussen and Williams, 2006) whose
correlation comes from two distances: between the network's hidden states and between the parameters
themselves. A linear layer on the hidden state is the special case of a linear kernel. Length scales and
mixtures are not searched for: every member of a small fixed grid is solved, and the likeliest are
averaged with their marginal likelihoods as weights. Half of the members do not believe the model's
order at all; they win where the kernel is unlike any that it knows. Nothing is iterated, so 16 new
measurements cost milliseconds and the result is deterministic.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

__all__ = ["Posterior", "Prior", "correct"]

_MIN_SPREAD = 0.02
_NOISE = 0.005
_OFFSET_SD = 3.0
_SLOPE_SD = 0.4
_STRENGTH = 3.0
_TRUST = 2.0
"""Logarithm of the prior odds that the model's order is worth anything."""
_AVERAGED = 4
_MAX_OBSERVED = 1024
_MAX_PARAMETERS = 64
_SINGLE_SCALE = 1.5


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
    """

    mean: np.ndarray
    spread: np.ndarray
    p_valid: np.ndarray
    hidden: np.ndarray
    parameters: np.ndarray
    offset_sd: float = _OFFSET_SD


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
    index, value = np.asarray(index)[-_MAX_OBSERVED:], np.asarray(value, float)[-_MAX_OBSERVED:]
    worked = np.isfinite(value)
    distances = _Distances(prior, index)
    mean, spread = prior.mean, prior.spread
    if worked.any():
        mean, spread = _correct_values(prior, index, value, worked, distances)
    p_valid = _correct_validity(prior, index, worked, distances)
    return Posterior(mean=mean, spread=spread, p_valid=p_valid)


class _Distances:
    """Squared distances of candidates to the measured ones, in two senses."""

    def __init__(self, prior: Prior, index: np.ndarray) -> None:
        self.hidden = _squared(prior.hidden, index)
        self.parameters = np.sqrt(_squared(prior.parameters, index))
        columns = prior.parameters.T[:_MAX_PARAMETERS]
        self.single = np.zeros_like(self.parameters)
        for x in columns:
            x = x / (x.std() or 1.0)
            self.single += np.exp(-np.abs(x[:, None] - x[index]) / _SINGLE_SCALE)
        self.single /= max(1, len(columns))

    def correlation(
        self,
        mixture: float,
        hidden_scale: float,
        parameter_scale: float,
        additive: bool,
        rows: np.ndarray | slice = slice(None),
        columns: np.ndarray | slice = slice(None),
    ) -> np.ndarray:
        """Mixture of a smooth process of the hidden states and a rough one of the parameters.

        Where ``additive``, most of the latter is a sum of functions of single parameters.
        """
        hidden, parameters = self.hidden[rows][:, columns], self.parameters[rows][:, columns]
        out = np.zeros_like(hidden)
        if mixture > 0:
            out += mixture * np.exp(hidden * (-0.5 / hidden_scale**2))
        if mixture < 1:
            near = np.exp(parameters * (-1 / parameter_scale))
            if additive:
                near = 0.3 * near + 0.7 * self.single[rows][:, columns]
            out += (1 - mixture) * near
        return out


def _squared(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Squared distances (n, k), scaled so that two typical candidates are at about 2."""
    x = x - x.mean(0)
    scale = np.sqrt(np.mean(x**2) * x.shape[1]) if x.size else 0.0
    x = x / scale if scale > 0 else x
    y = x[index]
    return np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0.0)


class _Member(NamedTuple):
    """One setting of the process: what the mean is, how far errors reach, how large they are."""

    trusted: bool
    mixture: float
    hidden_scale: float
    parameter_scale: float
    additive: bool
    flat: bool
    smooth: float
    """Share of a residual's variance that neighbours have in common."""


def _members() -> list[_Member]:
    found: dict[_Member, None] = {}
    for trusted, mixture, hidden, parameter, additive, flat, smooth in itertools.product(
        (True, False),
        (0.0, 0.5, 1.0),
        (0.3, 0.8),
        (0.5, 1.5, 4.0),
        (False, True),
        (False, True),
        (0.8, 0.97),
    ):
        found[
            _Member(
                trusted=trusted,
                mixture=mixture,
                hidden_scale=hidden if mixture > 0 else 1.0,
                parameter_scale=parameter if mixture < 1 else 1.0,
                additive=additive and mixture < 1,
                flat=flat or not trusted,
                smooth=smooth,
            )
        ] = None
    return list(found)


_MEMBERS = _members()


class _Solved(NamedTuple):
    member: _Member
    factor: tuple[np.ndarray, bool]
    alpha: np.ndarray
    amplitude: float
    evidence: float


class _ValueModel:
    """The process of the values, for all members of the grid."""

    def __init__(
        self, prior: Prior, at: np.ndarray, columns: np.ndarray, value: np.ndarray, d: _Distances
    ) -> None:
        self.prior, self.at, self.columns, self.value, self.distances = prior, at, columns, value, d
        self.own = np.maximum(prior.spread, _MIN_SPREAD)
        self.center = float(np.mean(prior.mean))
        self.tilt = prior.mean - self.center

    def mean(self, member: _Member, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        if member.trusted:
            return self.prior.mean[rows]
        return np.full(len(self.prior.mean[rows]), self.center)

    def covariance(
        self, member: _Member, rows: np.ndarray | slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Covariance with the measured ones (m, k), and own variance without noise (m,)."""
        size = np.full_like(self.own, np.sqrt(np.mean(self.own**2))) if member.flat else self.own
        correlation = self.distances.correlation(
            member.mixture,
            member.hidden_scale,
            member.parameter_scale,
            member.additive,
            rows,
            self.columns,
        )
        slope = _SLOPE_SD if member.trusted else 0.0
        tilt, tilt_at = slope * self.tilt[rows], slope * self.tilt[self.at]
        shared = self.prior.offset_sd**2 + np.outer(tilt, tilt_at)
        total = shared + member.smooth * correlation * np.outer(size[rows], size[self.at])
        return total, self.prior.offset_sd**2 + tilt**2 + size[rows] ** 2

    def solve(self, member: _Member) -> _Solved:
        """Fit one member; the amplitude of the process is integrated out.

        The amplitude has an inverse-gamma prior, so that a model that was surer than it should have
        been is corrected by what is seen (a Student-t process, Shah et al. 2014).
        """
        total, _ = self.covariance(member, self.at)
        size = np.sqrt(np.mean(self.own**2)) if member.flat else self.own[self.at]
        inner = total + np.diag(
            np.broadcast_to((1 - member.smooth) * size**2 + _NOISE**2, len(self.at))
        )
        residual = self.value - self.mean(member, self.at)
        factor = cho_factor(inner, lower=True)
        alpha = cho_solve(factor, residual)
        quadratic, k = float(residual @ alpha), len(residual)
        amplitude = (2 * _STRENGTH + quadratic) / (2 * _STRENGTH + k)
        log_det = 2 * float(np.log(np.diag(factor[0])).sum())
        evidence = -0.5 * log_det - (_STRENGTH + k / 2) * np.log1p(quadratic / (2 * _STRENGTH))
        evidence += _TRUST if member.trusted else 0.0
        return _Solved(member, factor, alpha, amplitude, evidence)

    def posterior(self, solved: _Solved) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance for all n candidates."""
        total, own = self.covariance(solved.member)
        mean = self.mean(solved.member) + total @ solved.alpha
        half = solve_triangular(solved.factor[0], total.T, lower=True)
        variance = np.maximum(own - np.einsum("kn,kn->n", half, half), _NOISE**2)
        return mean, variance * solved.amplitude


def _correct_values(
    prior: Prior, index: np.ndarray, value: np.ndarray, worked: np.ndarray, distances: _Distances
) -> tuple[np.ndarray, np.ndarray]:
    model = _ValueModel(prior, index[worked], np.flatnonzero(worked), value[worked], distances)
    solved = sorted((model.solve(m) for m in _MEMBERS), key=lambda s: -s.evidence)[:_AVERAGED]
    weight = np.exp(np.array([s.evidence for s in solved]) - solved[0].evidence)
    weight /= weight.sum()
    found = [(w, *model.posterior(s)) for w, s in zip(weight, solved, strict=True) if w > 0.02]
    total = sum(w for w, _, _ in found)
    mean = np.sum([w * m for w, m, _ in found], axis=0) / total
    second = np.sum([w * (v + (m - mean) ** 2) for w, m, v in found], axis=0) / total
    return mean, np.sqrt(second)


def _correct_validity(
    prior: Prior, index: np.ndarray, worked: np.ndarray, distances: _Distances
) -> np.ndarray:
    p = np.clip(prior.p_valid, 0.02, 0.98)
    size = np.sqrt(p * (1 - p))
    correlation = distances.correlation(0.5, 0.3, 0.5, False)
    total = 0.7 * correlation * np.outer(size, size[index])
    inner = total[index] + np.diag(0.3 * size[index] ** 2)
    residual = worked.astype(float) - p[index]
    gain = total @ cho_solve(cho_factor(inner, lower=True), residual)
    known = np.zeros(len(p), dtype=bool)
    known[index] = True
    moved = np.clip(p + gain, 1e-4, 1 - 1e-4)
    unmoved = np.abs(gain) < 1e-3
    out = np.where(unmoved, prior.p_valid, moved)
    out[index] = np.where(worked, 1.0 - 1e-4, 1e-4)
    return out
