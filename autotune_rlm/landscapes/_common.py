"""What the file formats share: numbers, units, statuses, and what foreign formats cannot keep."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune_rlm._json import json_object, plain
from autotune_rlm.types import Candidate, Measurement, Status, Task

EXTRA_KEY = "autotune_rlm"
"""Key under which our writers keep what a foreign format has no place for."""


def finite(value: Any) -> float | None:
    """``value`` as a finite float, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


TO_MS = {
    **{"nanoseconds": 1e-6, "microseconds": 1e-3, "milliseconds": 1.0, "seconds": 1e3},
    **{"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3},
    "miliseconds": 1.0,  # as T4 files of the benchmark hub spell it
}
"""Milliseconds of a unit, by its name in lower case."""


def seconds(milliseconds: Any) -> float | None:
    """Milliseconds to seconds; None for anything but a finite number."""
    number = finite(milliseconds)
    return None if number is None else number / 1000.0


def results_of(
    text: str, path: Path, metadata: str, results: str
) -> tuple[dict[str, Any], list[Any]]:
    """What a JSON file says of itself, and its list of results, by the names that they have there."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno}: not JSON: {error.msg}") from None
    found = data.get(results) if isinstance(data, dict) else None
    if not isinstance(found, list):
        raise ValueError(f"{path}: line 1: must be an object with a list {results!r}")
    said = data.get(metadata)
    return said if isinstance(said, dict) else {}, found


_FAILURE_WORDS = (
    ("compil", Status.COMPILE_ERROR),
    ("timeout", Status.TIMEOUT),
    ("timed out", Status.TIMEOUT),
    ("correct", Status.WRONG_RESULT),
    ("verif", Status.WRONG_RESULT),
    ("invalid", Status.OUT_OF_RESOURCES),
    ("constraint", Status.OUT_OF_RESOURCES),
    ("resource", Status.OUT_OF_RESOURCES),
    ("skip", Status.SKIPPED),
)


def failure_status(name: str) -> Status:
    """The status for another tuner's name of a failure, such as ``CompilationFailedConfig``."""
    lowered = name.lower()
    try:
        return Status(lowered)
    except ValueError:
        pass
    return next((s for word, s in _FAILURE_WORDS if word in lowered), Status.RUNTIME_ERROR)


def allowed_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that foreign schemas allow among their measurements: numbers, texts and lists."""
    return {
        name: value
        for name, value in plain(facts).items()
        if isinstance(value, (int, float, str, list)) and not isinstance(value, bool)
    }


def leftovers(candidate: Candidate, measurement: Measurement, *, status: Status) -> dict[str, Any]:
    """What a foreign format that reads back as ``status`` could not keep of a measurement."""
    m = measurement
    left = {k: v for k, v in plain(m.facts).items() if k not in allowed_facts(m.facts)}
    state = plain(m.state)
    if set(state) == {"timestamp"}:  # the formats have a place for it
        state = {}
    kept = {
        "facts": left,
        "text": candidate.text,
        "status": m.status.value if m.status is not status else "",
        "reason": m.reason,
        "low": m.low,
        "high": m.high,
        "cost_s": m.cost_s if m.cost_s < (m.compile_s or 0.0) else None,
        "state": state,
    }
    return {k: v for k, v in kept.items() if v not in (None, "", {})}


def extra_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """What our writers kept beside the fields of a foreign format; empty where nothing was.

    Kept as a JSON text, which foreign schemas take for a value like any other.
    """
    kept = data.get(EXTRA_KEY) or {}
    return json_object(kept, EXTRA_KEY) if isinstance(kept, str) else dict(kept)


def task_from_extra(extra: Any) -> Task | None:
    """The task that one of our writers kept in a foreign file, if it did."""
    if isinstance(extra, dict) and isinstance(extra.get("task"), dict):
        return Task.from_json(extra["task"])
    return None
