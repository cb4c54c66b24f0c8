"""Performance over time: how many simulated seconds a search takes to come near the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autotune_rlm.bench.kernels import Bench, Run
from autotune_rlm.measure.replay import ReplayMeasurer

REACHES = (0.10, 0.05, 0.01)
"""Regrets whose seconds are shown."""


def full_seconds(bench: Bench, runs: Sequence[Run]) -> dict[str, float]:
    """By landscape with recorded seconds: what measuring every configuration costs."""
    timed = {r.landscape for r in runs if r.seconds is not None}
    return {
        landscape.id: sum(map(ReplayMeasurer(landscape).cost_s, landscape.measurements))
        for landscape in bench.landscapes
        if landscape.id in timed
    }


def seconds_to_reach(run: Run, regret: float) -> float | None:
    """Simulated seconds until the run's best was within ``regret``; None if its budget ended first."""
    for at, best in zip(run.seconds or (), run.best or (), strict=True):
        if best is not None and best <= regret:
            return at
    return None


def reach_table(
    runs: Sequence[Run], methods: Sequence[str], full_s: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Per method and regret: runs that came so near, the median seconds that it took, the speed-up.

    The median is over all runs, one that did not come so near counting as endless, and None where
    half of them or more did not. A full search knows the best when it ends (``full_s``);
    ``times_faster`` is the median of its seconds over the run's, None as the median.
    """
    rows = []
    for method in methods:
        timed = [r for r in runs if r.method == method and r.seconds and r.worst_regret is not None]
        for regret in REACHES if timed else ():
            taken = [seconds_to_reach(r, regret) for r in timed]
            seconds = np.array([np.inf if s is None else s for s in taken])
            faster = np.array([full_s[r.landscape] for r in timed]) / seconds
            reached = np.isfinite(seconds)
            half = 2 * reached.sum() > len(timed)
            rows.append(
                {
                    "method": method,
                    "regret": regret,
                    "runs": len(timed),
                    "reached": int(reached.sum()),
                    "median_s": float(np.quantile(seconds, 0.5, method="higher")) if half else None,
                    "times_faster": float(np.quantile(faster, 0.5, method="lower"))
                    if half
                    else None,
                }
            )
    return rows
