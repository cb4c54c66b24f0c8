"""Configuration files of vLLM, SGLang and AITER: predicted for any GPU, measured, checked.

Both servers choose the tiles of their Triton kernels from a JSON file for each GPU and weight shape,
which names a configuration for each batch size. Where the file of a GPU is missing, they fall back to
a rule of thumb and warn.
"""

from autotune_rlm.integrations.serving._advise import BATCHES, Doubt, Entry, check, predict
from autotune_rlm.integrations.serving._aiter import M_BOUNDS, AiterFile
from autotune_rlm.integrations.serving._file import ServingFile
from autotune_rlm.integrations.serving._measure import Measured, measure
from autotune_rlm.integrations.serving._nearest import Nearest, driver_name, how_to_use, nearest

__all__ = [
    "BATCHES",
    "M_BOUNDS",
    "AiterFile",
    "Doubt",
    "Entry",
    "Measured",
    "Nearest",
    "ServingFile",
    "check",
    "driver_name",
    "how_to_use",
    "measure",
    "nearest",
    "predict",
]
