"""What tuning shares within a process and between processes: stores, surrogates, locks."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from autotune_rlm._checks import check_surrogate
from autotune_rlm._forks import ForkSafeLock, no_fork
from autotune_rlm._private import lock_folder
from autotune_rlm.types import Candidate, Observation, Prediction, Surrogate, Task

from .device import job_of_ranks

_log = logging.getLogger(__name__)
_PATIENCE_S = 600.0
_PATIENCE_OF_RANKS_S = 2.0
_POOL_IDLE_S = 60.0

TUNING_LOCK = ForkSafeLock()
"""Held while anything is tuned in this process: two timings at once would spoil each other."""


def open_store(store: Any) -> Any:
    """The store that an argument means: a ``Store``, an SQLAlchemy URL or a file's path.

    None stands for the user's own; False or a word such as ``"none"`` for none. One that cannot be
    opened costs a warning: what is measured stays in this process's memory.
    """
    from autotune_rlm.store import means_none

    if store is False or (isinstance(store, str) and means_none(store)):
        return None
    if store is None or isinstance(store, (str, os.PathLike)):
        return _opened(None if store is None else str(store), os.getpid())
    return store


@functools.lru_cache(maxsize=64)
def _opened(url: str | None, process: int) -> Any:
    from autotune_rlm.store import Store

    return Store(url, fallback=True)


class LazySurrogate:
    """A surrogate, its name or folder, that is loaded when first asked.

    None for the package's own, with the weights in use for ``store``. Where that cannot be loaded nothing
    is known of any configuration, and a warning says so once.
    """

    def __init__(self, surrogate: Any = None, store: Any = None) -> None:
        if surrogate is not None:
            check_surrogate(surrogate)
        self._given, self._store = surrogate, store

    @no_fork()
    def predict(
        self, task: Task, candidates: Sequence[Candidate], *, observed: Sequence[Observation] = ()
    ) -> Prediction:
        """The surrogate's prediction."""
        surrogate = self._surrogate()
        if surrogate is None:
            return _no_idea(task, len(candidates))
        try:
            prediction = surrogate.predict(task, candidates, observed=observed)
        except Exception as error:
            if self._given is not None:
                raise
            # No launch fails for the model that nobody asked for.
            _warn_once(_UNRANKED, error)
            return _no_idea(task, len(candidates))
        if prediction.unfamiliar:
            _say_unfamiliar(task.kernel, task.device.name, prediction.unfamiliar)
        return prediction

    def _surrogate(self) -> Surrogate | None:
        if self._given is None:
            return _bundled(self._store)
        if isinstance(self._given, (str, os.PathLike)):
            return _loaded(str(self._given))
        return self._given


@functools.lru_cache(maxsize=1024)
def _say_unfamiliar(kernel: str, device: str, reasons: tuple[str, ...]) -> None:
    _log.info("%s on %s is unfamiliar: %s", kernel, device, "; ".join(reasons))


@functools.lru_cache(maxsize=8)
def _loaded(name: str) -> Surrogate:
    from autotune_rlm.surrogate import load

    return load(name)


def _bundled(store: Any = None) -> Surrogate | None:
    """The package's own surrogate, with the weights in use for a store; loaded once a version."""
    from autotune_rlm.store import StoreError, weights_in_use

    version = None
    if store is not False:
        with contextlib.suppress(StoreError):
            version = weights_in_use(store)
    if version is not None:
        try:
            return _loaded(str(version))
        except Exception as error:
            _warn_once(f"going on with the bundled weights: cannot load {version}", error)
    try:
        return _loaded("nano")
    except Exception as error:
        _warn_once(_UNRANKED, error)
        return None


_UNRANKED = "configurations are measured without ranking: cannot load the surrogate"
_warned: set[str] = set()


def _warn_once(message: str, error: Exception) -> None:
    if message not in _warned:
        _warned.add(message)
        _log.warning("%s (%s: %s)", message, type(error).__name__, error)


def _no_idea(task: Task, n: int) -> Prediction:
    ones = np.ones(n)
    return Prediction(
        metric=task.metric,
        median=ones,
        low=ones / 20,
        high=ones * 20,
        spread=ones,
        p_valid=ones,
        familiar=False,
    )


class _IdlePool:
    """One compile pool for all kernels, closed when nothing asked for it for a while."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._pool: Any = None
        self._process = 0
        self._timer: threading.Timer | None = None

    def get(self) -> Any:
        from autotune_rlm.measure.triton.compile import CompilePool

        with self._lock:
            if self._pool is None or self._process != os.getpid():
                self._pool, self._process = CompilePool(), os.getpid()
            if self._timer is not None:
                self._timer.cancel()
            self._watch()
            return self._pool

    def _watch(self) -> None:
        self._timer = threading.Timer(_POOL_IDLE_S, self._close_if_idle)
        self._timer.daemon = True
        self._timer.start()

    def _close_if_idle(self) -> None:
        with self._lock:
            busy = self._pool is not None and self._pool.idle_s < _POOL_IDLE_S
            if busy:
                self._watch()
        if not busy:
            self.close()

    def close(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._process == os.getpid():
            pool.close()


_compile_pool = _IdlePool()
# Before the threads that wait for compilers are waited for, so that a program ends at once.
getattr(threading, "_register_atexit", atexit.register)(_compile_pool.close)


def compile_pool() -> Any:
    """The process's ``CompilePool``; stopped a minute after it was last used."""
    return _compile_pool.get()


@contextlib.contextmanager
def process_lock(task: Task) -> Iterator[None]:
    """Held by the one process of this machine that tunes ``task``; freed when the process dies.

    Another process is waited for for minutes, a rank of a job for seconds: it may wait for this one.
    """
    lock = None
    patience_s = _PATIENCE_S if job_of_ranks() is None else _PATIENCE_OF_RANKS_S
    try:
        lock = FileLock(lock_folder() / f"{task.key}.lock", mode=0o600)
        lock.acquire(timeout=patience_s)
    except Timeout:
        _log.warning("another process tunes %s since %d s; tuning too", task.kernel, patience_s)
        lock = None
    except OSError as error:
        _log.debug("tuning without a lock: %s", error)
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
