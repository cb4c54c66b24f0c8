"""Linear algebra on one thread: for a few hundred rows, threads only wait for each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]


@cache
def _controller() -> ThreadpoolController:
    """Of the libraries that are loaded by the first call; finding them takes milliseconds."""
    return ThreadpoolController()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run the block with BLAS on one thread."""
    with _controller().limit(limits=1, user_api="blas"):
        yield
