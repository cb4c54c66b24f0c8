"""JSON lines: the format that keeps everything.

A line ``{"landscape": id, "task": {...}}`` opens a landscape, each line ``{"landscape": id,
"candidate": {...}, "measurement": {...}}`` adds a measurement to it. Lines of other kinds (a
store's events) are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from autotune_rlm._json import json_object, plain
from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.types import Candidate, Measurement, Observation, Task

__all__ = ["lines", "parse", "render", "to_line"]


def to_line(value: Mapping[str, Any]) -> str:
    """One line of the file; numbers that JSON has not become null."""
    return json.dumps(plain(value), separators=(",", ":"), allow_nan=False)


def lines(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of the text with their line numbers."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, json_object(line, f"{path}: line {number}")


def parse(text: str, path: Path) -> list[Landscape]:
    """Landscapes of the text, in the order in which they open."""
    tasks: dict[str, Task] = {}
    found: dict[str, list[Observation]] = {}
    for number, value in lines(text, path):
        _take(value, tasks, found, f"{path}: line {number}")
    return [Landscape.from_observations(tasks[name], found[name], id=name) for name in tasks]


def _take(
    value: dict[str, Any], tasks: dict[str, Task], found: dict[str, list[Observation]], where: str
) -> None:
    name = value.get("landscape")
    try:
        if "task" in value:
            task = Task.from_json(value["task"])
            name = name or task.key
            if tasks.setdefault(name, task) != task:
                raise ValueError(f"landscape {name!r} opens twice with different tasks")
            found.setdefault(name, [])
        elif "measurement" in value:
            if name not in found:
                raise ValueError(f"a measurement of {name!r} before the line with its task")
            candidate = Candidate.from_json(value["candidate"])
            measurement = Measurement.from_json(value["measurement"])
            found[name].append(Observation(candidate, measurement))
    except KeyError as error:
        raise ValueError(f"{where}: {error} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where}: {error}") from None


def render(landscapes: Iterable[Landscape]) -> str:
    """The text of the landscapes, which have different ids."""
    found: list[dict[str, Any]] = []
    for one in landscapes:
        found.append({"landscape": one.id, "task": one.task.to_json()})
        for seen in one.observations:
            candidate, measurement = seen.candidate.to_json(), seen.measurement.to_json()
            found.append({"landscape": one.id, "candidate": candidate, "measurement": measurement})
    return "".join(to_line(value) + "\n" for value in found)
