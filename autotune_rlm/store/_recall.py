"""What a store knows of other tasks that bears on a new one: near problems and shared failures.

Each function asks a few indexed queries, whose cost does not grow with the number of stored problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from autotune_rlm.store import _rows, _schema
from autotune_rlm.store._database import Database
from autotune_rlm.store._places import Near, near_to
from autotune_rlm.types import Observation, Task

_m = _schema.measurements.c


@dataclass(frozen=True, kw_only=True)
class Recall:
    """What a store knows that bears on a task.

    Attributes:
        own: Observations of the task itself, one per candidate.
        failed: Candidates whose very binaries are known not to compile or to fit, from other tasks.
        alike: Tasks whose choice may be taken over, nearest first, with their observations: all is
            equal but sizes, and those differ by a factor of two at most.
        has_near: Whether another problem of the kernel was measured on this device.
    """

    own: tuple[Observation, ...] = ()
    failed: tuple[Observation, ...] = ()
    alike: tuple[tuple[Task, tuple[Observation, ...]], ...] = ()
    has_near: bool = False


def near(database: Database, task: Task, k: int, *, same_device: bool) -> list[Near]:
    """The nearest measured tasks of the kernel, nearest first: ``k`` or more where there are so many."""
    found: list[Near] = database.read(lambda c: near_to(c, task, k, same_device=same_device), [])
    seen = {one.key for one in found} | {task.key}
    for write in database.waiting:
        if write.table != "measurements" or write.row["value"] is None:
            continue
        key: str = write.row["task_key"]
        if key in seen:
            continue
        seen.add(key)
        other = _rows.task_from((write.task or {})["task"])
        if other is not None and _same_kernel(task, other, same_device):
            found.append(Near.of(task, other))
    return sorted(found, key=lambda one: (one.distance, one.key))


def best_of(
    database: Database, keys: Sequence[str], *, minimize: bool
) -> list[tuple[Task, Observation]]:
    """The tasks of ``keys`` that have one, in this order, each with its best observation.

    Of a candidate's measurements the newest that is ok counts.
    """
    rows: list[Any] = database.read(lambda c: list(c.execute(_best(keys, minimize))), [])
    best = {row.key: (row.value, row.task, row.candidate, row.measurement) for row in rows}
    sign = 1.0 if minimize else -1.0
    for write in database.waiting:
        row, key = write.row, write.row.get("task_key")
        if write.table != "measurements" or key not in keys or row["value"] is None:
            continue
        if key not in best or sign * row["value"] < sign * best[key][0]:
            text = (write.task or {})["task"]
            best[key] = (row["value"], text, row["candidate"], row["measurement"])
    pairs = (
        (_rows.task_from(task), _rows.observation_from(candidate, measurement))
        for _, task, candidate, measurement in (best[key] for key in keys if key in best)
    )
    return [(task, found) for task, found in pairs if task is not None and found is not None]


def _best(keys: Sequence[str], minimize: bool) -> sa.Select[Any]:
    """Of each task the row with its best value, among the newest of each candidate."""
    newest = sa.func.row_number().over(
        partition_by=(_m.task_key, _m.candidate_key), order_by=(_m.created.desc(), _m.id.desc())
    )
    worked = (
        sa.select(_m.id, _m.task_key, _m.value, newest.label("age"))
        .where(_m.task_key.in_(list(keys)), _m.value.is_not(None))
        .subquery()
    )
    value = worked.c.value if minimize else worked.c.value.desc()
    rank = sa.func.row_number().over(partition_by=worked.c.task_key, order_by=(value, worked.c.id))
    ranked = sa.select(worked.c.id, rank.label("rank")).where(worked.c.age == 1).subquery()
    t = _schema.tasks.c
    return (
        sa.select(t.key, t.task, _m.value, _m.candidate, _m.measurement)
        .join(ranked, _m.id == ranked.c.id)
        .join(_schema.tasks, t.key == _m.task_key)
        .where(ranked.c.rank == 1)
    )


def failed(database: Database, task: Task) -> list[Observation]:
    """Failures that other tasks met with binaries that this task shares."""
    if not task.binary:
        return []
    query = sa.select(_m.candidate, _m.measurement).where(
        _m.binary_key == task.binary, _m.task_key != task.key
    )
    rows: list[Any] = database.read(lambda c: list(c.execute(query)), [])
    rows += [
        (w.row["candidate"], w.row["measurement"])
        for w in database.waiting
        if w.table == "measurements"
        and w.row["binary_key"] == task.binary
        and w.row["task_key"] != task.key
    ]
    return _rows.newest(_rows.parsed((row[0], row[1]) for row in rows))


def tasks_by_key(database: Database, keys: Sequence[str]) -> list[Task]:
    """Tasks in the order of their keys; those that cannot be read are left out."""
    if not keys:
        return []
    t = _schema.tasks.c
    query = sa.select(t.key, t.task).where(t.key.in_(list(keys)))
    rows: list[Any] = database.read(lambda c: list(c.execute(query)), [])
    texts = {row[0]: row[1] for row in rows}
    for write in database.waiting:
        if write.task and write.task["key"] in keys:
            texts.setdefault(write.task["key"], write.task["task"])
    tasks = (_rows.task_from(texts[key]) for key in keys if key in texts)
    return [task for task in tasks if task is not None]


def _same_kernel(task: Task, other: Task, same_device: bool) -> bool:
    same = task.kernel == other.kernel or (task.source and task.source == other.source)
    here = not same_device or task.device.name == other.device.name
    kinds = ((t.language, t.metric, t.minimize) for t in (task, other))
    return bool(same) and here and len(set(kinds)) == 1
