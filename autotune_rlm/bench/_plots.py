"""Regret over measurements and over simulated wall clock, as PNG or any format of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autotune_rlm.bench.kernels import Run

_FLOOR = 1e-3


def plot_measurements(summary: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Mean and median regret over the number of measurements, one line per method."""
    figure, panels = _figure(2)
    for panel, statistic in zip(panels, ("mean", "median"), strict=True):
        for method in dict.fromkeys(row["method"] for row in summary):
            rows = [row for row in summary if row["method"] == method]
            regret = [max(row[f"{statistic}_regret"], _FLOOR) for row in rows]
            panel.plot([row["budget"] for row in rows], regret, marker="o", ms=3, label=method)
        panel.set(xlabel="configurations measured", ylabel=f"{statistic} regret", xscale="log")
        _dress(panel)
    _save(figure, panels[0], file)


def plot_time(runs: Sequence[Run], full_s: Mapping[str, float], file: Path) -> bool:
    """Regret over simulated seconds, one line per method; False where none are recorded.

    Left the median over all searches, right the share of them whose best is within 5 %. A search
    that spent its budget keeps its best; a full search knows its best when it ends.
    """
    timed = [r for r in runs if r.seconds and r.worst_regret is not None]
    if not timed:
        return False
    figure, (left, right) = _figure(2)
    ends = np.array([full_s[r.landscape] for r in timed])
    start = max(min(r.seconds[0] for r in timed if r.seconds), 1e-3)
    grid = np.geomspace(start, max(ends.max(), start * 1.01) * 1.05, 400)
    drawn = {
        method: np.stack([_on_grid(r, grid) for r in timed if r.method == method])
        for method in dict.fromkeys(r.method for r in timed)
    }
    worst = np.array([r.worst_regret for r in timed], dtype=float)
    drawn["full search"] = np.where(grid >= ends[:, None], 0.0, worst[:, None])
    for method, curves in drawn.items():
        style: dict[str, Any] = {"label": method, "drawstyle": "steps-post"}
        if method == "full search":
            style |= {"color": "gray", "linestyle": ":"}
        left.plot(grid, np.maximum(np.median(curves, axis=0), _FLOOR), **style)
        right.plot(grid, (curves <= 0.05).mean(axis=0), **style)
    seconds = "seconds: recorded compilation and runs, method included"
    left.set(xlabel=seconds, ylabel="median regret of the best so far", xscale="log")
    _dress(left)
    right.set(xlabel=seconds, ylabel="searches within 5 % of the best", xscale="log")
    right.set_ylim(-0.02, 1.02)
    right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    right.grid(alpha=0.3, which="both")
    _save(figure, left, file)
    return True


def _on_grid(run: Run, grid: np.ndarray) -> np.ndarray:
    """Regret at each time of the grid; that of the slowest configuration until something worked."""
    worst = float(run.worst_regret or 0.0)
    best = np.array([worst, *(worst if b is None else b for b in run.best or ())])
    return best[np.searchsorted(np.asarray(run.seconds), grid, side="right")]


def _figure(panels: int) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * panels, 4.4), layout="constrained")
    return figure, [figure.add_subplot(1, panels, i + 1) for i in range(panels)]


def _dress(panel: Any) -> None:
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(
        lambda value, _: f"{value:.1%}" if value < 0.0999 else f"{value:,.0%}"
    )
    panel.grid(alpha=0.3, which="both")


def _save(figure: Any, panel: Any, file: Path) -> None:
    panel.legend(fontsize="small")
    figure.savefig(file, dpi=150)
