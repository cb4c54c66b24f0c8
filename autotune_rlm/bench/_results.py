"""Runs to the results file and the summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autotune_rlm.bench._time import full_seconds, reach_table
from autotune_rlm.bench.kernels import Bench, Run, Skipped


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
    return {
        "runs": [
            {
                "landscape": r.landscape,
                "kernel": r.kernel,
                "device": r.device,
                "method": r.method,
                "seed": r.seed,
                "n_configs": r.n_configs,
                "n_ok": r.n_ok,
                "regret": {str(n): value for n, value in r.regret.items()},
                "spearman": r.spearman,
                "surrogate_s": r.surrogate_s,
                "stopped": r.stopped,
            }
            for r in runs
        ],
        "summary": summarize(runs, bench.methods),
        "skipped": [
            {"landscape": s.landscape, "method": s.method, "reason": s.reason, "failed": s.failed}
            for s in skipped
        ],
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
