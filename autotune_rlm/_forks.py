"""What a forked child finds whole, whatever other threads of its parent were doing."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator

_PATIENCE_S = 10.0


class ForkSafeLock:
    """A re-entrant lock for state that is whole at every moment, such as a cache.

    A fork copies a lock in the state that it is in. Where another thread holds it, nobody in the child
    ever lets it go. So every child gets new ones.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _all.add(self)

    def __enter__(self) -> ForkSafeLock:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Forget other threads, which the child does not have."""
        if not self._lock._is_owned():  # type: ignore[attr-defined]
            self._lock = threading.RLock()


_all: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()
_gate = threading.RLock()
_forking = threading.local()


@contextlib.contextmanager
def no_fork() -> Iterator[None]:
    """While a thread is in here, forks by other threads wait, for up to ten seconds.

    For what has locks that are not ours, which a child would find locked for ever: imports, SQLite, a
    compiler, ``functools.cached_property`` before Python 3.12.
    """
    with _gate:
        yield


def _before() -> None:
    _forking.holds = _gate.acquire(timeout=_PATIENCE_S)


def _in_parent() -> None:
    if _forking.holds:
        _gate.release()


def _in_child() -> None:
    global _gate
    if _forking.holds:
        _gate.release()
    else:
        _gate = threading.RLock()
    for lock in list(_all):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
