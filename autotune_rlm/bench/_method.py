"""What a tuning method sees of a search, and what it has to answer."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from autotune_rlm.landscapes import Landscape
from autotune_rlm.learn.columns import encode_configs
from autotune_rlm.measure.replay import ReplayMeasurer
from autotune_rlm.types import Candidate, Measurement, Task


class NotApplicableError(Exception):
    """The method has nothing to say about this landscape; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search as a method sees it: no values, and candidates in an order that tells nothing.

    Attributes:
        task: What is tuned.
        candidates: The n candidates, shuffled by the seed.
        seed: Seeds all that the method draws.
        train: Landscapes that were known before, for methods that look problems up.
        load_surrogate: Gives the surrogate, for methods that ask it.
    """

    task: Task
    candidates: Sequence[Candidate]
    seed: int
    train: Sequence[Landscape] = ()
    load_surrogate: Callable[[], Any] | None = field(default=None, repr=False)

    @cached_property
    def features(self) -> np.ndarray:
        """The candidates as numbers, shape (n, columns)."""
        return encode_configs([c.config for c in self.candidates])

    @cached_property
    def rng(self) -> np.random.Generator:
        """The method's own source of randomness, another one for each task."""
        return np.random.default_rng([self.seed, 1, int(self.task.key, 16)])

    def unmeasured(self, measured: Mapping[int, Measurement]) -> np.ndarray:
        """Indices of the candidates that are not in ``measured``."""
        mask = np.ones(len(self.candidates), dtype=bool)
        mask[list(measured)] = False
        return np.flatnonzero(mask)


@dataclass(frozen=True)
class Step:
    """One measurement of a search.

    Attributes:
        place: Which candidate.
        measurement: What it gave.
        seconds: Simulated seconds since the start, the method's own included.
    """

    place: int
    measurement: Measurement
    seconds: float


class Method(ABC):
    """One search of a tuning method."""

    stop: str | None = None
    """Why it ended by itself; None where it did not."""

    def __init__(self, search: Search) -> None:
        self.search = search

    @abstractmethod
    def run(self, replay: ReplayMeasurer, limit: int) -> Iterator[Step]:
        """Search until ``limit`` candidates are measured or it ends by itself."""

    def zero_shot(self) -> np.ndarray | None:
        """Predicted value of every candidate before anything was measured; None without a model."""
        return None


class Stepwise(Method):
    """Asks for a few candidates after each measurement. Subclasses answer ``suggest``."""

    at_once = 1
    """How many suggestions are asked for at once."""

    def run(self, replay: ReplayMeasurer, limit: int) -> Iterator[Step]:
        measured: dict[int, Measurement] = {}
        thinking_s = 0.0
        while len(measured) < limit:
            begin = time.perf_counter()
            wanted = min(self.at_once, limit - len(measured))
            chosen = self.suggest(measured, wanted)
            thinking_s += time.perf_counter() - begin
            fresh = [i for i in dict.fromkeys(chosen) if i not in measured][:wanted]
            if not fresh:
                return
            batch = [self.search.candidates[i] for i in fresh]
            for i, (_, found) in zip(fresh, replay.measure(self.search.task, batch), strict=True):
                measured[i] = found
                yield Step(i, found, replay.clock_s + thinking_s)

    @abstractmethod
    def suggest(self, measured: Mapping[int, Measurement], n: int) -> list[int]:
        """Up to ``n`` distinct unmeasured candidates, the most wanted first.

        Args:
            measured: Measurements so far by index of the candidate, in the order of measuring.
            n: How many are wanted.
        """


class Ordered(Stepwise):
    """Measures in an order that no measurement changes. Subclasses give ``order``."""

    at_once = 1024

    @abstractmethod
    def order(self) -> np.ndarray:
        """Indices of all candidates, the most wanted first."""

    def suggest(self, measured: Mapping[int, Measurement], n: int) -> list[int]:
        return [i for i in self._order if i not in measured][:n]

    @cached_property
    def _order(self) -> list[int]:
        return self.order().tolist()
