"""Tables of single texts with one number each, as the paper's authors publish them.

``Code-Regression`` and ``GraphArch-Regression`` ("Regression Language Models for Code", arXiv
2509.26476) hold one row per program or network: ``space`` (the collection), ``input`` (its text),
``target`` (a number), ``metric_type`` (what the number is) and ``metadata`` (JSON; may be absent). A row
becomes a landscape of one candidate without parameters: its text is the task's source, and what there is
to learn is the scale of its metric.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune_rlm.devices import lookup
from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.types import Candidate, Device, Measurement, Status, Task

__all__ = ["read_regression_table"]

_REQUIRED = ("space", "input", "target", "metric_type")
_LANGUAGES = {"KBSS": "triton", "APPS": "python"}
_MAXIMISED = ("acc", "accuracy", "val_accuracy", "score", "throughput", "top1")


def read_regression_table(path: str | Path, *, limit: int | None = None) -> list[Landscape]:
    """The rows of a table, each as a landscape of one candidate.

    Rows without a text, or whose target is no positive finite number, hold nothing to learn and are left
    out.

    Args:
        path: ``.parquet``, ``.csv``, ``.csv.gz``, ``.jsonl`` or ``.jsonl.gz``.
        limit: Rows to read at most; None for all.

    Raises:
        ValueError: A column is missing, or the file is of another kind.
        ImportError: pandas, or for Parquet files pyarrow, is not installed.
    """
    frame = _read(Path(path))
    missing = [name for name in _REQUIRED if name not in frame.columns]
    if missing:
        raise ValueError(
            f"{path}: column {missing[0]!r} is missing; a regression table has the columns "
            f"{', '.join(_REQUIRED)} and may have metadata"
        )
    rows = frame.head(limit).to_dict("records") if limit is not None else frame.to_dict("records")
    found = (_landscape(row, i) for i, row in enumerate(rows))
    return [landscape for landscape in found if landscape is not None]


def _read(path: Path) -> Any:
    import pandas

    name = path.name.lower()
    if name.endswith(".parquet"):
        return pandas.read_parquet(path)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return pandas.read_json(path, lines=True)
    if name.endswith((".csv", ".csv.gz")):
        return pandas.read_csv(path)
    raise ValueError(f"{path}: a regression table is a .parquet, .csv or .jsonl file")


def _landscape(row: Mapping[str, Any], number: int) -> Landscape | None:
    text = row["input"]
    try:
        value = float(row["target"])
    except (TypeError, ValueError):
        return None
    if not isinstance(text, str) or not text.strip() or not math.isfinite(value) or value <= 0:
        return None
    space, metric = str(row["space"]), str(row["metric_type"])
    facts = _metadata(row.get("metadata"))
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
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return dict(value) if isinstance(value, Mapping) else {}


def _device(facts: Mapping[str, Any]) -> Device:
    for name in ("device", "hardware", "gpu"):
        if isinstance(facts.get(name), str):
            return lookup(facts[name])
    return Device(name="unknown")
