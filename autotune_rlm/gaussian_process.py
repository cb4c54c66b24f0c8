"""Moved to ``autotune_rlm.learn.gaussian_process``; this name goes with the next release."""

import warnings

from autotune_rlm.learn.gaussian_process import GaussianProcess, Points, fit

__all__ = ["GaussianProcess", "Points", "fit"]

warnings.warn(
    "autotune_rlm.gaussian_process is now autotune_rlm.learn.gaussian_process",
    DeprecationWarning,
    stacklevel=2,
)
