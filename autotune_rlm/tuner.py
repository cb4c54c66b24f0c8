"""Moved to ``autotune_rlm.search.tuner``; this name goes with the next release."""

import warnings

from autotune_rlm.search.tuner import Tuner, TuningError, TuningResult, resolve_budget

__all__ = ["Tuner", "TuningError", "TuningResult", "resolve_budget"]

warnings.warn(
    "autotune_rlm.tuner is now autotune_rlm.search.tuner", DeprecationWarning, stacklevel=2
)
