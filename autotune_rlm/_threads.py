"""Linear algebra on one thread: for a few hundred rows, threads only wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

from autotune_rlm._forks import ForkSafeLock

_lock = ForkSafeLock()


@cache
def _controller() -> ThreadpoolController:
    """Of the libraries that are loaded by the first call; finding them takes milliseconds."""
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block with BLAS on one thread.

    The limit is the process's, so that blocks of several threads run one after the other: the end of
    one would lift the limit of another, whose sums would then come in another order.
    """
    with _lock, _controller().limit(limits=1, user_api="blas"):
        yield
