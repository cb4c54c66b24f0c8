"""What a tuning method sees of a search, and what it has to answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from autotune_rlm.landscapes import Landscape
from autotune_rlm.learn.columns import encode_configs
from autotune_rlm.types import Candidate, Measurement, Observation, Task

__all__ = ["Method", "NotApplicableError", "Search"]


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
        """The method's own source of randomness."""
        return np.random.default_rng([self.seed, 1])

    def unmeasured(self, measured: Mapping[int, Measurement]) -> np.ndarray:
        """Indices of the candidates that are not in ``measured``."""
        mask = np.ones(len(self.candidates), dtype=bool)
        mask[list(measured)] = False
        return np.flatnonzero(mask)

    def observations(self, measured: Mapping[int, Measurement]) -> list[Observation]:
        """``measured`` as observations."""
        return [Observation(self.candidates[i], m) for i, m in measured.items()]


class Method(ABC):
    """Chooses what to measure next in one search. Subclasses answer ``suggest``."""

    def __init__(self, search: Search) -> None:
        self.search = search

    def round_size(self, n_measured: int) -> int:
        """How many suggestions are asked for at once after ``n_measured`` measurements."""
        return 1

    @abstractmethod
    def suggest(self, measured: Mapping[int, Measurement], n: int) -> list[int]:
        """Up to ``n`` distinct unmeasured candidates, the most wanted first.

        Args:
            measured: Measurements so far by index of the candidate, in the order of measuring.
            n: How many are wanted.
        """

    def zero_shot(self) -> np.ndarray | None:
        """Predicted value of every candidate before anything was measured; None without a model."""
        return None
