"""Tables of single texts with one or more numbers each, as the paper's authors publish them.

``Code-Regression`` ("Regression Language Models for Code", arXiv 2509.26476) holds one row per program:
``space`` (the collection), ``input`` (its text), ``target`` (a number), ``metric_type`` (what the number
is) and ``metadata`` (JSON, or a Python dictionary as text; may be absent). ``GraphArch-Regression`` holds
one row per network with a column per number: ``val_accuracy``, ``flops`` and ``params``. A row becomes a
landscape of one candidate without parameters for each of its numbers: its text is the task's source, and
what there is to learn is the scale of its metric.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune_rlm.devices import lookup
from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.landscapes.tables import read_table
from autotune_rlm.types import Candidate, Device, Measurement, Status, Task

__all__ = ["read_regression_table"]

_LONG = ("space", "input", "target", "metric_type")
_WIDE = ("val_accuracy", "flops", "params")
_LANGUAGES = {"KBSS": "triton", "APPS": "python"}
_MAXIMISED = ("acc", "accuracy", "val_accuracy", "score", "throughput", "top1")


def read_regression_table(path: str | Path, *, limit: int | None = None) -> list[Landscape]:
    """The rows of a table, each number as a landscape of one candidate.

    Rows without a text, and numbers that are not finite, hold nothing to learn and are left out.

    Args:
        path: A file that ends in one of ``tables.TABLE_FORMATS``.
        limit: Rows to read at most; None for all.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A column is missing, or the file is of another kind.
        ImportError: pandas, or for Parquet files pyarrow, is not installed.
    """
    frame = read_table(path)
    wide = [name for name in _WIDE if name in frame.columns]
    missing = [name for name in ("input",) if wide and name not in frame.columns]
    missing += [name for name in _LONG if not wide and name not in frame.columns]
    if missing:
        raise ValueError(
            f"{path}: column {missing[0]!r} is missing; a regression table has the columns "
            f"{', '.join(_LONG)}, or input and some of {', '.join(_WIDE)}; both may have metadata. "
            "For columns of other names there is 'autotune-rlm fit'"
        )
    rows = frame.head(limit).to_dict("records") if limit is not None else frame.to_dict("records")
    found = []
    for i, row in enumerate(rows):
        pairs = [(name, row[name]) for name in wide] or [(str(row["metric_type"]), row["target"])]
        found += [_landscape(row, metric, value, i) for metric, value in pairs]
    return [landscape for landscape in found if landscape is not None]


def _landscape(row: Mapping[str, Any], metric: str, target: Any, number: int) -> Landscape | None:
    text = row["input"]
    try:
        value = float(target)
    except (TypeError, ValueError):
        return None
    if not isinstance(text, str) or not text.strip() or not math.isfinite(value):
        return None
    space, facts = str(row.get("space", "")), _metadata(row.get("metadata"))
    task = Task(
        kernel=space,
        device=_device(facts),
        language=str(facts.get("language") or _LANGUAGES.get(space, "text")).lower(),
        problem={k: v for k, v in facts.items() if isinstance(v, (int, float, bool))},
        source=text,
        metric=metric,
        minimize=metric.lower() not in _MAXIMISED,
    )
    measured = Measurement(status=Status.OK, value=value)
    return Landscape(task, (Candidate({}),), (measured,), f"{space}/{metric}/{number}")


def _metadata(value: Any) -> dict[str, Any]:
    """A mapping, or one as JSON or as Python writes it; nothing is executed."""
    for read in (json.loads, ast.literal_eval):
        if not isinstance(value, str):
            break
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = read(value)
    return dict(value) if isinstance(value, Mapping) else {}


def _device(facts: Mapping[str, Any]) -> Device:
    for name in ("device", "hardware", "gpu"):
        if isinstance(facts.get(name), str):
            return lookup(facts[name])
    return Device(name="unknown")
