"""Progress of searches on the standard error stream, for those longer than two seconds."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from autotune_rlm.search.tuner import Progress
    from autotune_rlm.store.accuracy import TuningEvent

__all__ = ["Reporter", "duration", "final_line", "progress_line"]

_PATIENCE_S = 2.0  # shorter searches print nothing
_EVERY_S = 10.0  # seconds between lines where the stream is not a terminal


class Reporter:
    """Shows the progress of searches: a line that changes on a terminal, else a line now and then.

    Args:
        console: Where to write; None for the standard error stream.
        quiet: Whether to write nothing.
    """

    def __init__(self, *, console: Console | None = None, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet

    @contextlib.contextmanager
    def search(self) -> Iterator[_Line]:
        """One search: call what this gives after each measurement, and ``done`` with its event."""
        line = _Line(None if self._quiet else self._console or _stderr())
        try:
            yield line
        finally:
            line.close()


class _Line:
    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._status: contextlib.AbstractContextManager | None = None
        self._begin = self._last = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, progress: Progress) -> None:
        """Take what a search says of itself."""
        now = time.monotonic()
        if self._console is None or now - self._begin < _PATIENCE_S or progress.stop is not None:
            return
        with self._lock:
            if self._console.is_terminal:
                self._update(progress_line(progress))
            elif now - self._last >= _EVERY_S:
                self._last = now
                self._console.print(progress_line(progress), soft_wrap=True, highlight=False)

    def done(self, event: TuningEvent) -> None:
        """The search is over."""
        self.close()
        if self._console is not None and event.n_measured and event.total_s >= _PATIENCE_S:
            self._console.print(final_line(event), soft_wrap=True, highlight=False)

    def close(self) -> None:
        """Take the changing line away."""
        with self._lock:
            if self._status is not None:
                self._status.__exit__(None, None, None)
                self._status = None

    def _update(self, text: str) -> None:
        from rich.status import Status
        from rich.text import Text

        assert self._console is not None
        if self._status is None:
            self._status = Status(Text(text), console=self._console)
            self._status.__enter__()
        else:
            self._status.update(Text(text))  # type: ignore[attr-defined]


def progress_line(progress: Progress) -> str:
    """The progress of a search, in one line."""
    text = (
        f"autotune_rlm: tuning {progress.task.kernel} on {progress.task.device.name}: "
        f"{progress.measured} of {progress.planned} measured, {duration(progress.seconds)}"
    )
    best = progress.best.measurement.value if progress.best is not None else None
    return text if best is None else f"{text}, best {_value(best, progress.task.metric)}"


def final_line(event: TuningEvent) -> str:
    """The result and the cost of a search, in one line."""
    text = (
        f"autotune_rlm: {event.kernel} on {event.device}: {event.n_measured} of "
        f"{event.n_candidates:,} configurations measured in {duration(event.total_s)}"
    )
    if event.best_value is not None:
        text += f", best {_value(event.best_value, event.metric)}"
    if event.saved_s >= 1.0:
        text += f"; measuring all would have taken about {duration(event.saved_s)} more"
    return text


def duration(seconds: float) -> str:
    """Seconds in a suitable unit."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _value(value: float, metric: str) -> str:
    """A value with its unit: times in us, ms or s, others as they are."""
    name, _, unit = metric.rpartition("_")
    if unit == "ms" and name:
        for limit, factor, shown in ((0.1, 1e3, "us"), (1e3, 1.0, "ms")):
            if value < limit:
                return f"{value * factor:.3g} {shown}"
        return f"{value / 1e3:.3g} s"
    return f"{value:.4g} {unit if name else metric}"


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False)
