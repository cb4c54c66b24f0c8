"""First IRs that were read before, in one SQLite file: the front end runs once per binary and machine."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from autotune_rlm._forks import ForkSafeLock
from autotune_rlm._private import private_folder

_log = logging.getLogger(__name__)
_MAX_ROWS = 50_000  # about 100 MB
_CHUNK = 500


class IRCache:
    """Text by key, compressed. Many processes may use one file; a file that fails is done without.

    Args:
        path: The file; None for the user's own.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._broken = False
        self._lock = ForkSafeLock()

    def get(self, keys: Iterable[str]) -> dict[str, str]:
        """The texts that are known, by key."""
        wanted = list(keys)
        found: dict[str, str] = {}
        with self._connected() as connection:
            if connection is None:
                return found
            for start in range(0, len(wanted), _CHUNK):
                some = wanted[start : start + _CHUNK]
                marks = ",".join("?" * len(some))
                rows = connection.execute(f"SELECT key, text FROM ir WHERE key IN ({marks})", some)
                for key, text in rows:
                    with contextlib.suppress(zlib.error, UnicodeDecodeError):
                        found[key] = zlib.decompress(text).decode()
        return found

    def put(self, texts: Mapping[str, str]) -> None:
        """Keep texts; the oldest go where there are too many."""
        rows = [(key, zlib.compress(text.encode(), 1)) for key, text in texts.items()]
        with self._connected() as connection:
            if connection and rows:
                connection.executemany("INSERT OR REPLACE INTO ir (key, text) VALUES (?, ?)", rows)
                newest = "SELECT max(rowid) FROM ir"
                connection.execute(f"DELETE FROM ir WHERE rowid <= ({newest}) - {_MAX_ROWS}")

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection | None]:
        """A connection within a transaction; None where the file cannot be used."""
        connection = None
        with self._lock:
            try:
                connection = None if self._broken else self._open()
                yield connection
                if connection:
                    connection.commit()
            except (sqlite3.Error, OSError, ModuleNotFoundError) as error:
                self._broken = True
                _log.debug("IRs are not kept: %s", error)
            finally:
                if connection:
                    connection.close()

    def _open(self) -> sqlite3.Connection:
        path = self._path
        if path is None:
            import platformdirs

            path = platformdirs.user_cache_path("autotune_rlm") / "ir.sqlite3"
        private_folder(path.parent)
        connection = sqlite3.connect(path, timeout=5.0)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS ir (rowid INTEGER PRIMARY KEY AUTOINCREMENT, "
            "key TEXT UNIQUE NOT NULL, text BLOB NOT NULL)"
        )
        return connection
