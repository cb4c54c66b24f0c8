"""The store's public face."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from autotune_rlm._closing import Closing
from autotune_rlm._forks import ForkSafeLock
from autotune_rlm.landscapes import Landscape
from autotune_rlm.store import _recall, _requests, _rows, _running, _schema
from autotune_rlm.store._database import Database
from autotune_rlm.store._info import StoreInfo, describe
from autotune_rlm.store._recall import Recall
from autotune_rlm.store._requests import Request
from autotune_rlm.store._running import Interrupted
from autotune_rlm.types import Candidate, Measurement, Observation, Task

if TYPE_CHECKING:
    from autotune_rlm.store.accuracy import TuningEvent

_CACHED_TASKS = 1024
_MAX_ALIKE = 3  # nearest alike problems to look at, as the search of the first may be unfinished
_CHUNK = 2000
_OVERLAP = 256  # a transaction with a smaller id may be committed later than one with a larger

_m = _schema.measurements.c
_COUNT = sa.select(sa.func.count(), sa.func.max(_m.id)).where(_m.task_key == sa.bindparam("key"))
_ROWS = (
    sa.select(_m.candidate, _m.measurement)
    .where(_m.task_key == sa.bindparam("key"))
    .order_by(_m.created, _m.id)
)


class Store(Closing):
    """Every measurement ever made, per candidate.

    Writes each measurement at once. Where the database is full, locked for long or read-only, one
    warning is logged and measurements stay in this process's memory, visible to it like any other,
    and are written as soon as the database works again. Safe for threads, processes and forks.

    Args:
        url_or_path: File of an SQLite database, ``":memory:"``, or any SQLAlchemy URL such as
            ``"postgresql://user@host/tuning"``. By default the environment's
            ``AUTOTUNE_RLM_STORE`` (``none`` for this process's memory), else
            ``autotune_rlm/store.sqlite`` in the user's cache folder.
        read_only: Whether nothing is written to the database; additions stay in memory.
        fallback: Whether a database that cannot be reached or read logs one warning instead of raising.
            This process then keeps its measurements in memory and writes them when the server or
            file is available again. The decorator opens its store in this way.

    Raises:
        StoreError: The database cannot be reached, is damaged, or has the schema of a newer
            version, and there is no ``fallback``.
    """

    def __init__(
        self,
        url_or_path: str | os.PathLike[str] | None = None,
        *,
        read_only: bool = False,
        fallback: bool = False,
    ) -> None:
        self._database = Database(url_or_path, read_only=read_only, fallback=fallback)
        self._lock = ForkSafeLock()
        self._cache: OrderedDict[str, tuple[Any, tuple[Observation, ...], Any]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Store({self._database.name!r}{', read_only=True' if self.read_only else ''})"

    def close(self) -> None:
        """Write what is still in memory and let the connections go. May be called twice."""
        self._database.close()

    @property
    def name(self) -> str:
        """The database's place: a file's path, or a URL without its password."""
        return self._database.name

    @property
    def read_only(self) -> bool:
        """Whether the database is not written to."""
        return self._database.read_only

    # Measurements

    def add(self, task: Task, candidate: Candidate, measurement: Measurement) -> None:
        """Store one measurement at once."""
        self.add_many([(task, candidate, measurement)])

    def add_many(
        self,
        items: Iterable[tuple[Task, Candidate, Measurement]],
        *,
        created: Sequence[float] | None = None,
    ) -> int:
        """Store many measurements in few transactions; returns their number.

        Args:
            items: The measurements with their tasks and candidates.
            created: Time of each item in seconds since the epoch; by default now.
        """
        writes: list[_rows.Write] = []
        tasks: dict[str, dict[str, Any]] = {}
        total = 0
        now = time.time()
        for i, (task, candidate, measurement) in enumerate(items):
            when = now if created is None else created[i]
            row = tasks.get(task.key)
            if row is None:
                row = tasks[task.key] = _rows.task_row(task, when)
            measured = _rows.measurement_row(task, candidate, measurement, when)
            writes.append(_rows.Write("measurements", measured, row))
            total += 1
            if len(writes) >= _CHUNK:
                self._database.write(writes)
                writes = []
        if writes:
            self._database.write(writes)
        return total

    def observations(self, task: Task, *, every: bool = False) -> list[Observation]:
        """Observations of the candidates of ``task``, in the order in which they were first tried.

        Args:
            task: The task; only its ``key`` matters.
            every: Whether to give every measurement, oldest first, in place of one per candidate:
                the newest that is ok, else the newest.
        """
        waiting = self._waiting("measurements", task.key)
        every_row, newest = self._in_database(task.key)
        if waiting:
            pairs = ((w.row["candidate"], w.row["measurement"]) for w in waiting)
            every_row = (*every_row, *_rows.parsed(pairs))
            newest = tuple(_rows.newest(every_row))
        return list(every_row if every else newest)

    def _in_database(self, key: str) -> tuple[tuple[Observation, ...], tuple[Observation, ...]]:
        """All rows of a task and the newest per candidate, parsed again only when rows changed."""
        with self._lock:
            cached = self._cache.get(key)
            if cached is not None:
                self._cache.move_to_end(key)
        unread = ((), (), ()) if cached is None else cached
        marker: Any = self._database.read(
            lambda c: tuple(c.execute(_COUNT, {"key": key}).one()), unread[0]
        )
        if marker == unread[0]:
            return unread[1], unread[2]
        rows: Any = []
        if marker[0]:
            rows = self._database.read(lambda c: c.execute(_ROWS, {"key": key}).all(), None)
        if rows is None:
            return unread[1], unread[2]
        every = tuple(_rows.parsed((row[0], row[1]) for row in rows))
        entry = (marker, every, tuple(_rows.newest(every)))
        with self._lock:
            self._cache[key] = entry
            while len(self._cache) > _CACHED_TASKS:
                self._cache.popitem(last=False)
        return entry[1], entry[2]

    def tasks(self, kernel: str | None = None, device: str | None = None) -> list[Task]:
        """The tasks with measurements or requests, oldest first; filters are exact names."""
        t, filters = _schema.tasks.c, {"kernel": kernel, "device": device}
        query = _where(sa.select(t.key, t.task), t, filters).order_by(t.created, t.key)
        rows: list[Any] = self._database.read(lambda c: list(c.execute(query)), [])
        texts = {row[0]: row[1] for row in rows}
        for write in self._database.waiting:
            if write.task and _has(write.task, filters):
                texts.setdefault(write.task["key"], write.task["task"])
        return [task for task in map(_rows.task_from, texts.values()) if task is not None]

    def nearest(
        self, task: Task, k: int = 1, same_device: bool = True
    ) -> list[tuple[Task, Observation]]:
        """The best known observations of the ``k`` nearest other problems of the same kernel.

        The same kernel has the same name or source, in the same language and metric. The distance is
        ``problem_distance`` and ``devices.distance``, plus 2 where the source differs and 0.5 where
        versions differ. The search uses an index whose cost does not grow with the number of problems.
        Among thousands of problems that differ in many sizes it may miss the nearest one.

        Args:
            task: The problem; never part of the result itself.
            k: How many problems at most.
            same_device: Whether to look at problems on the same device only.

        Returns:
            Pairs of the other task and its best observation that is ok, nearest first.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        keys = [n.key for n in _recall.near(self._database, task, k, same_device=same_device)]
        best: list[tuple[Task, Observation]] = []
        while keys and len(best) < k:  # mostly one round: indexed problems have measurements
            best += _recall.best_of(self._database, keys[:k], minimize=task.minimize)
            keys = keys[k:]
        return best[:k]

    def near_best(self, task: Task, k: int = 8) -> list[Candidate]:
        """The best configurations of the ``k`` nearest other problems, on whatever device."""
        return [o.candidate for _, o in self.nearest(task, k, same_device=False)]

    def recall(self, task: Task) -> Recall:
        """Everything stored that is relevant to tuning a task, by a few indexed queries.

        The cost does not depend on the number of stored problems.
        """
        near = _recall.near(self._database, task, 1, same_device=True)
        keys = [n.key for n in near if n.is_alike][:_MAX_ALIKE]
        alike = _recall.tasks_by_key(self._database, keys)
        return Recall(
            own=tuple(self.observations(task)),
            failed=tuple(_recall.failed(self._database, task)),
            alike=tuple((other, tuple(self.observations(other))) for other in alike),
            has_near=bool(near),
        )

    def measured_since(self, mark: int) -> tuple[int, set[str]]:
        """Keys of the tasks that were measured since ``mark``, and the next mark; 0 to begin.

        Tasks measured shortly before ``mark`` may be returned again, because another process may have
        committed them late.
        """
        newest: Any = self._database.read(lambda c: c.scalar(sa.select(sa.func.max(_m.id))), None)
        query = sa.select(_m.task_key).where(_m.id > mark - _OVERLAP).distinct()
        keys = {write.row["task_key"] for write in self._waiting("measurements")}
        if mark and newest:
            keys |= self._database.read(lambda c: set(c.scalars(query)), set())
        return newest or mark, keys

    def landscapes(self, kernel: str | None = None, device: str | None = None) -> list[Landscape]:
        """Everything measured, one landscape per task, one measurement per candidate."""
        known = ((task, self.observations(task)) for task in self.tasks(kernel, device))
        return [Landscape.from_observations(task, found) for task, found in known if found]

    # Events

    def add_event(self, event: TuningEvent | Mapping[str, Any]) -> None:
        """Store a tuning run's event, with its own time (``when``) where it has one."""
        data = dict(event) if isinstance(event, Mapping) else event.to_json()
        row = _rows.event_row(data, _seconds(data.get("when")))
        self._database.write([_rows.Write("events", row)])

    def events(
        self, *, task: Task | None = None, kernel: str | None = None, device: str | None = None
    ) -> list[TuningEvent]:
        """The tuning events, oldest first; filters are exact."""
        e = _schema.events.c
        filters = {"task_key": task.key if task else None, "kernel": kernel, "device": device}
        query = _where(sa.select(e.event), e, filters).order_by(e.created, e.id)
        texts: list[str] = self._database.read(lambda c: list(c.scalars(query)), [])
        waiting = (w for w in self._waiting("events") if _has(w.row, filters))
        texts += [write.row["event"] for write in waiting]
        return [event for event in map(_rows.event_from, texts) if event is not None]

    # Requests

    def note_request(
        self,
        task: Task,
        candidates: Sequence[Candidate | Mapping[str, Any]],
        *,
        uses: int = 1,
        workload: Mapping[str, Any] | None = None,
    ) -> None:
        """Note that ``task`` was launched with nothing measured, for a watcher to benchmark.

        Noting it again adds to its uses and replaces candidates and workload.

        Args:
            task: The task.
            candidates: The candidates to measure, or their JSON.
            uses: Number of uses to add.
            workload: ``measure.Workload`` as JSON, which describes how to run the candidates; or
                ``{"obstacle": text}`` with the reason why no other process can.
        """
        _requests.note(self._database, task, candidates, uses=uses, workload=workload)

    def requests(self) -> list[Request]:
        """The noted requests, most used first, then the latest."""
        return _requests.noted(self._database)

    def drop_request(self, task: Task) -> None:
        """Forget the request of ``task``, because it was served."""
        _requests.drop(self._database, task)

    # Candidates being tried

    def begin(self, task: Task, candidate: Candidate) -> None:
        """Note that this process is about to try ``candidate``; the note outlives a crash.

        Raises:
            StoreError: The note cannot be written.
        """
        _running.begin(self._database, task, candidate)

    def end(self, task: Task) -> None:
        """Delete the note that this process made with ``begin``.

        Raises:
            StoreError: The note cannot be deleted.
        """
        _running.end(self._database, task)

    def interrupted(self, task: Task) -> list[Interrupted]:
        """Candidates of ``task`` that processes were trying when they died; each is returned once.

        Raises:
            StoreError: The notes cannot be deleted.
        """
        return _running.interrupted(self._database, task)

    # The whole

    def info(self) -> StoreInfo:
        """What is in the database now."""
        return describe(self._database)

    def clear(self, *, kernel: str | None = None, device: str | None = None) -> int:
        """Delete everything, or everything of a kernel or a device; returns the measurements deleted.

        Raises:
            StoreError: The store is read-only or cannot be written to.
        """
        filters = {"kernel": kernel, "device": device}
        t, events = _schema.tasks, _schema.events
        indexes = (_schema.places, _schema.problems)
        chosen = _where(sa.select(t.c.key), t.c, filters)
        everything = kernel is None and device is None

        def delete(connection: sa.Connection) -> int:
            connection.execute(_where(sa.delete(events), events.c, filters))
            gone = 0
            for table in (*indexes, _schema.requests, _schema.measurements, t):
                key = t.c.key if table is t else table.c.task_key
                query = sa.delete(table) if everything else sa.delete(table).where(key.in_(chosen))
                deleted = connection.execute(query).rowcount
                gone = deleted if table is _schema.measurements else gone
            return gone

        gone = self._database.execute(delete)
        self._database.forget(lambda w: _has(w.task or w.row, filters))
        with self._lock:
            self._cache.clear()
        return gone

    def _waiting(self, table: str, key: str | None = None) -> list[_rows.Write]:
        return [
            w
            for w in self._database.waiting
            if w.table == table and key in (None, w.row["task_key"])
        ]


def _where(query: Any, columns: Any, filters: Mapping[str, str | None]) -> Any:
    """The query for rows with these values, None standing for any."""
    return query.where(*(columns[n] == v for n, v in filters.items() if v is not None))


def _has(row: Mapping[str, Any], filters: Mapping[str, str | None]) -> bool:
    """Whether a row has these values, None standing for any."""
    return all(value in (None, row[name]) for name, value in filters.items())


def _seconds(when: Any) -> float:
    try:
        return datetime.fromisoformat(str(when)).timestamp()
    except ValueError:
        return time.time()
