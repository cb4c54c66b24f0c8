"""The landscape CSV: one row per configuration, all rows of one ``landscape`` a search space.

Columns ``landscape, kernel, language, device, problem, config, status, time_ms, compile_s``;
``problem`` and ``config`` are JSON. ``status`` is ``ok``, ``failed`` or any ``Status``. Another
metric than ``time_ms`` is a column ``value`` with its name in ``metric``. Columns with other names
become facts of the measurement. What belongs to the whole landscape (source, versions, ...) may
stand in any one of its rows.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from autotune_rlm._json import json_object, plain, shown, strict_json
from autotune_rlm.devices import lookup
from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.types import (
    Candidate,
    Device,
    Measurement,
    Observation,
    Status,
    Task,
    canonical_json,
)

_COLUMNS = ("landscape", "kernel", "language", "device", "problem", "config", "status")
_REQUIRED = ("kernel", "device", "config")
_TASK_COLUMNS = ("kernel", "language", "device", "problem", "metric", "minimize")
_ONCE = ("source", "versions", "device_spec")
_FAILED = "failed"


class _Group:
    """The rows of one landscape as they are collected."""

    def __init__(self, identity: tuple[str, ...], line: int) -> None:
        self.identity = identity
        self.line = line
        self.once = dict.fromkeys(_ONCE, "")
        self.observations: list[Observation] = []


def parse(text: str, path: Path) -> list[Landscape]:
    """Landscapes of a CSV text, in the order of their first rows."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = _Rows([name.strip() for name in reader.fieldnames or ()])
        reader.fieldnames = rows.names
        for row in reader:
            rows.add(row, reader.line_num)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: line {max(reader.line_num, 1)}: {error}") from None
    landscapes = []
    for name, group in rows.groups.items():
        try:
            task = _task(group)
        except ValueError as error:
            raise ValueError(f"{path}: line {group.line}: {error}") from None
        landscapes.append(Landscape.from_observations(task, group.observations, id=name))
    return landscapes


class _Rows:
    """Turns rows into candidates and measurements, and sorts them into landscapes."""

    def __init__(self, names: list[str]) -> None:
        if not names:
            raise ValueError("empty file; a landscape CSV starts with a header")
        missing = [name for name in _REQUIRED if name not in names]
        if missing or ("time_ms" not in names and not {"value", "metric"} <= set(names)):
            wanted = ", ".join(missing) or "time_ms (or value and metric)"
            raise ValueError(f"missing column {wanted}; the header is {shown(','.join(names))}")
        if len(set(names)) != len(names):
            raise ValueError(f"a column name appears twice: {shown(','.join(names))}")
        self.names = names
        self.groups: dict[str, _Group] = {}
        self._once = [name for name in _ONCE if name in names]
        self._fields = [name for name in _PARSE if name in names]
        self._facts = [name for name in names if name not in _KNOWN]
        self._candidates: dict[tuple[str, str, str], Candidate] = {}

    def add(self, row: dict[Any, Any], line: int) -> None:
        """Take a row of the file."""
        if None in row or row[self.names[-1]] is None:
            cells = [cell for cell in row.values() if isinstance(cell, str)]
            found = len(cells) + len(row.get(None, ()))
            raise ValueError(f"{found} fields where the header has {len(self.names)}")
        identity = tuple(row.get(name, "") for name in _TASK_COLUMNS)
        kernel, _, device, problem, _, _ = identity
        if not kernel or not device:
            raise ValueError("kernel and device must not be empty")
        name = row.get("landscape") or "/".join(filter(None, (kernel, device, problem)))
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = _Group(identity, line)
        elif group.identity != identity:
            raise ValueError(
                f"landscape {name!r} has another kernel, language, device, problem or metric here "
                f"than at line {group.line}"
            )
        for column in self._once:
            group.once[column] = group.once[column] or row[column]
        measurement = self._measurement(row)
        group.observations.append(Observation(self._candidate(row), measurement))

    def _candidate(self, row: dict[str, str]) -> Candidate:
        key = config, text, ir = (row["config"], row.get("text", ""), row.get("ir", ""))
        if key not in self._candidates:
            facts = json_object(ir, "ir") if ir else {}
            self._candidates[key] = Candidate(json_object(config, "config"), text, facts=facts)
        return self._candidates[key]

    def _measurement(self, row: dict[str, str]) -> Measurement:
        column = "time_ms" if "time_ms" in row and not row.get("value") else "value"
        written = row[column]
        status_name = row.get("status", "").strip() or ("ok" if written else _FAILED)
        status = Status.RUNTIME_ERROR if status_name == _FAILED else Status(status_name)
        fields = {name: _PARSE[name](row[name], name) for name in self._fields if row[name]}
        if facts := {name: _fact(row[name]) for name in self._facts if row[name]}:
            fields["facts"] = facts
        if status is not Status.OK:
            fields.setdefault(
                "reason", "failed, not recorded why" if status_name == _FAILED else ""
            )
            return Measurement(status=status, **fields)
        if not written:
            raise ValueError(f"{column} must be a number where status is 'ok', got an empty field")
        return Measurement(status=status, value=_number(written, column), **fields)


