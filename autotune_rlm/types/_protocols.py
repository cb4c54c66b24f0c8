"""What predicts and what measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from autotune_rlm.types._measurement import Measurement, Observation
from autotune_rlm.types._prediction import Prediction
from autotune_rlm.types._task import Candidate, Task

__all__ = ["DecodesSequences", "Measurer", "Parallel", "Preparing", "Simulated", "Surrogate"]


@runtime_checkable
class Surrogate(Protocol):
    """A cost model: text in, numbers out.

    An instance is deterministic for its seed and what it learned, never raises on odd text, and
    may be called from several threads.
    """

    def predict(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        *,
        observed: Sequence[Observation] = (),
    ) -> Prediction:
        """Predict the task's metric for each candidate, given this task's observations."""
        ...


@runtime_checkable
class DecodesSequences(Surrogate, Protocol):
    """A ``Surrogate`` that decodes several targets of the same candidates one after the other."""

    @property
    def longest_sequence(self) -> int:
        """The most targets in one sequence; 1 where its weights were not trained on any."""
        ...

    def predict_several(
        self, tasks: Sequence[Task], candidates: Sequence[Candidate]
    ) -> list[Prediction]:
        """Predict each target, conditioned on the decoded values of the targets before it."""
        ...


@runtime_checkable
class Measurer(Protocol):
    """Runs candidates. Yields one measurement per candidate, in order, failures included."""

    def measure(
        self, task: Task, candidates: Iterable[Candidate]
    ) -> Iterator[tuple[Candidate, Measurement]]:
        """Yield ``(candidate, measurement)`` for each candidate as it is done; never raises."""
        ...


@runtime_checkable
class Preparing(Measurer, Protocol):
    """A ``Measurer`` that can do part of the work ahead, such as compiling in other processes."""

    def prepare(self, task: Task, candidates: Sequence[Candidate]) -> None:
        """Start preparing candidates that may be measured soon, the most likely first; never waits.

        Each call replaces the list of the call before: candidates not begun by then are dropped.
        """
        ...

    def is_ready(self, candidate: Candidate) -> bool:
        """Whether the candidate's preparation is complete."""
        ...


@runtime_checkable
class Simulated(Measurer, Protocol):
    """A ``Measurer`` whose costs are simulated seconds; they count beside those of the wall clock.

    Attributes:
        clock_s: Simulated seconds spent so far.
    """

    clock_s: float


@runtime_checkable
class Parallel(Measurer, Protocol):
    """A ``Measurer`` with several workers, which takes the next candidate when a worker is free.

    It takes no candidate earlier, so each is chosen with every measurement finished by then.
    """

    @property
    def workers(self) -> int:
        """How many candidates are measured at the same time at most."""
        ...
