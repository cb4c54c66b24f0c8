"""Statistics of timings that assume nothing of their distribution.

Run times have long tails and several modes, so everything here rests on order statistics and signs:
the interval of the median (Conover, Practical Nonparametric Statistics, ch. 3), a stopping rule on
it, dropping of the hopeless, and a race of the finalists by paired sign tests. Looking at the data
again and again while they grow would spoil the stated confidence; each look therefore gets its
share of the error probability (``1 / (k (k + 1))`` of it for look k).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import special

from autotune_rlm._checks import check_number


@dataclass(frozen=True)
class Interval:
    """A median with an interval that covers the true one.

    Attributes:
        median: Of the samples.
        low: Lower end; the smallest sample where there are too few for the confidence.
        high: Upper end.
        confidence: Probability of covering, which is at least what was asked for where the number
            of samples allows it (6 for 95 %).
    """

    median: float
    low: float
    high: float
    confidence: float

    @property
    def half_width(self) -> float:
        """The larger distance from the median to an end, relative to the median."""
        if self.median == 0:
            return 0.0 if self.low == self.high else float("inf")
        return max(self.high - self.median, self.median - self.low) / abs(self.median)


def median_interval(samples: Sequence[float] | np.ndarray, *, confidence: float = 0.95) -> Interval:
    """The median of ``samples`` and its interval by order statistics.

    Args:
        samples: At least one number.
        confidence: Wanted probability that the interval covers the true median.

    Raises:
        ValueError: There is no sample, or one is not finite, or the confidence is not in (0, 1).
    """
    values = np.sort(np.asarray(samples, dtype=np.float64))
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"samples must be a list of finite numbers, got {samples!r}")
    rank, covered = _rank(len(values), _checked(confidence))
    return Interval(
        float(np.median(values)), float(values[rank]), float(values[-1 - rank]), covered
    )


@dataclass(frozen=True, kw_only=True)
class StoppingRule:
    """When there are enough samples of one candidate.

    Attributes:
        relative: Wanted half width of the interval, relative to the median.
        confidence: Of that interval.
        min_samples: Never fewer than these.
        max_samples: Never more than these.
    """

    relative: float = 0.01
    confidence: float = 0.95
    min_samples: int = 7
    max_samples: int = 1000

    def __post_init__(self) -> None:
        _checked(self.confidence)
        check_number("relative", self.relative, least=0)
        check_number("max_samples", self.max_samples, least=1, whole=True)
        check_number("min_samples", self.min_samples, least=1, most=self.max_samples, whole=True)

    def enough(self, samples: Sequence[float] | np.ndarray) -> bool:
        """Whether to stop sampling."""
        if len(samples) < self.min_samples:
            return False
        if len(samples) >= self.max_samples:
            return True
        interval = median_interval(samples, confidence=self.confidence)
        return interval.confidence >= self.confidence and interval.half_width <= self.relative


def is_hopeless(
    samples: Sequence[float] | np.ndarray,
    best: float,
    *,
    factor: float = 3.0,
    confidence: float = 0.99,
    look: int = 1,
) -> bool:
    """Whether a candidate's median is above ``factor`` times the best one, with ``confidence``.

    The chance that a candidate whose true median is at most ``factor * best`` is dropped at any of
    the looks 1, 2, 3, ... is at most ``1 - confidence``, whatever the distribution. A single look
    needs 8 samples at 99 %.
    """
    check_number("factor", factor, least=1)
    error = (1 - _checked(confidence)) / (look * (look + 1))
    values = np.asarray(samples, dtype=np.float64)
    above = int(np.count_nonzero(values > factor * best))
    return len(values) > 0 and _sign_tail(above, len(values)) <= error


@dataclass
class RaceResult:
    """How a race ended.

    Attributes:
        order: Indices from the best to the worst: those still in the race by their medians, then
            the eliminated ones, the last eliminated first.
        samples: Samples of each candidate, in the order in which they were taken.
        undecided: How many of the first of ``order`` were never told apart from the winner.
        runs: Samples taken in all.
    """

    order: list[int] = field(default_factory=list)
    samples: list[list[float]] = field(default_factory=list)
    undecided: int = 0
    runs: int = 0


def race(
    n: int,
    sample: Callable[[int], float],
    *,
    confidence: float = 0.95,
    tolerance: float = 0.01,
    min_rounds: int | None = None,
    max_rounds: int = 64,
    max_runs: int | None = None,
    start: Sequence[Sequence[float]] | None = None,
) -> RaceResult:
    """Find the candidate with the smallest median in as few runs as it takes.

    Candidates are sampled in turn, round by round, so that a drift of the clock hits all of them
    alike. After ``min_rounds`` rounds and each time they have grown by half, every candidate is
    compared with the leader by a paired sign test over the rounds that both ran; the significantly
    slower ones leave. The race ends when one is left, or the rest agree within ``tolerance``, or the
    rounds or runs are spent.

    Args:
        n: Number of candidates.
        sample: Runs candidate i once and gives its time; may raise ``StopIteration`` to end the
        race.
        confidence: Probability that the true best is not eliminated.
        tolerance: Relative difference of medians that does not matter.
        min_rounds: Rounds before the first look; None for as many as it takes to eliminate a
            candidate that was slower in each of them (6 for two candidates, 12 for 64).
        max_rounds: Rounds at most.
        max_runs: Samples at most, in all; None for no limit.
        start: Samples that were taken before, by candidate, as interleaved rounds; they count.

    Raises:
        ValueError: There is no candidate.
    """
    check_number("n", n, least=1, whole=True)
    error = (1 - _checked(confidence)) / max(n - 1, 1)
    taken: list[list[float]] = [list(s) for s in start] if start else [[] for _ in range(n)]
    alive, out = list(range(n)), list[int]()
    runs, look = 0, 0
    next_look = min_rounds or max(6, math.ceil(math.log2(2 / error)))
    rounds = min((len(s) for s in taken), default=0)
    try:
        while len(alive) > 1 and rounds < max_rounds:
            for index in alive:
                if max_runs is not None and runs >= max_runs:
                    raise StopIteration
                taken[index].append(sample(index))
                runs += 1
            rounds += 1
            if rounds < next_look:
                continue
            look += 1
            next_look = max(rounds + 1, rounds * 3 // 2)
            leader = min(alive, key=lambda i: np.median(taken[i]))
            losers = [
                i
                for i in alive
                if i != leader and _slower(taken[i], taken[leader], error / (look * (look + 1)))
            ]
            losers.sort(key=lambda i: -float(np.median(taken[i])))
            out = losers[::-1] + out
            alive = [i for i in alive if i not in losers]
            if all(_same(taken[i], taken[leader], tolerance) for i in alive):
                break
    except StopIteration:
        pass
    known = [i for i in alive if taken[i]]
    order = sorted(known, key=lambda i: float(np.median(taken[i])))
    order += [i for i in alive if not taken[i]] + out
    return RaceResult(order=order, samples=taken, undecided=len(alive), runs=runs)


def _slower(samples: list[float], leader: list[float], error: float) -> bool:
    both = min(len(samples), len(leader))
    difference = np.asarray(samples[-both:]) - np.asarray(leader[-both:])
    above, below = int(np.sum(difference > 0)), int(np.sum(difference < 0))
    return above + below > 0 and _sign_tail(above, above + below) <= error


def _same(samples: list[float], leader: list[float], tolerance: float) -> bool:
    both = min(len(samples), len(leader))
    ratio = np.asarray(samples[-both:]) / np.asarray(leader[-both:])
    interval = median_interval(ratio)
    return interval.low >= 1 - tolerance and interval.high <= 1 + tolerance


@functools.lru_cache(maxsize=4096)
def _rank(n: int, confidence: float) -> tuple[int, float]:
    """The largest rank r (from 0) whose order statistics r and n-1-r cover the median enough."""
    below = special.bdtr(np.arange(n), n, 0.5)
    rank = max(int(np.count_nonzero(1 - 2 * below >= confidence)) - 1, 0)
    return rank, float(max(0.0, 1 - 2 * below[rank]))


@functools.lru_cache(maxsize=4096)
def _sign_tail(above: int, n: int) -> float:
    """Probability of at least ``above`` of ``n`` fair coins."""
    return float(special.bdtr(n - above, n, 0.5))


def _checked(confidence: float) -> float:
    check_number("confidence", confidence, above=0, below=1)
    return confidence
