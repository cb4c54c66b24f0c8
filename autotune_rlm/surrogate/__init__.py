"""Text to numbers: the Regression Language Model and what it is made of."""

from __future__ import annotations

from autotune_rlm.surrogate.rlm import RLMSurrogate, load_surrogate

__all__ = ["RLMSurrogate", "load", "load_surrogate"]

load = load_surrogate
"""The same as `load_surrogate`."""
