"""One line on the standard error stream that says how far something long has come."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from autotune_rlm._closing import Closing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_PATIENCE_S = 2.0  # what takes less shows nothing
_EVERY_S = 10.0  # seconds between lines where the stream is not a terminal


class ProgressLine(Closing):
    """A line that changes on a terminal; elsewhere a line now and then. Also a context manager.

    Args:
        total: What ``done`` runs to, for a bar and the time that is left; None for a line alone.
        every_s: Seconds between lines where the stream is not a terminal.
        console: Where to write; None for the standard error stream.
        quiet: Whether to write nothing.
    """

    def __init__(
        self,
        *,
        total: float | None = None,
        every_s: float = _EVERY_S,
        console: Console | None = None,
        quiet: bool = False,
    ) -> None:
        if console is None and not quiet:
            from rich.console import Console

            console = Console(stderr=True, markup=False, highlight=False)
        self._console = None if quiet else console
        self._total, self._every_s = total, every_s
        self._bar: Progress | None = None
        self._begin = self._last = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, text: str, done: float | None = None) -> None:
        """Say how far it is: in words, and as a part of ``total``."""
        now = time.monotonic()
        if self._console is None or now - self._begin < _PATIENCE_S:
            return
        with self._lock:
            if self._console.is_terminal:
                bar = self._bar = self._bar or self._started()
                bar.update(bar.task_ids[0], completed=done, description=text)
            elif now - self._last >= self._every_s:
                self._last = now
                self.print(text)

    def print(self, text: str) -> None:
        """Write a line that stays."""
        if self._console is not None:
            self._console.print(text, soft_wrap=True, highlight=False)

    def close(self) -> None:
        """Take the changing line away."""
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def _started(self) -> Progress:
        from rich import progress

        text = progress.TextColumn("{task.description}", markup=False)
        columns: tuple[progress.ProgressColumn, ...] = (progress.SpinnerColumn(), text)
        if self._total is not None:
            columns = (progress.BarColumn(24), text, progress.TimeRemainingColumn())
        bar = progress.Progress(
            *columns, console=self._console, transient=True, refresh_per_second=4
        )
        bar.add_task("", total=self._total)
        bar.start()
        return bar
