"""The figures: drawn once, as SVG for the page (colours by style sheet) and as PNG."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import matplotlib
import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from autotune_rlm import formats
from autotune_rlm.report._summary import Report, when
from autotune_rlm.store.accuracy import TuningEvent

_SIZE = (4.4, 3.0)  # inches: on a phone the letters stay readable
_MAX_POINTS = 300
_MAX_DOTS = 1000
# What a logarithmic axis shows; no unit makes a real value leave it.
_MIN_VALUE, _MAX_VALUE = 1e-30, 1e30
_MAX_SCATTERS = 8
_MIN_DAYS = 2 / 24  # of a time axis: two runs of one minute do not get ticks of a second

# Colours of the light page; in SVG each becomes a variable of the style sheet.
_INK, _GRID, _GREY = "#22262b", "#dfe3e8", "#8b949e"
_BLUE, _ORANGE, _GREEN, _RED = "#1f6feb", "#c2570c", "#2f8f4e", "#cf222e"
_VARIABLES = {
    **{"ink": _INK, "grid": _GRID, "grey": _GREY},
    **{"blue": _BLUE, "orange": _ORANGE, "green": _GREEN, "red": _RED},
}
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclass(frozen=True)
class FigureOf:
    """One figure of the report, drawn into axes; the name is that of its file."""

    name: str
    title: str
    caption: str
    draw: Callable[[Any], None]


def figures(report: Report) -> list[FigureOf]:
    """The figures that the report has data for, most telling first."""
    found: list[FigureOf] = []

    def add(name: str, title: str, caption: str, draw: Callable[[Any], None]) -> None:
        found.append(FigureOf(name, title, caption, draw))

    if report.regret is not None:
        add(
            "regret",
            "Regret over measurements",
            f"Mean over {report.regret.runs} runs of how much slower the best so far is than the best "
            "of the run. The first to be measured is often the default. Random: the same candidates in "
            f"random order. Dotted: a full search needs {report.regret.full:,.0f} measurements on "
            "average.",
            lambda axes: _regret(axes, report),
        )
    if known := sum(e.spearman is not None for e in report.events):
        add(
            "rank-correlation",
            "Rank correlation over time",
            "Spearman's correlation between what the model predicted before it had measured anything and "
            f"what was measured then. 1 is a perfect ranking.{_sampled(known)}",
            lambda axes: _over_time(axes, report.events, "spearman", _BLUE, None),
        )
    if known := sum(e.coverage is not None for e in report.events):
        add(
            "calibration",
            "Calibration over time",
            "Share of the measured values inside the predicted 90 % interval. Honest intervals lie "
            f"around the dashed line.{_sampled(known)}",
            lambda axes: _over_time(axes, report.events, "coverage", _GREEN, 0.9),
        )
    if report.events:
        add(
            "seconds",
            "Where the seconds went",
            "Spent per kernel, all runs together. Saved is an estimate against measuring all candidates.",
            lambda axes: _seconds(axes, report),
        )
        add(
            "events",
            "Tuning runs over time",
            "Each dot is a run: how many of its candidates were measured."
            + _sampled(len(report.events)),
            lambda axes: _events(axes, report.events),
        )
    found += _scatters(report.events)
    if report.rounds:
        add(
            "fine-tuning",
            "Fine-tuning rounds",
            "Held-out rank accuracy before and after each round. A round that loses some is rejected.",
            lambda axes: _rounds(axes, report.rounds),
        )
    return found


def to_svg(figure: FigureOf) -> str:
    """Inline SVG whose colours are variables of the page and whose text is text."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": figure.name}):
        drawn = _drawn(figure)
        drawn.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"<(?:path|use|text|rect)\b[^>]*>", _two_decimals, text)
    # Identifiers must be unique on the page; fonts are the page's.
    text = re.sub(r'\bid="', f'id="{figure.name}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{figure.name}-", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", text)
    for variable, color in _VARIABLES.items():
        text = text.replace(color, f"var(--{variable})")
    label = figure.title.replace("&", "and").replace('"', "'").replace("<", " ")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def to_png(figure: FigureOf) -> bytes:
    """The figure as a PNG of 200 dots per inch on white."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        drawn = _drawn(figure)
        drawn.axes[0].set_title(figure.title)
        drawn.savefig(buffer, format="png", dpi=200, facecolor="white")
    return buffer.getvalue()


def _two_decimals(tag: re.Match[str]) -> str:
    """A tag whose coordinates are exact to 1/100 pt, less than a screen shows."""
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag[0])


def _sample(items: Sequence[Any], most: int) -> Sequence[Any]:
    """At most so many of the items, drawn at random but the same each time, in their order."""
    if len(items) <= most:
        return items
    chosen = np.random.default_rng(0).choice(len(items), most, replace=False)
    return [items[i] for i in sorted(chosen)]


def _sampled(runs: int) -> str:
    """The words of a caption on what ``_sample`` leaves out of a figure over time."""
    return f" Drawn: {_MAX_DOTS:,} of {runs:,} runs, at random." if runs > _MAX_DOTS else ""


def _drawn(figure: FigureOf) -> Figure:
    drawn = Figure(figsize=_SIZE, layout="constrained")
    figure.draw(drawn.add_subplot())
    return drawn


def _regret(axes: Any, report: Report) -> None:
    curve = report.regret
    assert curve is not None
    n = np.arange(1, len(curve.ours) + 1)
    axes.plot(n, curve.random, color=_GREY, label="random order")
    axes.plot(n, curve.ours, color=_BLUE, linewidth=2, label="as measured", marker=".")
    axes.set_xlabel("measurements")
    axes.set_ylabel("regret")
    axes.set_yscale("symlog", linthresh=0.01)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.axvline(curve.full, color=_GREY, linestyle=":", label="full search ends")
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis)
    axes.legend()


def _over_time(
    axes: Any, events: Sequence[TuningEvent], name: str, color: str, wanted: float | None
) -> None:
    shown = [(t, v) for e in events if (t := when(e.when)) and (v := getattr(e, name)) is not None]
    if wanted is not None:
        axes.axhline(wanted, color=_GREY, linestyle="--", linewidth=1)
    if shown:
        times, values = zip(*_sample(shown, _MAX_DOTS), strict=True)
        axes.plot(times, values, ".", color=color, alpha=0.6, markersize=6)
        if len(shown) >= 5:
            width = max(5, len(shown) // 8)
            everything = np.array([v for _, v in shown])
            ends = sorted({round(i) for i in np.linspace(0, len(shown) - 1, _MAX_POINTS)})
            smooth = [np.median(everything[max(0, i - width) : i + 1]) for i in ends]
            at = [shown[i][0] for i in ends]
            axes.plot(at, smooth, color=color, linewidth=1.5, label="running median")
            axes.legend(loc="lower right")
    axes.set_ylabel({"spearman": "Spearman", "coverage": "inside the interval"}[name])
    axes.set_ylim(min(0.0, *(v for _, v in shown), 0.0) - 0.03, 1.03)
    _time_axis(axes)


def _events(axes: Any, events: Sequence[TuningEvent]) -> None:
    known = [(t, e) for e in events if (t := when(e.when)) and e.n_candidates]
    shown = _sample(known, _MAX_DOTS)
    if shown:
        times = [t for t, _ in shown]
        axes.plot(times, [e.n_candidates for _, e in shown], "_", color=_GREY, label="candidates")
        axes.plot(times, [e.n_measured for _, e in shown], ".", color=_BLUE, label="measured")
        axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
    axes.set_ylabel("configurations")
    _time_axis(axes)


def _time_axis(axes: Any) -> None:
    first, last = axes.dataLim.intervalx
    if np.isfinite((first, last)).all():
        room = max(0.05 * (last - first), (_MIN_DAYS - (last - first)) / 2)
        axes.set_xlim(first - room, last + room)
    locator = AutoDateLocator(maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _seconds(axes: Any, report: Report) -> None:
    groups = report.by_kernel[:8][::-1]
    left = np.zeros(len(groups))
    names = [formats.short(g.name, 24) for g in groups]
    parts = (("model", _BLUE), ("compile", _ORANGE), ("measure", _GREEN))
    for part, color in parts:
        widths = np.array([getattr(g, f"{part}_s") for g in groups])
        axes.barh(names, widths, left=left, color=color, label=part, height=0.6)
        left += widths
    for row, group in enumerate(groups):
        if group.saved_s > 0:
            text = f"saved {formats.seconds(group.saved_s)}"
            end, offset = (left[row], row), (5, 0)
            axes.annotate(text, end, offset, textcoords="offset points", va="center", fontsize=8)
    axes.set_xlim(0, max(1.45 * left.max(initial=0.0), 1e-3))
    axes.set_xlabel("seconds")
    axes.grid(axis="y", visible=False)
    axes.set_ylim(-0.6, len(groups) - 0.4 if len(groups) > 1 else 0.9)
    axes.figure.legend(ncols=3, loc="outside upper center", fontsize=8)


def _scatters(events: Sequence[TuningEvent]) -> list[FigureOf]:
    groups: dict[tuple[str, str, str], list[Any]] = defaultdict(list)
    for event in events:
        groups[event.kernel, event.device, event.metric] += (
            p
            for p in event.points
            if p.value is not None
            and _MIN_VALUE <= p.value <= _MAX_VALUE
            and _MIN_VALUE <= p.median <= _MAX_VALUE
        )
    largest = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:_MAX_SCATTERS]
    return [
        FigureOf(
            f"predicted-{i}",
            f"{kernel} on {device}",
            f"Predicted before measuring, with the 90 % interval, against measured ({metric}; "
            f"{len(points):,} measurements). On the line the prediction was exact.",
            lambda axes, points=points, metric=metric: _scatter(axes, points, metric),  # type: ignore[misc]
        )
        for i, ((kernel, device, metric), points) in enumerate(largest, start=1)
        if len(points) >= 2
    ]


def _scatter(axes: Any, points: Sequence[Any], metric: str) -> None:
    points = _sample(points, _MAX_POINTS)
    x = np.array([p.value for p in points])
    y = np.array([p.median for p in points])
    ends = np.clip([(p.low, p.high) for p in points], _MIN_VALUE, _MAX_VALUE)
    inside = (ends[:, 0] <= x) & (x <= ends[:, 1])
    for mask, color, label in ((inside, _BLUE, "inside"), (~inside, _RED, "outside")):
        if mask.any():
            axes.vlines(x[mask], ends[mask, 0], ends[mask, 1], color=color, alpha=0.25, linewidth=1)
            text = f"{label} the interval: {mask.sum()}"
            axes.plot(x[mask], y[mask], ".", color=color, markersize=4, label=text)
    low, high = min(x.min(), y.min()) / 1.3, max(x.max(), y.max()) * 1.3
    axes.plot([low, high], [low, high], color=_GREY, linewidth=1)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set_xlabel(f"measured {metric}")
    axes.set_ylabel(f"predicted {metric}")
    for axis in (axes.xaxis, axes.yaxis):
        _plain_numbers(axis)
    axes.legend(loc="upper left", fontsize=8)


def _plain_numbers(axis: Any) -> None:
    """Ticks of a logarithmic axis as plain numbers: even ones within a decade, at 1, 2, 5 in a few."""
    low, high = sorted(abs(v) for v in axis.get_view_interval())
    span = high / max(low, _MIN_VALUE)
    if span < 10:
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    else:
        axis.set_major_locator(
            LogLocator(subs=(1.0, 2.0, 5.0) if span < 200 else (1.0,), numticks=9)
        )
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}" if v < 1e5 else f"{v:.0e}"))
    axis.set_minor_formatter(NullFormatter())


def _rounds(axes: Any, rounds: Sequence[Any]) -> None:
    for i, record in enumerate(rounds, start=1):
        before, after = record.get("before"), record.get("after")
        if before is None or after is None:
            continue
        color = _GREEN if record.get("accepted") else _RED
        axes.plot([i, i], [before, after], color=color, linewidth=2)
        axes.plot(i, before, "o", color=_GREY, markersize=4)
        axes.plot(i, after, "o", color=color, markersize=5)
    axes.plot([], [], "o", color=_GREY, markersize=4, label="before")
    axes.plot([], [], "o-", color=_GREEN, label="accepted")
    axes.plot([], [], "o-", color=_RED, label="rejected")
    axes.set_xlabel("round")
    axes.set_ylabel("held-out Spearman")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)


def now() -> str:
    """The local time, for the page's foot."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
