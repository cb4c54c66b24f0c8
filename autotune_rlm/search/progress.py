"""Progress of searches on the standard error stream, for those longer than two seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune_rlm.formats import measured, seconds
from autotune_rlm.progress import ProgressLine

if TYPE_CHECKING:
    from autotune_rlm.search.tuner import Progress
    from autotune_rlm.store.accuracy import TuningEvent

__all__ = ["Reporter", "final_line", "progress_line"]

_PATIENCE_S = 2.0  # shorter searches have no final line


class Reporter(ProgressLine):
    """Shows the progress of a search: a line that changes on a terminal, else a line now and then.

    ``Tuner.tune`` calls it after each measurement.
    """

    def __call__(self, progress: Progress) -> None:  # type: ignore[override]
        """Take what a search says of itself."""
        if progress.stop is None:
            super().__call__(progress_line(progress))

    def done(self, event: TuningEvent) -> None:
        """The search is over."""
        self.close()
        if event.n_measured and event.total_s >= _PATIENCE_S:
            self.print(final_line(event))


def progress_line(progress: Progress) -> str:
    """The progress of a search, in one line."""
    text = (
        f"autotune_rlm: tuning {progress.task.kernel} on {progress.task.device.name}: "
        f"{progress.measured} of {progress.planned} measured, {seconds(progress.seconds)}"
    )
    best = progress.best.measurement.value if progress.best is not None else None
    return text if best is None else f"{text}, best {measured(best, progress.task.metric)}"


def final_line(event: TuningEvent) -> str:
    """The result and the cost of a search, in one line."""
    text = (
        f"autotune_rlm: {event.kernel} on {event.device}: {event.n_measured} of "
        f"{event.n_candidates:,} configurations measured in {seconds(event.total_s)}"
    )
    if event.best_value is not None:
        text += f", best {measured(event.best_value, event.metric)}"
    if event.saved_s >= 1.0:
        text += f"; measuring all would have taken about {seconds(event.saved_s)} more"
    return text
