"""What a store holds, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from autotune_rlm.store import _schema
from autotune_rlm.store._database import Database


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """What a store holds.

    Attributes:
        name: Path, or URL without its password.
        schema_version: Version of its tables.
        persistent: Whether it outlives this process.
        n_tasks: Tasks.
        n_measurements: Measurements, by status.
        n_events: Tuning events.
        n_requests: Noted requests.
        n_waiting: Rows in this process's memory that the database does not have.
        kernels: Measurements by kernel.
        devices: Measurements by device.
        first: Seconds since the epoch of the oldest measurement; None without any.
        last: The same of the newest.
        size_bytes: Size of the file; None for a server.
    """

    name: str
    schema_version: int
    persistent: bool
    n_tasks: int
    n_measurements: Mapping[str, int]
    n_events: int
    n_requests: int
    n_waiting: int
    kernels: Mapping[str, int]
    devices: Mapping[str, int]
    first: float | None
    last: float | None
    size_bytes: int | None


def describe(database: Database) -> StoreInfo:
    """Count what is in the database now."""
    nothing: dict[str, Any] = {}
    counted = database.read(_count, nothing)
    return StoreInfo(
        name=database.name,
        schema_version=_schema.VERSION,
        persistent=not database.in_memory,
        n_tasks=counted.get("n_tasks", 0),
        n_measurements=dict(counted.get("statuses", Counter()).most_common()),
        n_events=counted.get("n_events", 0),
        n_requests=counted.get("n_requests", 0),
        n_waiting=len(database.waiting),
        kernels=dict(counted.get("kernels", Counter()).most_common()),
        devices=dict(counted.get("devices", Counter()).most_common()),
        first=counted.get("first"),
        last=counted.get("last"),
        size_bytes=_size(Path(database.name)),
    )


def _count(connection: sa.Connection) -> dict[str, Any]:
    t, m = _schema.tasks.c, _schema.measurements.c
    named = {r[0]: (r[1], r[2]) for r in connection.execute(sa.select(t.key, t.kernel, t.device))}
    per_task = sa.select(m.task_key, m.status, sa.func.count()).group_by(m.task_key, m.status)
    statuses: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    devices: Counter[str] = Counter()
    for key, status, n in connection.execute(per_task):
        kernel, device = named.get(key, ("?", "?"))
        statuses[status] += n
        kernels[kernel] += n
        devices[device] += n
    first, last = connection.execute(
        sa.select(sa.func.min(m.created), sa.func.max(m.created))
    ).one()
    return {
        "n_tasks": len(named),
        "statuses": statuses,
        "kernels": kernels,
        "devices": devices,
        "first": first,
        "last": last,
        "n_events": _number(connection, _schema.events),
        "n_requests": _number(connection, _schema.requests),
    }


def _number(connection: sa.Connection, table: sa.Table) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def _size(path: Path) -> int | None:
    files = [f for f in (path, path.with_name(path.name + "-wal")) if f.is_file()]
    return sum(f.stat().st_size for f in files) if files else None
