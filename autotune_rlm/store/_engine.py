"""Opening a database: where it is, how SQLite is set up, which schema it has, what a fork does."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import platformdirs
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from autotune_rlm._checks import check_path
from autotune_rlm._private import private_folder
from autotune_rlm.store import _places, _schema

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

ENVIRONMENT = "AUTOTUNE_RLM_STORE"
SERVER_S = 5.0
"""How long a server may take for an answer before it counts as gone."""
BUSY_S = 20.0
"""How long a writer waits for others before the measurement is kept in memory."""
_INDEXED = 2  # the first schema version with an index of measured problems
_SCHEMA_LOCK = 0x0A070712  # any number; names the PostgreSQL lock that guards the schema


class StoreError(RuntimeError):
    """The store cannot be used as asked; the message says what to do."""


def default_path() -> Path:
    """The user's own store: ``autotune_rlm/store.sqlite`` in the user's cache folder."""
    return platformdirs.user_cache_path("autotune_rlm") / "store.sqlite"


def means_none(text: str | None) -> bool:
    """Whether a setting asks for no store: ``none``, ``off``, ``false``, ``no`` or ``0``."""
    return (text or "").strip().lower() in ("none", "off", "false", "no", "0")


def to_url(url_or_path: str | os.PathLike[str] | None) -> sa.URL:
    """The SQLAlchemy URL that an argument of ``Store`` means.

    Where the environment asks for none that is a database in this process's memory.
    """
    named = os.environ.get(ENVIRONMENT)
    by_default = ":memory:" if means_none(named) else named or default_path()
    given: str | os.PathLike[str] = url_or_path or by_default
    if isinstance(given, str) and "://" in given:
        try:
            url = sa.make_url(given)
        except sa.exc.ArgumentError as error:
            raise StoreError(f"store must be a file's path or an SQLAlchemy URL: {error}") from None
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        return url
    if given == ":memory:":
        return sa.URL.create("sqlite")
    return sa.URL.create("sqlite", database=str(check_path("store", given).expanduser().absolute()))


def shown(url: sa.URL) -> str:
    """The path of a file or the URL without its password."""
    if url.get_backend_name() == "sqlite":
        return url.database or ":memory:"
    return url.render_as_string(hide_password=True)


def open_engine(url: sa.URL, *, read_only: bool = False) -> sa.Engine:
    """An engine with SQLite set up for many writers; connects to nothing yet."""
    sqlite = url.get_backend_name() == "sqlite"
    in_memory = sqlite and url.database in (None, "", ":memory:")
    options: dict[str, Any] = {"pool_pre_ping": not sqlite}
    if in_memory:
        options |= {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    elif sqlite:
        options["connect_args"] = {"timeout": BUSY_S, "check_same_thread": False}
        if read_only:
            url = _read_only_url(url)
    elif url.get_backend_name() in ("postgresql", "mysql", "mariadb"):
        if "connect_timeout" not in url.query:
            options["connect_args"] = {"connect_timeout": int(SERVER_S)}
        options["pool_timeout"] = SERVER_S
    try:
        engine = sa.create_engine(url, **options)
    except (sa.exc.NoSuchModuleError, ImportError) as error:
        extra = "postgres" if url.get_backend_name() == "postgresql" else "the driver's package"
        raise StoreError(
            f"cannot open {shown(url)}: {error}; for PostgreSQL install "
            f"'autotune-rlm[postgres]', for others {extra}"
        ) from None
    if sqlite:
        sa.event.listen(engine, "connect", _set_up_sqlite(read_only or in_memory))
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def make_file(path: Path, *, own: bool) -> None:
    """Make the file of a new SQLite database, which its user alone may read and write.

    Args:
        path: The file; one that is there is left as it is.
        own: Whether it is the user's own store, in a folder that is the user's alone too.

    Raises:
        OSError: It cannot be made or written to.
    """
    if own:
        private_folder(path.parent)
    else:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    if own and path.stat().st_uid == os.getuid():
        path.chmod(0o600)
    if not os.access(path, os.W_OK):
        raise PermissionError(f"{path} is read-only")


def _read_only_url(url: sa.URL) -> sa.URL:
    path = Path(url.database or "")
    if not path.exists():
        raise StoreError(f"no store to read at {path}; open it without read_only first")
    # SQLite cannot read a WAL database from a folder in which it may not write its index file,
    # unless it is promised that nobody changes the database.
    beside = [path.with_name(path.name + end) for end in ("-wal", "-shm")]
    frozen = not os.access(path.parent, os.W_OK) and not all(p.exists() for p in beside)
    query = {"mode": "ro", "uri": "true", **({"immutable": "1"} if frozen else {})}
    return sa.URL.create("sqlite", database=f"file:{quote(str(path))}", query=query)


def _set_up_sqlite(keep_journal: bool) -> Callable[[Any, Any], None]:
    def set_up(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions begin where _begin_sqlite says
        if not keep_journal:
            connection.execute("PRAGMA journal_mode=WAL")
        # In WAL mode this survives a killed process; only a power cut can lose the last commits.
        connection.execute("PRAGMA synchronous=NORMAL")

    return set_up


def _begin_sqlite(connection: sa.Connection) -> None:
    # A writer takes the write lock at once: a later upgrade from reading would fail, not wait.
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def is_busy(error: BaseException) -> bool:
    """Whether waiting can help: the database is locked, or two writers got in each other's way."""
    text = str(error).lower()
    return any(word in text for word in ("locked", "busy", "deadlock", "could not serialize"))


