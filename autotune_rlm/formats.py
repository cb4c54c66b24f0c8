"""Numbers and names as people read them, the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOTHING = "–"  # noqa: RUF001


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as per cent."""
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def score(number: float | None) -> str:
    """A correlation."""
    return NOTHING if number is None else f"{number:.2f}"


def seconds(number: float | None) -> str:
    """A duration in the unit that suits it."""
    if number is None:
        return NOTHING
    if number < 0:
        return f"-{seconds(-number)}"
    if number < 1:
        return f"{1000 * number:.0f} ms"
    if number < 120:
        return f"{number:.1f} s"
    return f"{number / 60:.0f} min" if number < 7200 else f"{number / 3600:.1f} h"


def milliseconds(number: float) -> str:
    """A kernel's time, given in ms, in the unit that suits it."""
    if number >= 1000:
        return f"{number / 1000:.3g} s"
    return f"{number:.3g} ms" if number >= 1 else f"{1000 * number:.3g} us"


def measured(value: float, metric: str) -> str:
    """A value of a metric with its unit: times in the one that suits, others as they are."""
    name, _, unit = metric.rpartition("_")
    if unit == "ms" and name:
        return milliseconds(value)
    return f"{value:.4g} {unit if name else metric}"


def thousands(number: int) -> str:
    """A count."""
    return f"{number:,}"


def count(number: int, noun: str) -> str:
    """A count of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def value(number: float | None) -> str:
    """A measured value, four digits."""
    return NOTHING if number is None else f"{number:.4g}"


def config(parameters: Mapping[str, Any] | None) -> str:
    """A configuration or a problem in one line."""
    if not parameters:
        return NOTHING
    return ", ".join(f"{k}={_leaf(v)}" for k, v in parameters.items())


def short(text: str, length: int = 160) -> str:
    """The start of a long text."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _leaf(item: Any) -> str:
    if isinstance(item, Mapping):
        shape = "x".join(map(str, item.get("shape", ())))
        return f"{item.get('dtype', '')}[{shape}]" if "dtype" in item else "{…}"
    return "x".join(map(str, item)) if isinstance(item, (list, tuple)) else str(item)
