"""Compiling ahead of measuring: neither waits for the other while there is work for both."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

T = TypeVar("T")


def ahead(
    items: Iterable[T],
    start: Callable[[T], Any],
    *,
    most: int,
    deadline: float = float("inf"),
    instead: Callable[[Future[Any], T], Any] = lambda future, item: None,
) -> Iterator[tuple[T, Any]]:
    """Yield ``(item, result)``, what is ready first; ``start`` gives a future, or what is known at once.

    Whenever one is asked for, as many are started that ``most`` are on their way or ready, so that
    an endless list of items works and a search that ends early leaves little behind. After ``deadline``
    (of ``time.monotonic``) nothing is waited for. ``instead`` is asked before, with each future and its
    item: it gives the result where it can be made here, else None.
    """
    source = iter(items)
    pending: dict[Future[Any], T] = {}
    ready: deque[tuple[T, Any]] = deque()
    more = True

    def take_done() -> None:
        for future in [f for f in pending if f.done()]:
            ready.append((pending.pop(future), future.result()))

    try:
        while True:
            while more and len(pending) + len(ready) < most:
                try:
                    item = next(source)
                except StopIteration:
                    more = False
                    break
                started = start(item)
                if isinstance(started, Future):
                    pending[started] = item
                else:
                    ready.append((item, started))
            take_done()
            if not ready:
                made = ((f, i, instead(f, i)) for f, i in pending.items())
                for future, item, result in made:
                    if result is not None:
                        del pending[future]
                        ready.append((item, result))
                        break
            if pending and not ready:
                left = deadline - time.monotonic()
                timeout = None if left == float("inf") else max(left, 0.0)
                wait(pending, timeout=timeout, return_when=FIRST_COMPLETED)
                take_done()
            if not ready:
                return
            yield ready.popleft()
            if time.monotonic() > deadline:
                return
    finally:
        for future in pending:
            future.cancel()
