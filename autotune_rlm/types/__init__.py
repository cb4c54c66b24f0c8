"""The shared data types: tasks, candidates, measurements and predictions.

Nothing here imports torch or triton. All classes are frozen, compare by value and turn into plain
JSON with ``to_json`` and back with ``from_json``.
"""

from autotune_rlm._json import canonical_json, digest
from autotune_rlm.types._measurement import Measurement, Observation, Status
from autotune_rlm.types._prediction import Prediction
from autotune_rlm.types._protocols import (
    DecodesSequences,
    Measurer,
    Parallel,
    Preparing,
    Simulated,
    Surrogate,
)
from autotune_rlm.types._task import Candidate, Device, Task

__all__ = [
    "Candidate",
    "DecodesSequences",
    "Device",
    "Measurement",
    "Measurer",
    "Observation",
    "Parallel",
    "Prediction",
    "Preparing",
    "Simulated",
    "Status",
    "Surrogate",
    "Task",
    "canonical_json",
    "digest",
]
