"""Regret over the number of measurements, of our order and of a random one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from autotune_rlm.store.accuracy import TuningEvent

_MAX_COUNT = 64
_MAX_RUNS = 2000
_MAX_REGRET = 1e12


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Mean regret after 1, 2, ... measurements, as a fraction of the best that was measured.

    ``random`` is expected, had the same candidates been measured in random order. That flatters random
    search: candidates that nobody measured are not drawn.
    """

    ours: tuple[float, ...]  # in the order in which candidates were measured
    random: tuple[float, ...]
    runs: int  # that it is the mean of
    full: float  # mean number of candidates


def regret_curve(events: Sequence[TuningEvent]) -> Curve | None:
    """The mean curve of the latest runs that measured two working candidates or more, or None.

    Left out are runs whose best is zero or whose worst is over 1e12 times as far off as the best
    is large: a fraction of such a best says nothing, and one would drown the mean of all others.
    """
    ours, random, full = [], [], []
    for event in events[-_MAX_RUNS:]:
        values = _losses(event)
        if values is None:
            continue
        length = min(_MAX_COUNT, len(values))
        best = np.minimum.accumulate(values)[:length]
        ours.append(best)
        random.append(expected_best(values, length))
        full.append(event.n_candidates)
    if not ours:
        return None
    return Curve(ours=_mean(ours), random=_mean(random), runs=len(ours), full=float(np.mean(full)))


def expected_best(losses: np.ndarray, most: int | None = None) -> np.ndarray:
    """Expected smallest of k of n values drawn without replacement, for k = 1 to ``most`` (all n)."""
    ordered = np.sort(losses)
    n = len(ordered)
    k = np.arange(1, min(most or n, n) + 1)[:, None]
    rank = np.arange(n)[None, :]
    # P(the value of this rank is the smallest of k drawn) = C(n - 1 - rank, k - 1) / C(n, k)
    left = n - rank - k
    log = gammaln(n - rank) - gammaln(k) - gammaln(np.maximum(left, 0) + 1)
    log -= gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return np.where(left >= 0, np.exp(log), 0.0) @ ordered


def _losses(event: TuningEvent) -> np.ndarray | None:
    """Regret of each measured candidate in order; a failed one counts as the worst that worked."""
    measured = [p.value for p in event.points if not p.reused and p.status != "skipped"]
    known = np.array([v for v in measured if v is not None], dtype=np.float64)
    if len(known) < 2 or len(measured) > 10_000:
        return None
    best = known.min() if event.minimize else known.max()
    sign = 1.0 if event.minimize else -1.0
    with np.errstate(all="ignore"):
        loss = sign * (known - best) / abs(best)
    worst = loss.max()
    if not worst <= _MAX_REGRET:  # infinite and not a number, too
        return None
    found = iter(loss)
    return np.array([worst if v is None else next(found) for v in measured])[: 4 * _MAX_COUNT]


def _mean(curves: Sequence[np.ndarray]) -> tuple[float, ...]:
    length = max(map(len, curves))
    padded = [np.append(c, np.full(length - len(c), c[-1])) for c in curves]
    return tuple(np.mean(padded, axis=0).tolist())
