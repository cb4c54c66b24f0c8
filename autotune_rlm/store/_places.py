"""An index of measured problems: the near ones of any number are found by one bounded query.

Each measured task stands in a few *places* (its kernel, its kernel on its device, sizes of about the
same magnitude, ...), in each ordered by one number, its *volume*: the sum of the logarithms of all
sizes. Near problems have near volumes, so those just above and below in each place are the ones to
compare by their exact distance. That is exact where few problems are known or one size changes, and
an approximation else, by neighbours that share the magnitude of every size first.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from autotune_rlm.store import _schema
from autotune_rlm.store._distance import (
    euclidean,
    gaps,
    leaves,
    task_distance,
    task_penalty,
)
from autotune_rlm.store._rows import task_from, to_json
from autotune_rlm.types import Device, Task, digest

_log = logging.getLogger(__name__)
_MIN_COUNT = 8  # neighbours looked at on each side of a volume, per place
_OCTAVES = 2.0  # sizes within a factor of four have one magnitude
ALIKE = 1.0
"""Problems are alike where no size differs by more than a factor of two (in ``log2(1 + size)``)."""


def place(connection: sa.Connection, tasks: Mapping[str, Task | None]) -> None:
    """Index tasks that something was measured of; those that are already there stay.

    Args:
        connection: Within a transaction that writes.
        tasks: By key; None for what cannot be read.
    """
    if not tasks:
        return
    problems = _schema.problems
    known = sa.select(problems.c.task_key).where(problems.c.task_key.in_(list(tasks)))
    there = set(connection.scalars(known))
    new = [(key, task) for key, task in tasks.items() if key not in there and task is not None]
    try:
        _insert(connection, new)
    except sa.exc.IntegrityError:  # another writer was first with one of them
        for one in new:
            with contextlib.suppress(sa.exc.IntegrityError):
                _insert(connection, [one])


def _insert(connection: sa.Connection, tasks: Sequence[tuple[str, Task]]) -> None:
    problems, places = [], []
    for key, task in tasks:
        volume = _volume(task.problem)
        problems.append(
            {
                "task_key": key,
                "source_hash": task.source_hash,
                "device": task.device.name,
                "versions": digest(dict(task.versions)),
                "problem": to_json(dict(task.problem)),
            }
        )
        names = {*_places(task, same_device=True), *_places(task, same_device=False)}
        places += [{"place": name, "volume": volume, "task_key": key} for name in sorted(names)]
    if problems:
        with connection.begin_nested():
            connection.execute(sa.insert(_schema.problems), problems)
            connection.execute(sa.insert(_schema.places), places)


def fill(connection: sa.Connection) -> None:
    """Index everything that is measured already."""
    m, t = _schema.measurements.c, _schema.tasks.c
    measured = sa.select(m.task_key).where(m.value.is_not(None)).distinct()
    rows = connection.execute(sa.select(t.key, t.task).where(t.key.in_(measured))).all()
    _log.info("indexing %d measured problems", len(rows))
    for start in range(0, len(rows), 500):
        place(connection, {key: task_from(text) for key, text in rows[start : start + 500]})


@dataclass(frozen=True, slots=True)
class Near:
    """Another measured task, as far as its nearness goes.

    Attributes:
        key: Its ``Task.key``.
        distance: As ``task_distance`` says.
        is_alike: Whether it may lend its choice: ``Task.like`` is equal and no size is far apart.
    """

    key: str
    distance: float
    is_alike: bool

    @classmethod
    def of(cls, task: Task, other: Task) -> Near:
        """``other`` seen from ``task``."""
        apart = gaps(dict(leaves(task.problem, ())), dict(leaves(other.problem, ())))
        alike = bool(task.like) and task.like == other.like
        return cls(other.key, task_distance(task, other), alike and max(apart, default=0) <= ALIKE)


def near_to(connection: sa.Connection, task: Task, k: int, *, same_device: bool) -> list[Near]:
    """The nearest measured tasks, nearest first: at least ``k`` where there are so many."""
    names = _places(task, same_device=True)
    if not same_device:
        names = list(dict.fromkeys([*names, *_places(task, same_device=False)]))
    asked: dict[str, Any] = {f"place{i}": name for i, name in enumerate(names)}
    asked |= {"volume": _volume(task.problem), "most": max(_MIN_COUNT, 2 * k)}
    rows = connection.execute(_query(len(names)), asked).all()
    alike = {row.task_key for row in rows if row.place == _like(task)} if task.like else ()
    distinct = {row.task_key: row for row in rows if row.task_key != task.key}
    versions, own = digest(dict(task.versions)), dict(leaves(task.problem, ()))
    found = []
    for key, row in distinct.items():
        apart = gaps(own, dict(leaves(json.loads(row.problem), ())))
        penalty = task_penalty(
            source=row.source_hash != task.source_hash,
            devices=(task.device, Device(name=row.device)),
            versions=row.versions != versions,
        )
        close = key in alike and max(apart, default=0.0) <= ALIKE
        found.append(Near(key, euclidean(apart) + penalty, close))
    return sorted(found, key=lambda near: (near.distance, near.key))


@functools.lru_cache(maxsize=8)
def _query(n: int) -> sa.Select[Any]:
    """Those just above and below a volume in each of n places, in one statement."""
    p, table = _schema.places.c, _schema.problems
    parts = []
    for i in range(n):
        here = sa.select(p.place, p.task_key).where(p.place == sa.bindparam(f"place{i}"))
        above = here.where(p.volume >= sa.bindparam("volume")).order_by(p.volume)
        below = here.where(p.volume < sa.bindparam("volume")).order_by(p.volume.desc())
        parts += [side.limit(sa.bindparam("most")).subquery() for side in (above, below)]
    found = sa.union(*[sa.select(part.c.place, part.c.task_key) for part in parts]).subquery()
    return sa.select(found.c.place, *table.c).join(found, table.c.task_key == found.c.task_key)


def _places(task: Task, *, same_device: bool) -> list[str]:
    """The places in which a task stands and others are looked for, the closest first."""
    where = task.device.name if same_device else ""
    kind = [task.language, task.metric, task.minimize, where]
    octaves: list[Any] = []
    words: list[Any] = []
    for path, value in sorted(leaves(task.problem, ()), key=repr):
        number = _log2(value)
        (words if number is None else octaves).append(
            [path, value if number is None else math.floor(number / _OCTAVES)]
        )
    return [
        *([_like(task)] if task.like else []),
        digest(["magnitude", task.kernel, kind, repr(octaves), repr(words)]),
        digest(["kernel", task.kernel, kind]),
        *([digest(["source", task.source_hash, kind])] if task.source else []),
    ]


def _like(task: Task) -> str:
    return digest(["like", task.like, task.metric, task.minimize])


def _volume(problem: Mapping[str, Any]) -> float:
    numbers = (_log2(value) for _, value in leaves(problem, ()))
    return float(sum(number for number in numbers if number is not None))


def _log2(value: Any) -> float | None:
    """``log2(1 + |value|)`` of a number, None of a word."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    found = math.log2(1 + abs(value))
    return found if math.isfinite(found) else None
