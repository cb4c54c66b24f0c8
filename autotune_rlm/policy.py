"""Moved to ``autotune_rlm.search.policy``; this name goes with the next release."""

import warnings

from autotune_rlm.search.policy import Policy

__all__ = ["Policy"]

warnings.warn(
    "autotune_rlm.policy is now autotune_rlm.search.policy", DeprecationWarning, stacklevel=2
)
