"""Problems that were met where nothing could be measured, for a later benchmark."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from autotune_rlm.store import _rows, _schema
from autotune_rlm.store._database import Database
from autotune_rlm.types import Candidate, Task


@dataclass(frozen=True, kw_only=True)
class Request:
    """A problem that was met where nothing could be measured, for a later benchmark.

    Attributes:
        task: The problem.
        candidates: What there was to choose from.
        uses: How often it was noted.
        first: Seconds since the epoch when it was first noted.
        last: The same for the last time.
        workload: How to run the candidates (``measure.Workload`` as JSON); None where that
            was not noted, and nobody else can.
        obstacle: Why they cannot be run elsewhere, where that was noted.
    """

    task: Task
    candidates: tuple[Candidate, ...]
    uses: int
    first: float
    last: float
    workload: Mapping[str, Any] | None = None
    obstacle: str = ""


def note(
    database: Database,
    task: Task,
    candidates: Sequence[Candidate | Mapping[str, Any]],
    *,
    uses: int,
    workload: Mapping[str, Any] | None,
) -> None:
    """Write a request, or add to the one that is there."""
    now = time.time()
    given = [c if isinstance(c, Candidate) else Candidate.from_json(c) for c in candidates]
    listed: Any = [c.to_json() for c in given]
    if workload is not None:
        listed = {"candidates": listed, "workload": dict(workload)}
    row = {
        "task_key": task.key,
        "candidates": _rows.to_json(listed),
        "uses": uses,
        "first": now,
        "last": now,
    }
    database.write([_rows.Write("requests", row, _rows.task_row(task, now))])


def noted(database: Database) -> list[Request]:
    """The requests, most used first, then the latest."""
    r, t = _schema.requests.c, _schema.tasks.c
    columns = (r.task_key, t.task, r.candidates, r.uses, r.first, r.last)
    query = sa.select(*columns).join(_schema.tasks, t.key == r.task_key)
    rows: list[Any] = database.read(lambda c: list(c.execute(query)), [])
    by_task: dict[str, list[Any]] = {row[0]: list(row[1:]) for row in rows}
    for w in database.waiting:
        if w.table != "requests":
            continue
        known = by_task.get(w.row["task_key"])
        if known is None:
            values = [w.row[name] for name in ("candidates", "uses", "first", "last")]
            by_task[w.row["task_key"]] = [(w.task or {})["task"], *values]
        else:
            known[1:] = [w.row["candidates"], known[2] + w.row["uses"], known[3], w.row["last"]]
    requests = (_request(*values) for values in by_task.values())
    return sorted((x for x in requests if x is not None), key=lambda x: (-x.uses, -x.last))


def drop(database: Database, task: Task) -> None:
    """Delete the request of ``task``."""
    table = _schema.requests
    database.forget(lambda w: w.table == "requests" and w.row["task_key"] == task.key)
    database.execute(lambda c: c.execute(sa.delete(table).where(table.c.task_key == task.key)))


def _request(text: str, listed: str, uses: int, first: float, last: float) -> Request | None:
    task = _rows.task_from(text)
    if task is None:
        return None
    read = json.loads(listed)
    plain = read if isinstance(read, dict) else {"candidates": read}
    workload = plain.get("workload")
    workload = workload if isinstance(workload, dict) else None
    stuck = workload is not None and "obstacle" in workload
    return Request(
        task=task,
        candidates=tuple(map(Candidate.from_json, plain["candidates"])),
        uses=uses,
        first=first,
        last=last,
        workload=None if stuck else workload,
        obstacle=str(workload["obstacle"]) if workload and stuck else "",
    )
