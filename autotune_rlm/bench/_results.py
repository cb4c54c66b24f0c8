"""Runs to the results file and the summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from autotune_rlm.bench._time import full_seconds, reach_table
from autotune_rlm.bench.kernels import Bench, Run, Skipped

_OF_TIME = ("worst_regret", "seconds", "best")  # of a run, not among its results


def summarize(runs: Sequence[Run], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Mean, median and 90 % quantile of regret by method and budget.

    A run in which nothing worked counts as the slowest working configuration; landscapes in which
    nothing works at all are left out.
    """
    rows = []
    for method in methods:
        of_method = [r for r in runs if r.method == method and r.worst_regret is not None]
        for budget in of_method[0].regret if of_method else ():
            known = ((r.regret[budget], r.worst_regret) for r in of_method)
            regrets = np.array([worst if n is None else n for n, worst in known], dtype=float)
            rows.append(
                {
                    "method": method,
                    "budget": budget,
                    "mean_regret": float(np.mean(regrets)),
                    "median_regret": float(np.median(regrets)),
                    "p90_regret": float(np.quantile(regrets, 0.9)),
                    "runs": len(regrets),
                }
            )
    return rows


def results_json(bench: Bench, runs: Sequence[Run], skipped: Sequence[Skipped]) -> dict[str, Any]:
    """The results file: ``runs``, ``summary``, ``skipped`` and, where recorded, ``time``."""
    told = ({n: v for n, v in asdict(r).items() if n not in _OF_TIME} for r in runs)
    return {
        "runs": [{**r, "regret": {str(n): v for n, v in r["regret"].items()}} for r in told],
        "summary": summarize(runs, bench.methods),
        "skipped": [asdict(s) for s in skipped],
        "time": _time(bench, runs),
    }


def _time(bench: Bench, runs: Sequence[Run]) -> dict[str, Any]:
    """Best so far against simulated wall clock, and what measuring everything costs."""
    full_s = full_seconds(bench, runs)
    return {
        "full_s": full_s,
        "reach": reach_table(runs, bench.methods, full_s),
        "runs": [
            {
                "landscape": r.landscape,
                "method": r.method,
                "seed": r.seed,
                "seconds": list(r.seconds),
                "regret": list(r.best or ()),
            }
            for r in runs
            if r.seconds is not None
        ],
    }
