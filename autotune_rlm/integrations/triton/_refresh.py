"""Running programs take up what others measured meanwhile, at no cost for their launches.

With ``mode="predict"`` a launch takes the model's choice. One thread of the process looks into the
store now and then, and where ``autotune-rlm watch`` or another program has measured a problem, it
puts the fastest configuration into the autotuner's cache, where the next launch finds it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autotune_rlm._forks import ForkSafeLock

__all__ = ["Refresher", "refresher"]

_log = logging.getLogger(__name__)
_FIRST_S = 5.0
_LONGEST_S = 300.0


@dataclass(frozen=True)
class _Waiting:
    autotuner: weakref.ref[Any]
    key: tuple[Any, ...]
    best: Callable[[], Any]


class Refresher:
    """Replaces predicted choices by measured ones.

    Args:
        first_s: Seconds until the first look; each look that finds nothing doubles them.
        longest_s: Seconds between two looks at most.
    """

    def __init__(self, first_s: float = _FIRST_S, longest_s: float = _LONGEST_S) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._waiting: list[_Waiting] = []
        self._lock = ForkSafeLock()
        self._more = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = 0

    def add(self, autotuner: Any, key: tuple[Any, ...], best: Callable[[], Any]) -> None:
        """Watch a key.

        Args:
            autotuner: Has a ``cache``; not kept alive.
            key: In the cache.
            best: Gives the best measured configuration, or None as long as there is none.
        """
        with self._lock:
            if self._process != os.getpid():  # a fork has no thread
                self._thread, self._process = None, os.getpid()
            self._waiting.append(_Waiting(weakref.ref(autotuner), key, best))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="autotune_rlm-refresh", daemon=True
                )
                self._thread.start()
        self._more.set()

    def look(self) -> int:
        """Look once; returns how many choices were replaced or need no watching any more.

        A replaced choice is watched on: the search that it comes from may not have ended.
        """
        done = []
        replaced = 0
        for entry in list(self._waiting):
            autotuner = entry.autotuner()
            if autotuner is None or entry.key not in autotuner.cache:
                done.append(entry)
                continue
            try:
                config = entry.best()
            except Exception as error:
                _log.debug("cannot look for measurements: %s", error)
                continue
            if config is not None and config != autotuner.cache[entry.key]:
                _log.info("%s, key %s: now %s, measured meanwhile", autotuner, entry.key, config)
                autotuner.cache[entry.key] = config
                replaced += 1
        with self._lock:
            self._waiting = [entry for entry in self._waiting if entry not in done]
        return len(done) + replaced

    def _run(self) -> None:
        pause_s = self._first_s
        while True:
            if self._more.wait(pause_s):
                self._more.clear()
                pause_s = self._first_s
                time.sleep(pause_s)
            pause_s = self._first_s if self.look() else min(2 * pause_s, self._longest_s)


refresher = Refresher()
"""The one of this process."""
