"""The prior prediction of other models (the lead), and a Gaussian process that corrects it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autotune_rlm.learn.gaussian_process import GaussianProcess, Points, Slopes, fit
from autotune_rlm.learn.transform import standardised

__all__ = ["Lead", "Led", "differences", "extend", "fit_led"]

_MAX_DIFFERENCES = 6
_MANY = 3.0  # root-mean-square norm of ``differences``, beside linear columns of about 1


@dataclass(frozen=True)
class Lead:
    """Prior predictions of other models for n points.

    Attributes:
        words: Their predictions on the scale of the (standard normal) targets, shape (n, k).
        trust: Weight of the predictions' mean in the prior mean.
        inertia: Number of targets at which the correction gets half its weight.
    """

    words: np.ndarray
    trust: float = 0.6
    inertia: float = 0.0

    @classmethod
    def of(cls, *words: np.ndarray, trust: float = 0.6, inertia: float = 0.0) -> Lead:
        """From predictions of any scale, shape (n,) each, that rise with the targets."""
        return cls(standardised(np.column_stack(words).astype(float)), trust, inertia)

    @property
    def prior(self) -> np.ndarray:
        """The prior mean, shape (n,)."""
        return self.trust * self.words.mean(1)

    def take(self, rows: np.ndarray) -> Lead:
        """The prior prediction for the points at ``rows``."""
        return Lead(self.words[rows], self.trust, self.inertia)


@dataclass(frozen=True)
class Led:
    """A Gaussian process fitted to the residuals of a lead. Made by ``fit_led``."""

    process: GaussianProcess
    weight: float
    distance: float

    @property
    def noise(self) -> float:
        """Variance of the noise."""
        return self.process.noise

    def given(self, points: Points, lead: Lead | None, targets: np.ndarray) -> Led:
        """With more observations and unchanged hyperparameters."""
        inputs, prior = _inputs(points, lead, self.distance)
        return Led(self.process.given(inputs, targets - prior), self.weight, self.distance)

    def predict(self, points: Points, lead: Lead | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the noise-free value, each of shape (m,).

        Args:
            points: The m points.
            lead: The same models' prior predictions for them; None where the fit had none.
        """
        inputs, prior = _inputs(points, lead, self.distance)
        mean, deviation = self.process.predict(inputs)
        return prior + self.weight * mean, deviation

    def slopes(self, points: Points, lead: Lead | None = None) -> Slopes:
        """``predict``, and how it changes with each column: the points', then the lead's."""
        inputs, prior = _inputs(points, lead, self.distance)
        slopes = self.process.slopes(inputs)
        in_linear = self.weight * slopes.mean_linear
        if lead is not None:
            in_linear[:, points.linear.shape[1] :] += lead.trust / lead.words.shape[1]
        return replace(
            slopes,
            mean=prior + self.weight * slopes.mean,
            mean_spread=self.weight * slopes.mean_spread,
            mean_linear=in_linear,
        )


def fit_led(
    points: Points,
    targets: np.ndarray,
    lead: Lead | None = None,
    *,
    distance: float = 0.0,
    **options: Any,
) -> Led:
    """Fit a process to the residuals of the lead at n observed points.

    The lead is the prior mean, and one more group of linear inputs, so that its weight is learned.

    Args:
        points: The observed points.
        targets: Their values, about standard normal, shape (n,).
        lead: Prior predictions of other models for the observed points.
        distance: Scale of the lead's predictions as distance columns; 0 for no such columns.
        **options: Of ``gaussian_process.fit``.
    """
    inputs, prior = _inputs(points, lead, distance)
    inertia = 0.0 if lead is None else lead.inertia
    process = fit(inputs, np.asarray(targets, dtype=float) - prior, **options)
    return Led(process, len(points) / max(len(points) + inertia, 1.0), distance)


def _inputs(points: Points, lead: Lead | None, distance: float) -> tuple[Points, np.ndarray]:
    if lead is None:
        return points, np.zeros(len(points))
    return extend(points, lead.words, distance=distance), lead.prior


def extend(points: Points, columns: np.ndarray, *, distance: float = 0.0) -> Points:
    """Points with columns (n, k) of unit scale added, as one group of linear effects.

    Args:
        points: The n points.
        columns: What is added.
        distance: Scale of the same columns as one group that distances are taken of; 0 for none.
    """
    if not columns.shape[1]:
        return points
    spread, near = points.spread, points.spread_groups
    if distance:
        spread = np.hstack([spread, distance * columns])
        near = np.append(near, np.full(columns.shape[1], _next(near)))
    linear = points.linear_groups
    return Points(
        spread,
        np.hstack([points.linear, columns]),
        near,
        np.append(linear, np.full(columns.shape[1], _next(linear))),
    )


def _next(groups: np.ndarray) -> int:
    return int(groups.max()) + 1 if len(groups) else 0


def differences(words: np.ndarray) -> np.ndarray:
    """Principal components (n, at most 6) of several predictions (n, k) less their mean.

    The directions in which known devices differ are those in which a new one may differ. A single
    prediction is returned as it is.
    """
    if words.shape[1] < 2:
        return words
    deviations = words - words.mean(1, keepdims=True)
    left, sizes, _ = np.linalg.svd(deviations, full_matrices=False)
    components = (left * sizes)[:, :_MAX_DIFFERENCES]
    length = float(np.sqrt((components**2).sum(1).mean()))
    return _MANY * components / max(length, 1e-9)
