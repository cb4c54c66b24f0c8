"""No predicted time below what a launch costs, its bytes over bandwidth, or its work over peak."""

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
    """The prediction raised to what physics allows, its order kept; what cannot compile fails.

    Where the likeliest best is too fast, all times are too fast by one factor, and are raised by it;
    what is still too fast then is raised alone.

    Args:
        prediction: Of n candidates, before anything of the task was measured.
        task: The task; only times in ms of kernels on a GPU are looked at.
        candidates: The n candidates. ``facts["floor_ms"]`` tells a candidate's limit, where it is
            known; ``facts["refused"]`` says that Triton's front end does not take it.
    """
    refused = np.array([bool(c.facts.get("refused")) for c in candidates])
    if refused.any():
        likely = np.where(refused, 0.0, prediction.p_valid)
        prediction = dataclasses.replace(prediction, p_valid=likely)
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