def _number(text: str, column: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{column} must be a number, got {text!r}") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"{column} must be finite, got {text!r}")
    return number


def _fact(text: str) -> Any:
    try:
        return strict_json(text)
    except ValueError:
        return text


def _samples(text: str, column: str) -> tuple[float, ...]:
    value = strict_json(text)
    if not isinstance(value, list) or not all(isinstance(x, (int, float)) for x in value):
        raise ValueError(f"{column} must be a JSON list of numbers, got {shown(text)}")
    return tuple(value)


_PARSE: dict[str, Callable[[str, str], Any]] = {
    **dict.fromkeys(("compile_s", "cost_s", "low", "high"), _number),
    "samples": _samples,
    "state": json_object,
    "reason": lambda text, column: text,
}
_KNOWN = {*_COLUMNS, *_TASK_COLUMNS, *_ONCE, *_PARSE, "time_ms", "value", "text", "ir"}


def _task(group: _Group) -> Task:
    kernel, language, device, problem, metric, minimize = group.identity
    spec = group.once["device_spec"]
    return Task(
        kernel=kernel,
        device=Device.from_json(json_object(spec, "device_spec")) if spec else lookup(device),
        problem=json_object(problem, "problem") if problem else {},
        source=group.once["source"],
        language=language or "triton",
        metric=metric or "time_ms",
        minimize=_truth(minimize),
        versions=json_object(group.once["versions"] or "{}", "versions"),
    )


def _truth(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("", "true", "1"):
        return True
    if lowered in ("false", "0"):
        return False
    raise ValueError(f"minimize must be true or false, got {text!r}")


def render(landscapes: Iterable[Landscape]) -> str:
    """The CSV text of the landscapes; optional columns only where something stands in them."""
    found = list(landscapes)
    timed = all(item.task.metric == "time_ms" and item.task.minimize for item in found)
    rows = [row for landscape in found for row in _rows(landscape, timed=timed)]
    base = [*_COLUMNS, *(["time_ms"] if timed else ["value", "metric", "minimize"]), "compile_s"]
    extra = sorted({name for row in rows for name in row} - set(base))
    lines = _Lines()
    writer = csv.DictWriter(lines, [*base, *extra], restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return "".join(lines.written)


class _Lines:
    r"""Ends rows with a line feed; told ``\r\n``, the csv module quotes a lone ``\r`` in a field."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, row: str) -> None:
        self.written.append(row.removesuffix("\r\n") + "\n")


def _rows(landscape: Landscape, *, timed: bool) -> Iterable[dict[str, Any]]:
    task = landscape.task
    shared: dict[str, Any] = {
        "landscape": landscape.id,
        "kernel": task.kernel,
        "language": task.language,
        "device": task.device.name,
        "problem": canonical_json(dict(task.problem)),
    }
    if not timed:
        shared |= {"metric": task.metric, "minimize": "true" if task.minimize else "false"}
    once: dict[str, Any] = {}
    if task.source:
        once["source"] = task.source
    if task.versions:
        once["versions"] = canonical_json(dict(task.versions))
    if task.device != lookup(task.device.name):
        once["device_spec"] = canonical_json(task.device.to_json())
    for candidate, m in zip(landscape.candidates, landscape.measurements, strict=True):
        row = {**shared, **once, "config": canonical_json(dict(candidate.config))}
        once = {}
        row["status"] = m.status.value
        row["value" if not timed else "time_ms"] = "" if m.value is None else repr(float(m.value))
        row["compile_s"] = "" if m.compile_s is None else repr(float(m.compile_s))
        optional = {
            "text": candidate.text,
            "ir": canonical_json(candidate.to_json()["facts"]) if candidate.facts else None,
            "reason": m.reason,
            "low": None if m.low is None else repr(float(m.low)),
            "high": None if m.high is None else repr(float(m.high)),
            "cost_s": repr(float(m.cost_s)) if m.cost_s else None,
            "samples": canonical_json(list(m.samples)) if m.samples else None,
            "state": canonical_json(plain(m.state)) if m.state else None,
        }
        row |= {name: cell for name, cell in optional.items() if cell not in (None, "")}
        for name, value in m.facts.items():
            if name in _KNOWN:
                raise ValueError(f"fact {name!r} of {landscape.id!r} has the name of a CSV column")
            if value is not None:
                row[name] = _cell(plain(value))
        yield row


def _cell(value: Any) -> str:
    if isinstance(value, str) and _fact(value) == value and value.strip() == value != "":
        return value
    return canonical_json(value)
