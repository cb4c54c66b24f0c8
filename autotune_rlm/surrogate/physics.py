"""Physical lower limits of predicted times: a launch's cost, bytes over bandwidth, work over peak."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from autotune_rlm.ir import LAUNCH_MS
from autotune_rlm.types import Candidate, Prediction, Task

__all__ = ["physical"]

_GPU_TARGETS = ("sm_", "gfx")
_LANGUAGES = ("triton", "cuda", "hip", "opencl")


def physical(prediction: Prediction, task: Task, candidates: Sequence[Candidate]) -> Prediction:
    """The prediction with times raised to their physical limits; candidates Triton refuses fail.

    Where the best predicted time is below its limit, all times are multiplied by the factor that it is
    short of. Times that are still below their own limits are then raised to them.

    Args:
        prediction: Prediction for n candidates, before anything of the task was measured.
        task: The task; only times in ms of kernels on a GPU change.
        candidates: The n candidates. ``facts["floor_ms"]`` is a candidate's limit where it is known.
            ``facts["refused"]`` is set where Triton's front end rejects it.
    """
    refused = np.array([bool(c.facts.get("refused")) for c in candidates])
    if refused.any():
        p_valid = np.where(refused, 0.0, prediction.p_valid)
        prediction = dataclasses.replace(prediction, p_valid=p_valid)
    on_gpu = task.device.target.startswith(_GPU_TARGETS) and task.language in _LANGUAGES
    if task.metric != "time_ms" or not on_gpu or not len(prediction):
        return prediction
    floors = np.array([max(c.facts.get("floor_ms", 0.0), LAUNCH_MS) for c in candidates])
    best = int(np.argmin(np.where(refused, np.inf, prediction.median)))
    factor = max(1.0, float(floors[best] / prediction.median[best]))
    median = np.maximum(prediction.median * factor, floors)
    if factor == 1.0 and (prediction.low >= floors).all():
        return prediction
    return dataclasses.replace(
        prediction,
        median=median,
        low=np.clip(prediction.low * factor, floors, median),
        high=np.maximum(prediction.high * factor, median),
    )
