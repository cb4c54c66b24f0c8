"""What compiling would tell of candidates whose first IR was read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autotune_rlm.types import Candidate, Prediction

__all__ = ["from_ir"]

_NAMES = {"registers": "registers", "shared_bytes": "shared_bytes", "spills": "excess_registers"}
# 5 and 95 % quantiles of log((told + 1) / (estimated + 1)) over 2,739 recorded compilations of the
# kernel suite and of kernels of packages, and what was told where nothing was estimated
_LOW = {"registers": -0.83, "shared_bytes": -1.36, "spills": -5.3}
_HIGH = {"registers": 0.54, "shared_bytes": 2.77, "spills": 2.16}
_HIGH_OF_NOTHING = {"registers": 16.0, "shared_bytes": 2048.0, "spills": 0.0}


def from_ir(metric: str, candidates: Sequence[Candidate]) -> Prediction | None:
    """A fact of compilation as the first IR tells it; None where one of the n candidates was not read.

    Args:
        metric: ``"registers"`` and ``"spills"`` of a thread, or ``"shared_bytes"`` of a program.
        candidates: The n candidates.
    """
    name = _NAMES.get(metric)
    if name is None or not candidates or not all(name in c.facts for c in candidates):
        return None
    median = np.array([c.facts[name] for c in candidates])
    low = np.maximum((median + 1) * np.exp(_LOW[metric]) - 1, 0.0)
    high = (median + 1) * np.exp(_HIGH[metric]) - 1
    nothing = median < 1
    return Prediction(
        metric=metric,
        median=median,
        low=np.where(nothing, 0.0, low),
        high=np.where(nothing, np.maximum(median, _HIGH_OF_NOTHING[metric]), high),
        spread=np.full(len(median), (_HIGH[metric] - _LOW[metric]) / 3.29),
        p_valid=np.ones(len(median)),
    )
