"""Configuration files of vLLM and SGLang: predicted for a GPU that nobody has tuned, and checked.

Both servers choose the tiles of their Triton kernels from a JSON file for each GPU and weight shape,
which names a configuration for each batch size. Where the file of a GPU is missing, they fall back to
a rule of thumb and warn.
"""

from autotune_rlm.integrations.serving._advise import BATCHES, Doubt, Entry, check, predict
from autotune_rlm.integrations.serving._file import ServingFile

__all__ = ["BATCHES", "Doubt", "Entry", "ServingFile", "check", "predict"]
