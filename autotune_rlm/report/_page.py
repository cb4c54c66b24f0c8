"""The report as one HTML page, as JSON and as PNG files."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

from autotune_rlm import formats
from autotune_rlm._checks import of_extra
from autotune_rlm._json import plain
from autotune_rlm._version import __version__
from autotune_rlm.report._summary import Report

_MAX_ROWS = 200
_OF_A_ROUND = ("when", "accepted", "before", "after", "measurements", "seconds", "version")


def render_html(report: Report, *, source: str = "") -> str:
    """The self-contained page: no request to anywhere, light and dark.

    Args:
        report: What to show.
        source: Where the events come from, for the page's foot.

    Raises:
        ImportError: matplotlib or jinja2 is missing.
    """
    figure_module = _figures()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("autotune_rlm", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= dict(inspect.getmembers(formats, inspect.isfunction))
    drawn = [{"figure": f, "svg": figure_module.to_svg(f)} for f in figure_module.figures(report)]
    return environment.get_template("report.html.j2").render(
        report=report,
        figures=drawn,
        rounds=[dict.fromkeys(_OF_A_ROUND) | dict(record) for record in report.rounds],
        recent=list(reversed(report.events))[:_MAX_ROWS],
        hidden=max(0, len(report.events) - _MAX_ROWS),
        source=source,
        version=__version__,
        now=figure_module.now(),
    )


def write_html(report: Report, path: str | os.PathLike[str], *, source: str = "") -> Path:
    """Write the page; returns its path."""
    return _write(Path(path), render_html(report, source=source).encode())


def write_json(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write everything that the figures show as JSON; returns the path."""
    text = json.dumps(plain(report.to_json()), indent=1, allow_nan=False)
    return _write(Path(path), text.encode())


def write_png(report: Report, folder: str | os.PathLike[str]) -> list[Path]:
    """Write each figure as ``<name>.png`` into a folder; returns the files."""
    module = _figures()
    return [
        _write(Path(folder) / f"{figure.name}.png", module.to_png(figure))
        for figure in module.figures(report)
    ]


def _figures() -> Any:
    with of_extra("plot", "drawing the report"):
        import jinja2  # noqa: F401

        from autotune_rlm.report import _figures
    return _figures


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
