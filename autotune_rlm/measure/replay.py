"""Recorded landscapes answer instead of hardware, on a simulated clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from autotune_rlm.landscapes import Landscape
from autotune_rlm.types import Candidate, Measurement, Status, Task

__all__ = ["ReplayMeasurer"]

_SECONDS = {"time_ms": 1e-3, "time_us": 1e-6, "time_s": 1.0}


class ReplayMeasurer:
    """Answers from a record what hardware would have said, and what asking would have cost.

    A candidate costs its recorded ``cost_s`` where there is one, otherwise its compile seconds, and
    ``repeats`` runs where it worked and the metric is a time. The costs add up in ``clock_s``.

    Args:
        landscape: The record.
        repeats: Runs that one measurement takes where the record does not say what it cost.

    Attributes:
        clock_s: Simulated seconds spent so far.

    Raises:
        ValueError: ``repeats`` is below 1.
    """

    def __init__(self, landscape: Landscape, *, repeats: int = 32) -> None:
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {repeats!r}")
        self.landscape = landscape
        self.repeats = repeats
        self.clock_s = 0.0
        self._by_key = {
            c.key: m
            for c, m in zip(
                reversed(landscape.candidates), reversed(landscape.measurements), strict=True
            )
        }

    def measure(
        self, task: Task, candidates: Iterable[Candidate]
    ) -> Iterator[tuple[Candidate, Measurement]]:
        """Yield the recorded measurement of each candidate; ``skipped`` where none is recorded."""
        for candidate in candidates:
            recorded = self._by_key.get(candidate.key)
            if recorded is None:
                reason = f"not in the recorded landscape {self.landscape.id}"
                yield candidate, Measurement(status=Status.SKIPPED, reason=reason)
                continue
            cost_s = self.cost_s(recorded)
            self.clock_s += cost_s
            yield candidate, dataclasses.replace(recorded, cost_s=cost_s)

    def cost_s(self, measurement: Measurement) -> float:
        """Seconds that taking ``measurement`` costs."""
        if measurement.cost_s:
            return measurement.cost_s
        unit = _SECONDS.get(self.landscape.task.metric, 0.0)
        run_s = unit * (measurement.value or 0.0) * self.repeats
        return (measurement.compile_s or 0.0) + run_s
