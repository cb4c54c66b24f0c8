"""Moved to ``autotune_rlm.learn.columns``; this name goes with the next release."""

import warnings

from autotune_rlm.learn.columns import encode_configs

__all__ = ["encode_configs"]

warnings.warn(
    "autotune_rlm.encoding is now autotune_rlm.learn.columns", DeprecationWarning, stacklevel=2
)
