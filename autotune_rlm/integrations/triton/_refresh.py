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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune_rlm._forks import ForkSafeLock

_log = logging.getLogger(__name__)
_FIRST_S = 5.0
_MAX_S = 300.0


@dataclass(frozen=True)
class Later:
    """Looks for something better than a predicted choice."""

    best: Callable[[], Any]  # the best measured configuration, or None as long as there is none
    store: Any = None  # where it is looked up, by the task's key; None where not in a ``Store``
    task_key: str = ""


@dataclass(eq=False)
class _Waiting:
    autotuner: weakref.ref[Any]
    key: tuple[Any, ...]
    later: Later
    is_new: bool = True

    def has_news(self, news: Mapping[int, set[str]]) -> bool:
        """Whether something was measured since the last look, by the ``id`` of stores."""
        measured = news.get(id(self.later.store))
        return self.is_new or measured is None or self.later.task_key in measured


class Refresher:
    """Replaces predicted choices by measured ones; each look that finds nothing doubles the pause."""

    def __init__(self, first_s: float = _FIRST_S, longest_s: float = _MAX_S) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._waiting: list[_Waiting] = []
        self._lock = ForkSafeLock()
        self._more = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = 0
        self._marks: dict[int, int] = {}

    def add(self, autotuner: Any, key: tuple[Any, ...], later: Later) -> None:
        """Watch a key of the ``cache`` of an autotuner, which is not kept alive."""
        with self._lock:
            if self._process != os.getpid():  # a fork has no thread
                self._thread, self._process = None, os.getpid()
            self._waiting.append(_Waiting(weakref.ref(autotuner), key, later))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="autotune_rlm-refresh", daemon=True
                )
                self._thread.start()
        self._more.set()

    def look(self) -> int:
        """Look once; returns how many choices were replaced or need no watching any more.

        A replaced choice is watched on: the search that it comes from may not have ended. A store is
        asked once for what was measured since the last look, and then for those problems alone.
        """
        done: set[_Waiting] = set()
        replaced = 0
        waiting = list(self._waiting)
        news = self._news(waiting)
        for entry in waiting:
            autotuner = entry.autotuner()
            if autotuner is None or entry.key not in autotuner.cache:
                done.add(entry)
                continue
            if not entry.has_news(news):
                continue
            entry.is_new = False
            try:
                config = entry.later.best()
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

    def _news(self, waiting: Sequence[_Waiting]) -> dict[int, set[str]]:
        stores = {id(w.later.store): w.later.store for w in waiting}
        news: dict[int, set[str]] = {}
        for name, store in stores.items():
            if store is not None and hasattr(store, "measured_since"):
                self._marks[name], news[name] = store.measured_since(self._marks.get(name, 0))
        return news

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
