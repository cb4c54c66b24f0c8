"""Recorded landscapes: the candidates of one task, all measured, and the files that keep them.

Reads and writes the landscape CSV (``.csv``, ``.csv.gz``), Kernel Tuner cache files, the tuning
community's T4 results and JSON lines. Nothing read from a file is ever executed.
"""

from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.landscapes.io import FORMATS, read_landscapes, write_landscapes

__all__ = ["FORMATS", "Landscape", "read_landscapes", "write_landscapes"]
