"""Writes that are never lost: to the database at once, else kept in memory until it works again."""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from autotune_rlm._forks import no_fork
from autotune_rlm.store import _schema
from autotune_rlm.store._engine import (
    ENVIRONMENT,
    SERVER_S,
    StoreError,
    make_file,
    open_engine,
    prepare,
    retrying,
    shown,
    to_url,
    within,
)
from autotune_rlm.store._places import place
from autotune_rlm.store._rows import Write, task_from

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_RETRY_S = 60.0
_GONE = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, OSError)

_open: weakref.WeakSet[Database] = weakref.WeakSet()
_inherited: list[Any] = []  # a parent's connections: a forked child must neither use nor close them


class Database:
    """The engine of one store with what could not be written yet.

    A database that cannot be used is asked again once a minute. Until then what was measured is in this
    process's memory: in ``waiting``, and where the database never could be opened, in ``_spare``, an
    SQLite database there.

    Args:
        url_or_path: As ``Store`` takes it.
        read_only: Whether writes stay in memory.
        fallback: Whether to go on in memory, with one warning, where the database cannot be opened.

    Raises:
        StoreError: The database cannot be used as asked, and there is no ``fallback``.
    """

    def __init__(
        self,
        url_or_path: str | os.PathLike[str] | None,
        *,
        read_only: bool,
        fallback: bool = False,
    ) -> None:
        self.read_only = read_only
        self.warned = False
        self._pending: list[Write] = []
        self._unwritable: list[Write] = []
        self._owed: list[Write] = []  # is in the spare database and not in the own one
        self._retry_at = self._read_again_at = 0.0
        self._spare: sa.Engine | None = None
        self._own = url_or_path is None and not os.environ.get(ENVIRONMENT)
        self._renew_locks()
        self.url, self.name = to_url(":memory:"), "as it was named"
        try:
            self.url = to_url(url_or_path)
            self.name = shown(self.url)
            self._engine = self._connect()
        except StoreError as error:
            if not fallback:
                raise
            self._engine = self._in_memory_instead(str(error), again=False)
        except (sa.exc.DBAPIError, OSError) as error:
            if not fallback and not self._own:
                raise StoreError(
                    f"cannot open the store {self.name}: {_cause(error)}; set {ENVIRONMENT} to a file "
                    "that can be written or to an SQLAlchemy URL"
                ) from None
            self._engine = self._in_memory_instead(_cause(error), again=True)
        _open.add(self)

    def _in_memory_instead(self, cause: str, *, again: bool) -> sa.Engine:
        self._warn(cause)
        self._retry_at = time.monotonic() + _RETRY_S if again else math.inf
        memory = to_url(":memory:")
        self._spare = open_engine(memory)
        prepare(self._spare, memory, read_only=False)
        return self._spare

    def _connect(self) -> sa.Engine:
        try:
            return self._try_connect()
        except (sa.exc.DBAPIError, OSError) as error:
            cause = _cause(error)
            if "not a database" in cause or "malformed" in cause:
                raise StoreError(
                    f"{self.name} is no store or is damaged ({cause}); move the file away or set "
                    f"{ENVIRONMENT} to another file"
                ) from None
            readable = self.url.get_backend_name() == "sqlite" and Path(self.name).is_file()
            if not readable or self.read_only:
                raise
            self._warn(cause)
            self.read_only = True
            return self._try_connect()

    def _try_connect(self) -> sa.Engine:
        file = self.url.get_backend_name() == "sqlite" and self.name != ":memory:"
        if file and not self.read_only:
            make_file(Path(self.name), own=self._own)
        engine = open_engine(self.url, read_only=self.read_only)
        _attempted(lambda: prepare(engine, self.url, read_only=self.read_only), self._limit_s())
        return engine

    def _limit_s(self) -> float | None:
        """Seconds that a server may take; a file or memory has no limit."""
        return None if self.url.get_backend_name() == "sqlite" else 2 * SERVER_S

    def _run(self, action: Callable[[], _T], *, seconds: float | None = None) -> _T:
        """``action`` on the engine in use.

        Raises:
            TimeoutError: A server took longer than it may.
        """
        return _attempted(action, None if self.in_memory else self._limit_s(), seconds)

    def _reopen(self, *, now: bool) -> None:
        """Try again, a minute after the last time, to open the database that could not be opened."""
        if self._spare is None or not math.isfinite(self._retry_at):
            return
        if not now and time.monotonic() < self._retry_at:
            return
        try:
            engine = self._connect()
        except (StoreError, sa.exc.DBAPIError, OSError):
            self._retry_at = time.monotonic() + _RETRY_S
            return
        with self._state:
            self._engine, self._spare = engine, None
            self._pending[:0] = self._owed
            self._owed = []

    def _renew_locks(self) -> None:
        self._state = threading.Lock()
        self._writing = threading.RLock()

    @property
    def in_memory(self) -> bool:
        """Whether the database is one connection in this process's memory."""
        return isinstance(self._engine.pool, sa.pool.StaticPool)

    @property
    def waiting(self) -> tuple[Write, ...]:
        """What this process knows and the database does not, oldest first."""
        with self._state:
            return (*self._unwritable, *self._pending)

    def read(self, query: Callable[[sa.Connection], _T], default: _T) -> _T:
        """The result of ``query``; ``default``, with one warning, where the database fails."""

        def run() -> _T:
            with self._engine.connect() as connection:
                return query(connection)

        if time.monotonic() < self._read_again_at:
            return default
        try:
            with self._alone():
                return self._run(run)
        except (sa.exc.DBAPIError, sa.exc.TimeoutError, OSError) as error:
            self._went_away(error)
            return default

    def _went_away(self, error: BaseException, *, writing: bool = False) -> None:
        """Leave the database alone for a minute; a file that cannot be written may be read on."""
        self._retry_at = time.monotonic() + _RETRY_S
        if not writing or self._limit_s() is not None:
            self._read_again_at = self._retry_at
        self._warn(_cause(error))
        if isinstance(error, OSError) and not self.in_memory:
            self._engine.dispose(close=False)  # a connection hangs; closing it would hang too

    def write(self, writes: Sequence[Write]) -> None:
        """Write rows at once, or keep them in memory with one warning. Never raises for a database."""
        with self._state:
            self._pending.extend(writes)
        self.flush()

    def flush(self, *, now: bool = False) -> None:
        """Write what is pending; after a failure only once a minute, unless ``now``."""
        if self.read_only:
            return
        with self._writing:
            self._reopen(now=now and bool(self._owed))
            with self._state:
                batch = list(self._pending)
            down = self._spare is None and time.monotonic() < self._retry_at
            if not batch or (down and not now):
                return
            try:
                seconds = 1.0 if now else None
                self._run(lambda: self._insert(batch), seconds=seconds)
            except _GONE as error:
                self._went_away(error, writing=True)
                return
            except sa.exc.SQLAlchemyError as error:
                if "malformed" in _cause(error) or "not a database" in _cause(error):
                    self._went_away(error, writing=True)
                    return
                self._insert_singly(batch)
            with self._state:
                del self._pending[: len(batch)]
                if self._spare is not None:
                    self._owed += batch
                else:
                    self._retry_at = self._read_again_at = 0.0

    def execute(self, action: Callable[[sa.Connection], _T]) -> _T:
        """Run a change that has to succeed.

        Raises:
            StoreError: The store is read-only, or the database refused.
        """
        if self.read_only:
            raise StoreError(f"{self.name} is open read-only and cannot be changed")

        def run() -> _T:
            with self._engine.execution_options(write=True).begin() as connection:
                return action(connection)

        try:
            with self._writing:
                return self._run(run)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise StoreError(f"cannot change {self.name}: {_cause(error)}") from error

    def forget(self, wanted: Callable[[Write], bool]) -> None:
        """Drop what waits in memory and is wanted gone."""
        with self._state:
            self._pending = [w for w in self._pending if not wanted(w)]
            self._unwritable = [w for w in self._unwritable if not wanted(w)]
            self._owed = [w for w in self._owed if not wanted(w)]

    def close(self) -> None:
        """Write what is pending and let the connections go."""
        self.flush(now=True)
        if not self.in_memory:
            self._engine.dispose()

    def after_fork(self) -> None:
        """In a forked child: own connections, own locks; the parent writes what is pending."""
        self._renew_locks()
        self._unwritable += self._pending
        self._pending, self._owed = [], []
        if not self.in_memory:
            _inherited.append(self._engine.pool)
            self._engine.dispose(close=False)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self.in_memory:
            yield
            return
        with self._writing:
            yield

    def _insert(self, batch: list[Write]) -> None:
        tasks = {w.task["key"]: w.task for w in batch if w.task is not None}
        rows: dict[str, list[dict[str, Any]]] = {}
        for write in batch:
            rows.setdefault(write.table, []).append(write.row)
        with self._engine.execution_options(write=True).begin() as connection:
            _insert_tasks(connection, tasks)
            for name in ("measurements", "events"):
                if rows.get(name):
                    connection.execute(sa.insert(_schema.tables.tables[name]), rows[name])
            measured = {
                r["task_key"] for r in rows.get("measurements", ()) if r["value"] is not None
            }
            place(connection, {k: task_from(tasks[k]["task"]) for k in measured & tasks.keys()})
            for row in rows.get("requests", ()):
                _count_request(connection, row)

    def _insert_singly(self, batch: list[Write]) -> None:
        for write in batch:
            if not self._inserted(write):
                with self._state:
                    self._unwritable.append(write)

    def _inserted(self, write: Write) -> bool:
        try:
            self._run(lambda: self._insert([write]))
        except (sa.exc.SQLAlchemyError, OSError) as error:
            _log.warning("a row that %s refuses is kept in memory: %s", self.name, _cause(error))
            return False
        return True

    def _warn(self, cause: str) -> None:
        level = logging.DEBUG if self.warned else logging.WARNING
        self.warned = True
        _log.log(
            level,
            "cannot use the store %s (%s); going on, what is measured stays in memory until it works "
            "again or this process ends; make room or set %s to a file that can be written",
            self.name,
            cause,
            ENVIRONMENT,
        )


