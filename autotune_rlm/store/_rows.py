"""Between the nouns and the rows of the tables: JSON out, JSON in."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autotune_rlm._json import plain
from autotune_rlm.types import Candidate, Measurement, Observation, Task

if TYPE_CHECKING:
    from autotune_rlm.store.accuracy import TuningEvent

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


def parsed(pairs: Iterable[tuple[str, str]]) -> list[Observation]:
    """The observations of rows; those that cannot be read are left out."""
    observations = (observation_from(*pair) for pair in pairs)
    return [observation for observation in observations if observation is not None]


def event_from(text: str) -> TuningEvent | None:
    """The event of a row; None, with a warning, where it cannot be read."""
    from autotune_rlm.store.accuracy import TuningEvent  # above this part; needed only here

    try:
        return TuningEvent.from_json(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        _log.warning("passed over an event in the store that cannot be read: %s", error)
        return None


def newest(observations: Iterable[Observation]) -> list[Observation]:
    """Per candidate the last that is ok, else the last; in the order of first appearance."""
    best: dict[str, Observation] = {}
    for observation in observations:
        key = observation.candidate.key
        known = best.get(key)
        if known is None or observation.measurement.ok or not known.measurement.ok:
            best[key] = observation
    return list(best.values())
