"""Gaussian processes of a study's objectives, constraints and failures, and the acquisition over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from autotune_rlm.integrations.optuna._trials import StudyData
from autotune_rlm.learn.acquisition import (
    Sloped,
    feasible_slopes,
    free_boxes,
    hypervolume_slopes,
    improvement_slopes,
    log_hypervolume_improvement,
    non_dominated,
)
from autotune_rlm.learn.gaussian_process import Points, Slopes
from autotune_rlm.learn.prior_mean import CorrectedPrior, PriorMean, fit_correction
from autotune_rlm.learn.transform import PowerTransform, standardised

_MAX_POINTS = 320  # the processes are conditioned on at most this many trials
_MAX_FITTED = 160  # their hyperparameters are fitted to at most this many
_REACH = 4.0  # hopeless values are drawn in to the median less 4 times the way to the best
_FAR = 16.0  # and to 16 times the way where there are several objectives
_MAX_BOXED = 3  # objectives up to which the hypervolume is computed exactly
_MAX_FRONT = {2: 200, 3: 24}  # points of the front that it is computed with


class Space(Protocol):
    """What turns raw vectors into columns: an ``Encoding``, or one that adds facts."""

    def points(self, raw: np.ndarray) -> Points: ...


@runtime_checkable
class SmoothSpace(Space, Protocol):
    """A space whose columns have derivatives in the raw vectors."""

    def descend(self, raw: np.ndarray, spread: np.ndarray, linear: np.ndarray) -> np.ndarray:
        """Slopes in columns to slopes in raw vectors, shape (m, d)."""
        ...


class PriorModel(Protocol):
    def predict(self, raw: np.ndarray) -> np.ndarray:
        """Standardised predictions, shape (m, models, objectives)."""
        ...


@runtime_checkable
class SmoothPriorModel(PriorModel, Protocol):
    """A model whose predictions have derivatives."""

    def slopes(self, raw: np.ndarray) -> np.ndarray:
        """Derivatives of ``predict`` in the raw vectors, shape (m, models, objectives, d)."""
        ...


class _Predicted(NamedTuple):
    """Mean and deviation of one process over raw vectors, and their slopes in them where asked for."""

    mean: np.ndarray
    deviation: np.ndarray
    mean_slope: np.ndarray | None = None
    deviation_slope: np.ndarray | None = None


def normalised(values: np.ndarray) -> np.ndarray:
    """Values (n, k) to be maximised, each column monotonically to mean 0 and variance 1.

    A single objective is bent to about a normal distribution. Several keep their scale, because the
    hypervolume that a point adds is a volume on that scale.
    """
    several = values.shape[1] > 1
    if several:
        return np.column_stack([_of_several(v) for v in values.T])
    return PowerTransform(_within_one(values[:, 0]), reach=_REACH).normal[:, None]


def _of_several(values: np.ndarray) -> np.ndarray:
    values = _within_one(values)
    middle = np.median(values)
    floor = middle - _FAR * (values.max() - middle)
    return standardised(np.maximum(values, floor) if floor < middle else values)


def _within_one(values: np.ndarray) -> np.ndarray:
    return values / (float(np.abs(values).max(initial=0.0)) or 1.0)


def _bounded(values: np.ndarray) -> np.ndarray:
    """Constraint values (n,) on their scale, within 3 of 0, signs kept."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0.0)])
    scale = np.median(np.minimum(sizes, 1e300)) if len(sizes) else 1.0
    with np.errstate(over="ignore"):
        return np.clip(values / scale, -3.0, 3.0)


