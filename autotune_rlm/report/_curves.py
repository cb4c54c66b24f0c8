"""Regret over the number of measurements, of our order and of a random one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune_rlm.accuracy import TuningEvent

__all__ = ["Curve", "expected_best", "regret_curve"]

_MOST = 64


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Mean regret after 1, 2, ... measurements, as a fraction of the best that was measured.

    Attributes:
        ours: In the order in which candidates were measured.
        random: Expected, had the same candidates been measured in random order. That flatters
            random search: candidates that nobody measured are not drawn.
        runs: Runs that it is the mean of.
        full: Mean number of candidates, which a full search measures.
    """

    ours: tuple[float, ...]
    random: tuple[float, ...]
    runs: int
    full: float


def regret_curve(events: Sequence[TuningEvent]) -> Curve | None:
    """The mean curve of the runs that measured at least two working candidates; None without."""
    ours, random, full = [], [], []
    for event in events:
        values = _losses(event)
        if values is None:
            continue
        length = min(_MOST, len(values))
        best = np.minimum.accumulate(values)[:length]
        ours.append(best)
        random.append(expected_best(values)[:length])
        full.append(event.n_candidates)
    if not ours:
        return None
    longest = max(map(len, ours))
    return Curve(
        ours=_mean(ours, longest),
        random=_mean(random, longest),
        runs=len(ours),
        full=float(np.mean(full)),
    )


def expected_best(losses: np.ndarray) -> np.ndarray:
    """Expected smallest of k values drawn without replacement, for k = 1 to n; shape (n,)."""
    ordered = np.sort(losses)
    n = len(ordered)
    means = np.empty(n)
    for k in range(1, n + 1):
        # P(the i-th smallest of n is the smallest of k drawn) = C(n - i, k - 1) / C(n, k)
        weights = np.zeros(n)
        weights[0] = k / n
        for i in range(1, n - k + 1):
            weights[i] = weights[i - 1] * (n - i - k + 1) / (n - i)
        means[k - 1] = weights @ ordered
    return means


def _losses(event: TuningEvent) -> np.ndarray | None:
    """Regret of each measured candidate in order; a failed one counts as the worst that worked."""
    measured = [p.value for p in event.points if not p.reused and p.status != "skipped"]
    known = np.array([v for v in measured if v is not None], dtype=np.float64)
    if len(known) < 2 or len(measured) > 10_000:
        return None
    best = known.min() if event.minimize else known.max()
    if best == 0:
        return None
    sign = 1.0 if event.minimize else -1.0
    loss = sign * (known - best) / abs(best)
    worst = loss.max()
    found = iter(loss)
    return np.array([worst if v is None else next(found) for v in measured])[: 4 * _MOST]


def _mean(curves: Sequence[np.ndarray], length: int) -> tuple[float, ...]:
    padded = [np.append(c, np.full(length - len(c), c[-1])) for c in curves]
    return tuple(float(x) for x in np.mean(padded, axis=0))
