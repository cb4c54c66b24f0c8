"""Notes of what is about to run in the user's process, and searches that believe no old failure."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from autotune_rlm.measure.errors import Fault, Owner, failed
from autotune_rlm.types import Candidate, Observation, Status, Task

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def noted(store: Any, task: Task) -> Iterator[Callable[[Candidate], None]]:
    """Gives what is to be called before each candidate runs: should it end the process, that is known.

    A candidate that ended a process before without a word is kept as crashed, and a warning says so.
    """
    if not hasattr(store, "begin"):
        yield lambda candidate: None
        return
    works = True

    def attempt(action: Callable[..., Any], *args: Any) -> Any:
        nonlocal works
        if not works:
            return ()
        try:
            return action(*args)
        except Exception as error:
            works = False
            _log.debug("what is tried is not noted: %s", error)
            return ()

    for lost in attempt(store.interrupted, task):
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(lost.when))
        reason = f"{lost.process} ended without a word while it ran, at {when}"
        _log.warning(
            "%s with %s is left out for a day: %s; `autotune-rlm store clear --kernel %s` forgets that",
            task.kernel,
            dict(lost.candidate.config),
            reason,
            task.kernel,
        )
        fault = Fault(Status.CRASHED, reason, owner=Owner.LAUNCH)
        attempt(store.add, task, lost.candidate, failed(fault))
    begun = False

    def begins(candidate: Candidate) -> None:
        nonlocal begun
        begun = True
        attempt(store.begin, task, candidate)

    try:
        yield begins
    finally:
        if begun:
            attempt(store.end, task)


def without_failures(store: Any) -> Any:
    """``store`` as a search sees it that believes no failure of before."""
    return None if store is None else _WithoutFailures(store)


class _WithoutFailures:
    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def observations(self, task: Task) -> list[Observation]:
        """Of the candidates that work."""
        return [o for o in self._store.observations(task) if o.measurement.ok]
