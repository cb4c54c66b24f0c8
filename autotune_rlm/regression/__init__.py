"""Text in, number out: tables of texts with numbers, fitted and predicted."""

from __future__ import annotations

from autotune_rlm.regression._report import FitReport, Scores
from autotune_rlm.regression._rlm import RLM

__all__ = ["RLM", "FitReport", "Scores"]
