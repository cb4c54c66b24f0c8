"""Recorded landscapes answer instead of hardware, on a simulated clock."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

from autotune_rlm._checks import check_number, check_type
from autotune_rlm.landscapes import Landscape
from autotune_rlm.types import Candidate, Measurement, Status, Task

_SECONDS = {"time_ms": 1e-3, "time_us": 1e-6, "time_s": 1.0}


class ReplayMeasurer:
    """Answers from a record what hardware would have said, and what asking would have cost.

    A candidate costs its recorded ``cost_s`` where there is one, otherwise its compile seconds, and
    ``repeats`` runs where it worked and the metric is a time. The costs add up in ``clock_s``.

    Compilations that were begun ahead (``prepare``) run on simulated workers while others are
    measured; one that is asked for before it is done is waited for.

    Args:
        landscape: The record.
        repeats: Runs that one measurement takes where the record does not say what it cost.
        workers: Compilations at a time; 0 compiles each candidate when it is measured.

    Attributes:
        clock_s: Simulated seconds spent so far.

    Raises:
        ValueError: ``repeats`` is below 1, or ``workers`` below 0.
    """

    def __init__(self, landscape: Landscape, *, repeats: int = 32, workers: int = 0) -> None:
        check_type("landscape", landscape, Landscape)
        check_number("repeats", repeats, least=1, whole=True)
        check_number("workers", workers, least=0, whole=True)
        self._workers = workers
        self._done: dict[str, tuple[float, float]] = {}  # begin and end of what was begun
        self.landscape = landscape
        self.repeats = repeats
        self.clock_s = 0.0
        self._by_key = {o.candidate.key: o.measurement for o in reversed(landscape.observations)}

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
            _, ready = self._done.pop(candidate.key, (0.0, None))
            if ready is None:
                self.clock_s += cost_s
            else:
                self.clock_s = max(self.clock_s, ready) + cost_s - (recorded.compile_s or 0.0)
            yield candidate, dataclasses.replace(recorded, cost_s=cost_s)

    def prepare(self, task: Task, candidates: Sequence[Candidate]) -> None:
        """Begin to compile candidates, the first first, as far as workers are free for them."""
        wanted = {c.key for c in candidates}
        for key, (begin, _) in list(self._done.items()):
            if begin > self.clock_s and key not in wanted:
                del self._done[key]
        never = (math.inf, math.inf)
        waiting = [c.key for c in candidates if self._done.get(c.key, never)[0] > self.clock_s]
        running = [end for begin, end in self._done.values() if begin <= self.clock_s < end]
        free = sorted([*running, *[self.clock_s] * max(0, self._workers - len(running))])
        for key in waiting if free else ():
            recorded = self._by_key.get(key)
            begin = free.pop(0)
            end = begin + ((recorded.compile_s or 0.0) if recorded else 0.0)
            self._done[key] = (begin, end)
            free = sorted([*free, end])

    def is_ready(self, candidate: Candidate) -> bool:
        """Whether its simulated compilation is done."""
        return self._done.get(candidate.key, (0.0, math.inf))[1] <= self.clock_s

    def cost_s(self, measurement: Measurement) -> float:
        """Seconds that taking ``measurement`` costs."""
        if measurement.cost_s:
            return measurement.cost_s
        unit = _SECONDS.get(self.landscape.task.metric, 0.0)
        run_s = unit * (measurement.value or 0.0) * self.repeats
        return (measurement.compile_s or 0.0) + run_s
