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

From four measurements on, a second process has a say, the more the less the model's order is believed:
one on the parameters alone, with a length scale for each that is fitted to what was measured, and the
model's prediction as but one more input (``gaussian_process.fit``). On kernels that the model has never
seen in any form it is the better half.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from autotune_rlm.learn.gaussian_process import Points, fit

__all__ = ["Posterior", "Prior", "correct"]

_MIN_SPREAD = 0.02
_NOISE = 0.005
_OFFSET_SD = 3.0
_SLOPE_SD = 0.4
_STRENGTH = 3.0
_TRUST = 2.0
_AVERAGED = 4
_ENOUGH = 4
_ITERATIONS = 20
_LED = 0.85
"""The first process's say where the model's order is believed without doubt."""
_OVERCONFIDENT = 1.4
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
        trust: Logarithm of the prior odds that the model's order is worth anything.
    """

    mean: np.ndarray
    spread: np.ndarray
    p_valid: np.ndarray
    hidden: np.ndarray
    parameters: np.ndarray
    offset_sd: float = _OFFSET_SD
    trust: float = _TRUST

    @cached_property
    def scaled(self) -> tuple[_Rows, _Rows, list[_Column]]:
        """Hidden states, parameters, and single parameters by column, scaled for distances."""
        columns = self.parameters.T[:_MAX_PARAMETERS]
        deviation = columns.std(1, keepdims=True)
        single = columns / np.where(deviation > 0, deviation, 1.0) / _SINGLE_SCALE
        distinct = [_Column(*np.unique(x, return_inverse=True)) for x in single]
        return _Rows.of(self.hidden), _Rows.of(self.parameters), distinct


class _Column(NamedTuple):
    """A parameter of n candidates: its few distinct values, and which of them each has."""

    values: np.ndarray
    which: np.ndarray


class _Rows(NamedTuple):
    """Centred rows, of which two typical ones are at a squared distance of about 2; their norms.

    In single precision, as all distances: they and their exponentials are what costs.
    """

    x: np.ndarray
    norms: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> _Rows:
        x = x - x.mean(0)
        scale = np.sqrt(np.mean(x**2) * x.shape[1]) if x.size else 0.0
        x = (x / scale if scale > 0 else x).astype(np.float32)
        return cls(x, np.einsum("nd,nd->n", x, x))

    def squared(self, index: np.ndarray) -> np.ndarray:
        """Squared distances of all rows to those of ``index``, (n, k)."""
        out = self.x @ (np.float32(-2.0) * self.x[index].T)
        out += self.norms[:, None]
        out += self.norms[index]
        return np.maximum(out, 0.0, out=out)


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
    distances = _Distances.to_measured(prior, index)
    mean, spread = prior.mean, prior.spread
    if worked.any():
        everyone = distances if worked.all() else distances.to(worked)
        mean, spread = _correct_values(prior, index[worked], value[worked], everyone)
    p_valid = _correct_validity(prior, index, worked, distances)
    return Posterior(mean=mean, spread=spread, p_valid=p_valid)


class _Distances:
    """Distances of n candidates to k measured ones, in three senses, as correlations.

    Args:
        hidden: Squared distances of hidden states, shape (n, k).
        parameters: Distances of all parameters together, shape (n, k).
        single: Correlation by single parameters, the mean over them, shape (n, k); None where it
            is to be computed from the columns.
        columns: The single parameters.
        index: The measured ones.
    """

    def __init__(
        self,
        hidden: np.ndarray,
        parameters: np.ndarray,
        columns: list[_Column],
        index: np.ndarray,
        single: np.ndarray | None = None,
    ) -> None:
        self.hidden, self.parameters = hidden, parameters
        self._columns, self._index, self._given = columns, index, single
        self._near: dict[tuple[str, float], np.ndarray] = {}

    @classmethod
    def to_measured(cls, prior: Prior, index: np.ndarray) -> _Distances:
        """Of all candidates to those of ``index``."""
        hidden, parameters, columns = prior.scaled
        return cls(
            hidden.squared(index),
            np.sqrt(parameters.squared(index)),
            columns,
            index,
        )

    def to(self, kept: np.ndarray) -> _Distances:
        """To some of the measured ones only."""
        hidden, parameters = self.hidden[:, kept], self.parameters[:, kept]
        return _Distances(hidden, parameters, self._columns, self._index[kept])

    def among(self, rows: np.ndarray) -> _Distances:
        """Of some candidates only."""
        hidden, parameters = self.hidden[rows], self.parameters[rows]
        return _Distances(hidden, parameters, [], self._index, self.single[rows])

    @cached_property
    def single(self) -> np.ndarray:
        """Correlation by single parameters, the mean over them."""
        if self._given is not None:
            return self._given
        out = np.zeros_like(self.parameters)
        for values, which in self._columns:
            near = np.exp(-np.abs(values[:, None] - values[which[self._index]]))
            out += near.astype(np.float32)[which]
        return out / max(1, len(self._columns))

    def _decay(self, sense: str, rate: float) -> np.ndarray:
        if (sense, rate) not in self._near:
            self._near[sense, rate] = np.exp(getattr(self, sense) * np.float32(-rate))
        return self._near[sense, rate]

    def correlation(self, kernel: _Kernel) -> np.ndarray:
        """Mixture of a smooth process of the hidden states and a rough one of the parameters."""
        out = np.zeros(self.hidden.shape)
        if kernel.mixture > 0:
            out += kernel.mixture * self._decay("hidden", 0.5 / kernel.hidden_scale**2)
        if kernel.mixture < 1:
            near = self._decay("parameters", 1 / kernel.parameter_scale)
            if kernel.additive:
                near = 0.3 * near + 0.7 * self.single
            out += (1 - kernel.mixture) * near
        return out


class _Kernel(NamedTuple):
    """How errors of two candidates are related.

    Where ``additive``, most of the part of the parameters is a sum of functions of single ones.
    """

    mixture: float
    hidden_scale: float
    parameter_scale: float
    additive: bool


class _Member(NamedTuple):
    """One setting of the process: what the mean is, how far errors reach, how large they are."""

    trusted: bool
    kernel: _Kernel
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
        kernel = _Kernel(
            mixture=mixture,
            hidden_scale=hidden if mixture > 0 else 1.0,
            parameter_scale=parameter if mixture < 1 else 1.0,
            additive=additive and mixture < 1,
        )
        found[_Member(trusted, kernel, flat or not trusted, smooth)] = None
    return list(found)


_MEMBERS = _members()
_KERNELS = list(dict.fromkeys(m.kernel for m in _MEMBERS))
_TRUSTED = np.array([m.trusted for m in _MEMBERS], dtype=int)
_FLAT = np.array([m.flat for m in _MEMBERS], dtype=int)
_SMOOTH = np.array([m.smooth for m in _MEMBERS])
_KERNEL = np.array([_KERNELS.index(m.kernel) for m in _MEMBERS])
_AT_ONCE = 2_000_000
"""Entries of the matrices that are factored together."""


class _Solved(NamedTuple):
    member: _Member
    factor: np.ndarray
    alpha: np.ndarray
    amplitude: float
    evidence: float


class _ValueModel:
    """The process of the values, for all members of the grid.

    Args:
        prior: The model's predictions.
        at: Which candidates worked, shape (k,).
        value: Their values, shape (k,).
        distances: Of all candidates to them.
    """

    def __init__(
        self, prior: Prior, at: np.ndarray, value: np.ndarray, distances: _Distances
    ) -> None:
        self.prior, self.at, self.value, self.distances = prior, at, value, distances
        own = np.maximum(prior.spread, _MIN_SPREAD)
        self.sizes = (own, np.full_like(own, np.sqrt(np.mean(own**2))))  # own, flat
        center = float(np.mean(prior.mean))
        self.means = (np.full_like(prior.mean, center), prior.mean)  # not trusted, trusted
        tilt = _SLOPE_SD * (prior.mean - center)
        self.tilts = (np.zeros_like(tilt), tilt)

    def solve(self) -> list[_Solved]:
        """Fit all members; the likeliest come first.

        The amplitude of the process is integrated out. It has an inverse-gamma prior, so that a model
        that was surer than it should have been is corrected by what is seen (a Student-t process, Shah
        et al. 2014).
        """
        among = self.distances.among(self.at)
        correlations = np.stack([among.correlation(kernel) for kernel in _KERNELS])
        step = max(1, _AT_ONCE // len(self.at) ** 2)
        found: list[_Solved] = []
        for begin in range(0, len(_MEMBERS), step):
            found += self._solve(correlations, np.arange(len(_MEMBERS))[begin : begin + step])
        return sorted(found, key=lambda s: -s.evidence)

    def _solve(self, correlations: np.ndarray, members: np.ndarray) -> list[_Solved]:
        k = len(self.at)
        size = np.stack([s[self.at] for s in self.sizes])
        tilt = np.stack([t[self.at] for t in self.tilts])
        residual = np.stack([self.value - m[self.at] for m in self.means])[_TRUSTED[members]]
        shared = self.prior.offset_sd**2 + tilt[:, :, None] * tilt[:, None, :]
        smooth, size = _SMOOTH[members][:, None, None], size[_FLAT[members]]
        inner = smooth * correlations[_KERNEL[members]] * (size[:, :, None] * size[:, None, :])
        inner += shared[_TRUSTED[members]]
        np.einsum("mkk->mk", inner)[...] += (1 - smooth[:, :, 0]) * size**2 + _NOISE**2
        factor = np.linalg.cholesky(inner)
        half = np.linalg.solve(factor, residual[:, :, None])[:, :, 0]
        quadratic = (half**2).sum(1)
        log_det = 2 * np.log(np.einsum("mkk->mk", factor)).sum(1)
        evidence = -0.5 * log_det - (_STRENGTH + k / 2) * np.log1p(quadratic / (2 * _STRENGTH))
        evidence += self.prior.trust * _TRUSTED[members]
        amplitude = (2 * _STRENGTH + quadratic) / (2 * _STRENGTH + k)
        best = np.argsort(-evidence, kind="stable")[:_AVERAGED]
        return [
            _Solved(
                _MEMBERS[members[i]],
                factor[i],
                solve_triangular(factor[i], half[i], lower=True, trans="T"),
                float(amplitude[i]),
                float(evidence[i]),
            )
            for i in best
        ]

    def posterior(self, solved: _Solved) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance for all n candidates."""
        member = solved.member
        size, tilt = self.sizes[member.flat], self.tilts[member.trusted]
        total = self.distances.correlation(member.kernel)
        total *= (member.smooth * size)[:, None]
        total *= size[self.at]
        if member.trusted:
            total += np.outer(tilt, tilt[self.at])
        total += self.prior.offset_sd**2
        own = self.prior.offset_sd**2 + tilt**2 + size**2
        mean = self.means[member.trusted] + total @ solved.alpha
        half = solve_triangular(
            solved.factor, total.T, lower=True, overwrite_b=True, check_finite=False
        )
        variance = np.maximum(own - np.einsum("kn,kn->n", half, half), _NOISE**2)
        return mean, variance * solved.amplitude