def retrying(action: Callable[[], _T], *, seconds: float | None = None) -> _T:
    """The result of ``action``, tried again while the database is busy, by default for ``BUSY_S``."""
    end = time.monotonic() + (BUSY_S if seconds is None else seconds)
    pause = 0.002
    while True:
        try:
            return action()
        except sa.exc.DBAPIError as error:
            if not is_busy(error) or time.monotonic() >= end:
                raise
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, 0.25)


def within(seconds: float | None, action: Callable[[], _T]) -> _T:
    """The result of ``action``; with a limit, in a thread that is left alone when time is up.

    Drivers wait for ever for a server that took the request and says nothing.

    Raises:
        TimeoutError: It took longer.
        Exception: What ``action`` raises.
    """
    if seconds is None:
        return action()
    found: Future[_T] = Future()

    def run() -> None:
        try:
            found.set_result(action())
        except BaseException as error:
            found.set_exception(error)

    try:
        threading.Thread(target=run, name="autotune_rlm-store", daemon=True).start()
    except RuntimeError:  # the interpreter ends
        return action()
    try:
        return found.result(timeout=seconds)
    except concurrent.futures.TimeoutError:
        if found.done():
            return found.result()
        raise TimeoutError(f"no answer within {seconds:g} s") from None


def prepare(engine: sa.Engine, url: sa.URL, *, read_only: bool) -> None:
    """Create or migrate the tables.

    Raises:
        StoreError: The schema is newer than this package's, or older and the store is read-only.
    """
    with engine.connect() as connection:
        found = _version(connection)
    _refuse_newer(found, url)
    if found == _schema.VERSION:
        return
    if read_only:
        raise StoreError(
            f"{shown(url)} has {'no tables' if found is None else f'schema version {found}'} and "
            f"this package needs {_schema.VERSION}; open it once without read_only to migrate it"
        )
    with engine.execution_options(write=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})"))
        found = _version(connection)  # another process may have been here since
        _refuse_newer(found, url)
        if found is not None:
            for version in range(found, _schema.VERSION):
                _log.info("migrating %s from schema version %d", shown(url), version)
                for statement in _schema.MIGRATIONS[version]:
                    connection.exec_driver_sql(statement)
        _schema.tables.create_all(connection)
        if found is not None and found < _INDEXED:
            _places.fill(connection)
        connection.execute(sa.delete(_schema.meta).where(_schema.meta.c.key == "schema_version"))
        connection.execute(
            sa.insert(_schema.meta).values(key="schema_version", value=str(_schema.VERSION))
        )


def _version(connection: sa.Connection) -> int | None:
    if not sa.inspect(connection).has_table(_schema.meta.name):
        return None
    query = sa.select(_schema.meta.c.value).where(_schema.meta.c.key == "schema_version")
    value = connection.execute(query).scalar()
    return None if value is None else int(value)


def _refuse_newer(found: int | None, url: sa.URL) -> None:
    if found is not None and found > _schema.VERSION:
        raise StoreError(
            f"{shown(url)} was written by a newer autotune_rlm: schema version {found}, this package "
            f"knows {_schema.VERSION}; upgrade autotune-rlm or set {ENVIRONMENT} to another file"
        )
