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
_MEASURED = ("time_ms", "value", "compile_s", "cost_s", "low", "high", "samples", "reason", "state")
_KNOWN = {*_COLUMNS, *_TASK_COLUMNS, *_ONCE, *_MEASURED, "text", "ir"}
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
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    groups: dict[str, _Group] = {}
    try:
        header = next(reader, None)
        if header is None:
            raise ValueError("empty file; a landscape CSV starts with a header")
        rows = _Rows(header)
        for row in reader:
            if row:
                rows.add(row, groups, reader.line_num)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: line {max(reader.line_num, 1)}: {error}") from None
    landscapes = []
    for name, group in groups.items():
        try:
            task = _task(group)
        except ValueError as error:
            raise ValueError(f"{path}: line {group.line}: {error}") from None
        landscapes.append(Landscape.from_observations(task, group.observations, id=name))
    return landscapes


class _Rows:
    """Turns rows into candidates and measurements; knows where each column stands."""

    def __init__(self, header: list[str]) -> None:
        names = [name.strip() for name in header]
        missing = [name for name in _REQUIRED if name not in names]
        if missing or ("time_ms" not in names and not {"value", "metric"} <= set(names)):
            wanted = ", ".join(missing) or "time_ms (or value and metric)"
            raise ValueError(f"missing column {wanted}; the header is {shown(','.join(names))}")
        if len(set(names)) != len(names):
            raise ValueError(f"a column name appears twice: {shown(','.join(names))}")
        self.width = len(names)
        self.at = {name: i for i, name in enumerate(names)}
        self.facts = [(i, name) for i, name in enumerate(names) if name not in _KNOWN]
        self.has_once = [name for name in _ONCE if name in self.at]
        self.candidates: dict[tuple[str, str, str], Candidate] = {}
        self._rare = [
            name for name in _MEASURED if name in self.at and name not in ("time_ms", "value")
        ]

    def get(self, row: list[str], name: str) -> str:
        index = self.at.get(name)
        return "" if index is None else row[index]

    def add(self, row: list[str], groups: dict[str, _Group], line: int) -> None:
        if len(row) != self.width:
            raise ValueError(f"{len(row)} fields where the header has {self.width}")
        get = self.get
        identity = tuple(get(row, name) for name in _TASK_COLUMNS)
        if not identity[0] or not identity[2]:
            raise ValueError("kernel and device must not be empty")
        name = get(row, "landscape") or "/".join(
            filter(None, (identity[0], identity[2], identity[3]))
        )
        group = groups.get(name)
        if group is None:
            group = groups[name] = _Group(identity, line)
        elif group.identity != identity:
            raise ValueError(
                f"landscape {name!r} has another kernel, language, device, problem or metric here "
                f"than at line {group.line}"
            )
        for column in self.has_once:
            group.once[column] = group.once[column] or get(row, column)
        measurement = self.measurement(row)
        group.observations.append(Observation(self.candidate(row), measurement))

    def candidate(self, row: list[str]) -> Candidate:
        key = (self.get(row, "config"), self.get(row, "text"), self.get(row, "ir"))
        found = self.candidates.get(key)
        if found is None:
            config = json_object(key[0], "config")
            facts = json_object(key[2], "ir") if key[2] else {}
            found = self.candidates[key] = Candidate(config=config, text=key[1], facts=facts)
        return found

    def measurement(self, row: list[str]) -> Measurement:
        column = "time_ms" if "time_ms" in self.at and not self.get(row, "value") else "value"
        written = self.get(row, column)
        status_name = self.get(row, "status").strip() or ("ok" if written else _FAILED)
        status = Status.OK if status_name == "ok" else _failure(status_name)
        fields: dict[str, Any] = {}
        for name in self._rare:
            cell = self.get(row, name)
            if cell:
                fields[name] = _PARSE[name](cell, name)
        facts = {name: _fact(row[i]) for i, name in self.facts if row[i] != ""}
        if facts:
            fields["facts"] = facts
        if status is not Status.OK:
            fields.setdefault(
                "reason", "failed, not recorded why" if status_name == _FAILED else ""
            )
            return Measurement(status=status, **fields)
        if not written:
            raise ValueError(f"{column} must be a number where status is 'ok', got an empty field")
        return Measurement(status=status, value=_number(written, column), **fields)


def _failure(name: str) -> Status:
    if name == _FAILED:
        return Status.RUNTIME_ERROR
    try:
        return Status(name)
    except ValueError:
        known = ", ".join([_FAILED, *(s.value for s in Status)])
        raise ValueError(f"status must be one of {known}, got {name!r}") from None


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


__all__ = ["parse", "render"]