def _correct_values(
    prior: Prior, at: np.ndarray, value: np.ndarray, distances: _Distances
) -> tuple[np.ndarray, np.ndarray]:
    model = _ValueModel(prior, at, value, distances)
    solved = model.solve()[:_AVERAGED]
    weight = np.exp(np.array([s.evidence for s in solved]) - solved[0].evidence)
    weight /= weight.sum()
    found = [(w, *model.posterior(s)) for w, s in zip(weight, solved, strict=True) if w > 0.02]
    total = sum(w for w, _, _ in found)
    if len(at) >= _ENOUGH and np.ptp(value) > 0:
        believed = sum(w for w, s in zip(weight, solved, strict=True) if s.member.trusted)
        share = 1.0 - _LED * believed
        found = [(w / total * (1 - share), m, v) for w, m, v in found]
        found.append((share, *_of_parameters(prior, at, value)))
        total = 1.0
    mean = np.sum([w * m for w, m, _ in found], axis=0) / total
    second = np.sum([w * (v + (m - mean) ** 2) for w, m, v in found], axis=0) / total
    return mean, np.sqrt(second)


def _of_parameters(
    prior: Prior, at: np.ndarray, value: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance by a process on the parameters, fitted to this task alone."""
    low, width = prior.parameters.min(0), np.ptp(prior.parameters, axis=0)
    spread = ((prior.parameters - low) / np.where(width > 0, width, 1.0))[:, :_MAX_PARAMETERS]
    linear = (prior.mean - prior.mean.mean()) / (prior.mean.std() or 1.0)
    points = Points(spread, linear[:, None], np.arange(spread.shape[1]), np.zeros(1, dtype=int))
    center, scale = value.mean(), value.std()
    process = fit(points.take(at), (value - center) / scale, iterations=_ITERATIONS)
    mean, deviation = process.predict(points)
    return center + scale * mean, (_OVERCONFIDENT * scale * deviation) ** 2


def _correct_validity(
    prior: Prior, index: np.ndarray, worked: np.ndarray, distances: _Distances
) -> np.ndarray:
    p = np.clip(prior.p_valid, 0.02, 0.98)
    size = np.sqrt(p * (1 - p))
    correlation = distances.correlation(_Kernel(0.5, 0.3, 0.5, False))
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