class StudyModel:
    """One process per objective, constraint and failures, conditioned on finished and pending trials.

    What other models (``priors``) predict is the prior mean, and a linear input each, so that their
    weight is learned. ``noise`` is its expected variance relative to the values.

    ``starts`` is ``theta`` of each process's last fit by name, with ``name`` before it where several
    models share it, read and written here, and taken as it is without ``refit``; None leaves the
    hyperparameters as they are expected beforehand. ``rng`` gives the directions in which four and
    more objectives are compared.
    """

    def __init__(
        self,
        data: StudyData,
        space: Space,
        *,
        priors: Sequence[PriorModel] = (),
        name: str = "",
        starts: dict[str, np.ndarray] | None,
        refit: bool,
        noise: float,
        rng: np.random.RandomState,
    ) -> None:
        self._space = space
        self._priors = priors
        self._options = name, starts, refit, noise
        self._seed = rng.randint(2**31 - 1)
        self._k = data.values.shape[1]
        values = normalised(data.values)
        feasible = data.feasible
        rows = _kept(values, feasible)
        points, expected = space.points(data.raw[rows]), self._expected(data.raw[rows])
        self._objectives = [
            self._fit(f"objective {i}", points, values[rows, i], self._prior(expected, i))
            for i in range(self._k)
        ]
        self._limited: list[tuple[CorrectedPrior, float]] = []
        if data.constraints is not None:
            for i, column in enumerate(data.constraints.T):
                known = rows[~np.isnan(column[rows])]
                if len(known):
                    process = self._fit(
                        f"constraint {i}", space.points(data.raw[known]), _bounded(column[known])
                    )
                    self._limited.append((process, 0.0))
        self._any_feasible = bool(feasible.any())
        if len(data.failed):
            self._limited.append(self._of_failures(data, rows))
        means = np.column_stack(
            [g.predict(points, self._prior(expected, i))[0] for i, g in enumerate(self._objectives)]
        )
        self._observed = means[feasible[rows]]
        self._observed_rows = rows[feasible[rows]]
        if len(data.pending):
            self._believe(data.pending)
        self._boxes = self._free() if 1 < self._k <= _MAX_BOXED and self._any_feasible else None

    def _prior(self, expected: np.ndarray | None, objective: int) -> PriorMean | None:
        return None if expected is None else PriorMean(expected[:, :, objective])

    def _expected(self, raw: np.ndarray) -> np.ndarray | None:
        if not self._priors:
            return None
        return np.concatenate([prior.predict(raw) for prior in self._priors], 1)

    def _fit(
        self, name: str, points: Points, targets: np.ndarray, prior: PriorMean | None = None
    ) -> CorrectedPrior:
        prefix, starts, refit, noise = self._options
        name = f"{prefix} {name}"
        start = None if starts is None else starts.get(name)
        fits = starts is not None and (refit or start is None)
        fitted = fit_correction(
            points,
            targets,
            prior,
            start=start,
            noise=noise,
            max_fit=_MAX_FITTED,
            iterations=30 if fits else 0,
        )
        if starts is not None:
            starts[name] = fitted.process.theta
        return fitted

    def _of_failures(self, data: StudyData, rows: np.ndarray) -> tuple[CorrectedPrior, float]:
        """A process of whether trials fail (above the limit), with the share of failures as its mean."""
        failed = data.failed[-_MAX_POINTS // 2 :]
        raw = np.vstack([data.raw[rows[-_MAX_POINTS // 2 :]], failed])
        target = np.where(np.arange(len(raw)) < len(raw) - len(failed), -1.0, 1.0)
        process = self._fit("failures", self._space.points(raw), target - target.mean())
        return process, -float(target.mean())

    def _believe(self, pending: np.ndarray) -> None:
        """Believe the means of trials that run: the spread around them shrinks."""
        points, expected = self._space.points(pending), self._expected(pending)
        believed = []
        for i, process in enumerate(self._objectives):
            prior = self._prior(expected, i)
            believed.append(process.predict(points, prior)[0])
            self._objectives[i] = process.given(points, prior, believed[-1])
        if self._any_feasible:
            self._observed = np.vstack([self._observed, np.column_stack(believed)])

    def compete_with(self, among: np.ndarray) -> None:
        """Take the best of some trials (mask, shape (n,)) as what is to be improved, if any is known."""
        rivals = self._observed[: len(self._observed_rows)][among[self._observed_rows]]
        if len(rivals):
            self._observed = rivals

    def _free(self) -> Any:
        front = self._observed[non_dominated(self._observed)]
        low, high = self._observed.min(0), self._observed.max(0)
        reference = low - 0.1 * np.where(high > low, high - low, 1.0)
        front = np.unique(np.round(front, 9), axis=0)
        most = _MAX_FRONT[self._k]
        if len(front) > most:
            front = front[np.linspace(0, len(front) - 1, most).astype(int)]
        return free_boxes(front, reference)

    def score(self, raw: np.ndarray) -> np.ndarray:
        """Acquisition of raw vectors, shape (m,); only its order means something."""
        points, expected = self._space.points(raw), self._expected(raw)
        objectives = [
            _Predicted(*g.predict(points, self._prior(expected, i)))
            for i, g in enumerate(self._objectives)
        ]
        limited = [_Predicted(*g.predict(points)) for g, _ in self._limited]
        return self._acquire(objectives, limited)[0]

    @property
    def has_slopes(self) -> bool:
        smooth = isinstance(self._space, SmoothSpace)
        smooth &= all(isinstance(prior, SmoothPriorModel) for prior in self._priors)
        return smooth and self._k <= _MAX_BOXED

    def slopes(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Acquisition of raw vectors, shape (m,), and its derivatives in them, shape (m, d)."""
        assert isinstance(self._space, SmoothSpace)
        descend = partial(self._space.descend, raw)
        points, expected = self._space.points(raw), self._expected(raw)
        smooth = [prior for prior in self._priors if isinstance(prior, SmoothPriorModel)]
        bent = np.concatenate([prior.slopes(raw) for prior in smooth], 1) if smooth else None
        objectives = [
            _chained(
                descend,
                points,
                g.slopes(points, self._prior(expected, i)),
                None if bent is None else bent[:, :, i],
            )
            for i, g in enumerate(self._objectives)
        ]
        limited = [_chained(descend, points, g.slopes(points), None) for g, _ in self._limited]
        value, slope = self._acquire(objectives, limited)
        assert slope is not None
        return value, slope

    def _acquire(
        self, objectives: Sequence[_Predicted], limited: Sequence[_Predicted]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        parts: list[tuple[_Predicted, Sloped]] = []
        for predicted, (_, limit) in zip(limited, self._limited, strict=True):
            part = feasible_slopes(predicted.mean, predicted.deviation, limit)
            parts.append((predicted, part))
        value = np.zeros(len(objectives[0].mean)) + sum(part.value for _, part in parts)
        if self._any_feasible:
            means = np.column_stack([p.mean for p in objectives])
            deviations = np.column_stack([p.deviation for p in objectives])
            if self._boxes is not None:
                gain = hypervolume_slopes(means, deviations, self._boxes)
                value = value + gain.value
                for j, p in enumerate(objectives):
                    own = Sloped(gain.value, gain.in_mean[:, j], gain.in_deviation[:, j])
                    parts.append((p, own))
            elif self._k == 1:
                best = float(self._observed.max())
                gain = improvement_slopes(means[:, 0], deviations[:, 0], best)
                value = value + gain.value
                parts.append((objectives[0], gain))
            else:
                rng = np.random.RandomState(self._seed)
                value = value + log_hypervolume_improvement(means, deviations, self._observed, rng)
        if objectives[0].mean_slope is None:
            return value, None
        slope = np.zeros_like(objectives[0].mean_slope)
        for p, part in parts:
            assert p.mean_slope is not None
            assert p.deviation_slope is not None
            slope += part.in_mean[:, None] * p.mean_slope
            slope += part.in_deviation[:, None] * p.deviation_slope
        return value, slope


def _chained(
    descend: Callable[[np.ndarray, np.ndarray], np.ndarray],
    points: Points,
    s: Slopes,
    bent: np.ndarray | None,
) -> _Predicted:
    """A process's slopes in raw vectors; ``bent`` (m, models, d) are those of its prior's models."""
    mean = descend(s.mean_spread, s.mean_linear)
    deviation = descend(s.deviation_spread, s.deviation_linear)
    if bent is not None:
        width = points.linear.shape[1]
        mean += np.einsum("mt,mtd->md", s.mean_linear[:, width:], bent)
        deviation += np.einsum("mt,mtd->md", s.deviation_linear[:, width:], bent)
    return _Predicted(s.mean, s.deviation, mean, deviation)


def _kept(values: np.ndarray, feasible: np.ndarray) -> np.ndarray:
    """Rows of the trials that the processes are conditioned on: the best, feasible ones, recent ones."""
    n = len(values)
    if n <= _MAX_POINTS:
        return np.arange(n)
    order = np.argsort(-values.mean(1), kind="stable")
    inside = order[feasible[order]]
    kept = [order[: _MAX_POINTS // 4], inside[: _MAX_POINTS // 4]]
    kept.append(np.arange(n - _MAX_POINTS // 4, n))
    if values.shape[1] > 1:
        kept.append(inside[np.flatnonzero(non_dominated(values[inside]))[: _MAX_POINTS // 4]])
    chosen = np.unique(np.concatenate(kept))
    rest = np.setdiff1d(np.arange(n), chosen)
    left = max(_MAX_POINTS - len(chosen), 0)
    spaced = rest[np.linspace(0, len(rest) - 1, left).astype(int)]
    return np.unique(np.concatenate([chosen, spaced]))
