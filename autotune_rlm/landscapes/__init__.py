"""Recorded landscapes: the candidates of one task, all measured, and the files that keep them.

Reads and writes the landscape CSV (``.csv``, ``.csv.gz``), Kernel Tuner cache files, the tuning
community's T4 results and JSON lines; reads what KTT and
Triton's autotuner save. Nothing read from a file is ever executed.
"""

from autotune_rlm.landscapes._kernel_tuner import kernel_tuner_observation
from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.landscapes._triton_cache import triton_measurement, triton_problem
from autotune_rlm.landscapes.io import FORMATS, READ_ONLY, read_landscapes, write_landscapes

__all__ = [
    "FORMATS",
    "READ_ONLY",
    "Landscape",
    "kernel_tuner_observation",
    "read_landscapes",
    "triton_measurement",
    "triton_problem",
    "write_landscapes",
]
