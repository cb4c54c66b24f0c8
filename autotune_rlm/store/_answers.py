"""What a store answers with, beside the nouns of all parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotune_rlm.types import Candidate, Observation, Task

__all__ = ["Recall", "Request"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A problem that was met where nothing could be measured, for a later benchmark.

    Attributes:
        task: The problem.
        candidates: What there was to choose from.
        uses: How often it was noted.
        first: Seconds since the epoch when it was first noted.
        last: The same for the last time.
        workload: How to run the candidates (``measure.Workload`` as JSON); None where that
            was not noted, and nobody else can.
        obstacle: Why they cannot be run elsewhere, where that was noted.
    """

    task: Task
    candidates: tuple[Candidate, ...]
    uses: int
    first: float
    last: float
    workload: Mapping[str, Any] | None = None
    obstacle: str = ""


@dataclass(frozen=True, kw_only=True)
class Recall:
    """What a store knows that bears on a task.

    Attributes:
        own: Observations of the task itself, one per candidate.
        failed: Candidates whose very binaries are known not to compile or to fit, from other tasks.
        alike: Tasks whose choice may be taken over, nearest first, with their observations: all is
            equal but sizes, and those differ by a factor of two at most.
        has_near: Whether another problem of the kernel was measured on this device.
    """

    own: tuple[Observation, ...] = ()
    failed: tuple[Observation, ...] = ()
    alike: tuple[tuple[Task, tuple[Observation, ...]], ...] = ()
    has_near: bool = False
