"""Other models' predictions as the prior mean of a Gaussian process, which corrects them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autotune_rlm.learn.gaussian_process import GaussianProcess, Points, Slopes, fit
from autotune_rlm.learn.transform import standardised

__all__ = ["CorrectedPrior", "PriorMean", "differences", "extend", "fit_correction"]

_MAX_DIFFERENCES = 6
_MANY = 3.0  # root-mean-square norm of ``differences``, beside linear columns of about 1


@dataclass(frozen=True)
class PriorMean:
    """Prior predictions of other models for n points.

    Attributes:
        predictions: On the scale of the (standard normal) targets, shape (n, k).
        trust: Weight of the predictions' mean in the prior mean.
        inertia: Number of targets at which the correction gets half its weight.
    """

    predictions: np.ndarray
    trust: float = 0.6
    inertia: float = 0.0

    @classmethod
    def of(cls, *several: np.ndarray, trust: float = 0.6, inertia: float = 0.0) -> PriorMean:
        """From predictions of any scale, shape (n,) each, that rise with the targets."""
        return cls(standardised(np.column_stack(several).astype(float)), trust, inertia)

    @property
    def mean(self) -> np.ndarray:
        """The prior mean, shape (n,)."""
        return self.trust * self.predictions.mean(1)

    def take(self, rows: np.ndarray) -> PriorMean:
        """The prior mean of the points at ``rows``."""
        return PriorMean(self.predictions[rows], self.trust, self.inertia)


@dataclass(frozen=True)
class CorrectedPrior:
    """A prior mean and the Gaussian process fitted to its residuals. Made by ``fit_correction``."""

    process: GaussianProcess
    weight: float
    distance: float

    @property
    def noise(self) -> float:
        """Variance of the noise."""
        return self.process.noise

    def given(self, points: Points, prior: PriorMean | None, targets: np.ndarray) -> CorrectedPrior:
        """With more observations and unchanged hyperparameters."""
        inputs, mean = _inputs(points, prior, self.distance)
        process = self.process.given(inputs, targets - mean)
        return CorrectedPrior(process, self.weight, self.distance)

    def predict(
        self, points: Points, prior: PriorMean | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the noise-free value, each of shape (m,).

        Args:
            points: The m points.
            prior: The same models' predictions for them; None where the fit had none.
        """
        inputs, mean = _inputs(points, prior, self.distance)
        correction, deviation = self.process.predict(inputs)
        return mean + self.weight * correction, deviation

    def slopes(self, points: Points, prior: PriorMean | None = None) -> Slopes:
        """``predict``, and how it changes with each column: the points', then the prior's."""
        inputs, mean = _inputs(points, prior, self.distance)
        slopes = self.process.slopes(inputs)
        in_linear = self.weight * slopes.mean_linear
        if prior is not None:
            in_linear[:, points.linear.shape[1] :] += prior.trust / prior.predictions.shape[1]
        return replace(
            slopes,
            mean=mean + self.weight * slopes.mean,
            mean_spread=self.weight * slopes.mean_spread,
            mean_linear=in_linear,
        )


def fit_correction(
    points: Points,
    targets: np.ndarray,
    prior: PriorMean | None = None,
    *,
    distance: float = 0.0,
    **options: Any,
) -> CorrectedPrior:
    """Fit a process to the residuals of the prior mean at n observed points.

    Its predictions are one more group of linear inputs too, so that their weight is learned.

    Args:
        points: The observed points.
        targets: Their values, about standard normal, shape (n,).
        prior: Predictions of other models for the observed points.
        distance: Scale of these predictions as distance columns; 0 for no such columns.
        **options: Of ``gaussian_process.fit``.
    """
    inputs, mean = _inputs(points, prior, distance)
    inertia = 0.0 if prior is None else prior.inertia
    process = fit(inputs, np.asarray(targets, dtype=float) - mean, **options)
    return CorrectedPrior(process, len(points) / max(len(points) + inertia, 1.0), distance)


def _inputs(points: Points, prior: PriorMean | None, distance: float) -> tuple[Points, np.ndarray]:
    if prior is None:
        return points, np.zeros(len(points))
    return extend(points, prior.predictions, distance=distance), prior.mean


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


def differences(predictions: np.ndarray) -> np.ndarray:
    """Principal components (n, at most 6) of several predictions (n, k) less their mean.

    The directions in which known devices differ are those in which a new one may differ. A single
    prediction is returned as it is.
    """
    if predictions.shape[1] < 2:
        return predictions
    deviations = predictions - predictions.mean(1, keepdims=True)
    left, sizes, _ = np.linalg.svd(deviations, full_matrices=False)
    components = (left * sizes)[:, :_MAX_DIFFERENCES]
    length = float(np.sqrt((components**2).sum(1).mean()))
    return _MANY * components / max(length, 1e-9)
