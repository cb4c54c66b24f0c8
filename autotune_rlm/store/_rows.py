"""Between the nouns and the rows of the tables: JSON out, JSON in."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autotune_rlm._json import plain
from autotune_rlm.types import Candidate, Measurement, Observation, Task

if TYPE_CHECKING:
    from autotune_rlm.store.accuracy import TuningEvent

__all__ = [
    "Write",
    "candidates_from",
    "event_from",
    "event_row",
    "measurement_row",
    "newest",
    "observation_from",
    "request_row",
    "task_from",
    "task_row",
    "to_json",
    "workload_from",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Write:
    """One row to be written, and the row of its task, which must be there too."""

    table: str
    row: dict[str, Any]
    task: dict[str, Any] | None = None


def to_json(value: Any) -> str:
    """JSON text; NaN and infinity become null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(plain(value), separators=(",", ":"), allow_nan=False)


def task_row(task: Task, created: float) -> dict[str, Any]:
    """The row of ``tasks``."""
    return {
        "key": task.key,
        "kernel": task.kernel,
        "source_hash": task.source_hash,
        "device": task.device.name,
        "language": task.language,
        "metric": task.metric,
        "created": created,
        "task": to_json(task.to_json()),
    }


def measurement_row(
    task: Task, candidate: Candidate, measurement: Measurement, created: float
) -> dict[str, Any]:
    """The row of ``measurements``."""
    return {
        "task_key": task.key,
        "candidate_key": candidate.key,
        "status": measurement.status.value,
        "value": measurement.value,
        "created": created,
        "candidate": to_json(candidate.to_json()),
        "measurement": to_json(measurement.to_json()),
        "binary_key": task.binary or None if measurement.status.is_of_the_binary else None,
    }


def event_row(event: Mapping[str, Any], created: float) -> dict[str, Any]:
    """The row of ``events``."""
    return {
        "task_key": str(event.get("task_key", "")),
        "kernel": str(event.get("kernel", "")),
        "device": str(event.get("device", "")),
        "created": created,
        "event": to_json(event),
    }


def request_row(
    task: Task,
    candidates: Sequence[Candidate | Mapping[str, Any]],
    uses: int,
    created: float,
    workload: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The row of ``requests``."""
    given = [c if isinstance(c, Candidate) else Candidate.from_json(c) for c in candidates]
    listed: Any = [c.to_json() for c in given]
    if workload is not None:
        listed = {"candidates": listed, "workload": dict(workload)}
    return {
        "task_key": task.key,
        "candidates": to_json(listed),
        "uses": uses,
        "first": created,
        "last": created,
    }


def task_from(text: str) -> Task | None:
    """The task of a row; None, with a warning, where it cannot be read."""
    try:
        return Task.from_json(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        _log.warning("passed over a task in the store that cannot be read: %s", error)
        return None


def observation_from(candidate: str, measurement: str) -> Observation | None:
    """The observation of a row; None, with a warning, where it cannot be read."""
    try:
        return Observation(
            Candidate.from_json(json.loads(candidate)),
            Measurement.from_json(json.loads(measurement)),
        )
    except (ValueError, TypeError, KeyError) as error:
        _log.warning("passed over a measurement in the store that cannot be read: %s", error)
        return None


def event_from(text: str) -> TuningEvent | None:
    """The event of a row; None, with a warning, where it cannot be read."""
    from autotune_rlm.store.accuracy import TuningEvent  # above this part; needed only here

    try:
        return TuningEvent.from_json(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        _log.warning("passed over an event in the store that cannot be read: %s", error)
        return None


def candidates_from(text: str) -> tuple[Candidate, ...]:
    """The candidates of a request."""
    listed = json.loads(text)
    listed = listed["candidates"] if isinstance(listed, dict) else listed
    return tuple(Candidate.from_json(item) for item in listed)


def workload_from(text: str) -> tuple[dict[str, Any] | None, str]:
    """The workload of a request and why there is none: (None, "") where neither was noted."""
    listed = json.loads(text)
    workload = listed.get("workload") if isinstance(listed, dict) else None
    if isinstance(workload, dict) and "obstacle" in workload:
        return None, str(workload["obstacle"])
    return (workload if isinstance(workload, dict) else None), ""


def newest(observations: Iterable[Observation]) -> list[Observation]:
    """Per candidate the last that is ok, else the last; in the order of first appearance."""
    best: dict[str, Observation] = {}
    for observation in observations:
        key = observation.candidate.key
        known = best.get(key)
        if known is None or observation.measurement.ok or not known.measurement.ok:
            best[key] = observation
    return list(best.values())
