"""What a surrogate answers: errors' logarithms as a ``Prediction`` of the task's metric."""

from __future__ import annotations

import numpy as np

from autotune_rlm.surrogate.metrics import ErrorScale
from autotune_rlm.types import Prediction, Task


def prediction_of(
    task: Task,
    scale: ErrorScale,
    mean: np.ndarray,
    spread: np.ndarray,
    p_valid: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> Prediction:
    """The prediction whose logarithms of errors these are, shape (n,) each, on the metric's scale."""
    mean, low, high = (np.clip(x, -60.0, 60.0) for x in (mean, low, high))
    ends = [scale.from_error(np.exp(x)) for x in (np.minimum(low, mean), np.maximum(high, mean))]
    median = scale.from_error(np.exp(mean))
    as_number = scale.kind == "number"
    log_scale = bool((ends[0] > 0).all()) if as_number else task.minimize
    if not task.minimize and not as_number:
        ends.reverse()
    if not log_scale:
        spread = spread * (1.0 + np.abs(median) if as_number else np.exp(mean))
    return Prediction(
        metric=task.metric,
        median=median,
        low=ends[0],
        high=ends[1],
        spread=spread,
        p_valid=np.clip(p_valid, 0.0, 1.0),
        log_scale=log_scale,
    )


def nothing_of(task: Task) -> Prediction:
    """The prediction of no candidates."""
    nothing = np.zeros(0)
    return Prediction(
        metric=task.metric,
        median=nothing,
        low=nothing,
        high=nothing,
        spread=nothing,
        p_valid=nothing,
        log_scale=task.minimize,
    )