def _attempted(action: Callable[[], _T], limit_s: float | None, seconds: float | None = None) -> _T:
    """``action``, tried again while the database is busy, for ``BUSY_S`` by default.

    A fork waits for SQLite, which has locks of its own; a server has a limit of time.
    """
    if limit_s is not None:
        return within(limit_s, lambda: retrying(action, seconds=seconds))

    def attempt() -> _T:
        with no_fork():
            return action()

    return retrying(attempt, seconds=seconds)


def _insert_tasks(connection: sa.Connection, tasks: dict[str, dict[str, Any]]) -> None:
    column = _schema.tasks.c.key
    there = set(connection.scalars(sa.select(column).where(column.in_(list(tasks)))))
    for key, row in tasks.items():
        if key not in there:
            # Another writer may insert it between the two statements.
            with contextlib.suppress(sa.exc.IntegrityError), connection.begin_nested():
                connection.execute(sa.insert(_schema.tasks), row)


def _count_request(connection: sa.Connection, row: dict[str, Any]) -> None:
    table = _schema.requests
    update = (
        sa.update(table)
        .where(table.c.task_key == row["task_key"])
        .values(uses=table.c.uses + row["uses"], last=row["last"], candidates=row["candidates"])
    )
    if connection.execute(update).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(table), row)
    except sa.exc.IntegrityError:
        connection.execute(update)


def _cause(error: BaseException) -> str:
    original = getattr(error, "orig", None) or error
    return " ".join(str(original).split()) or type(original).__name__


@atexit.register
def _flush_all() -> None:
    for database in list(_open):
        with contextlib.suppress(Exception):
            database.flush(now=True)


def _after_fork() -> None:
    for database in list(_open):
        database.after_fork()


os.register_at_fork(after_in_child=_after_fork)
