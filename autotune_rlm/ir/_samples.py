"""The programs and iterations that stand for all of a launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._values import NAN

SAMPLES = 64
MAX_TRIPS = 2.0**40
# fractional parts of multiples of powers of this number fill a cube evenly; M. Roberts, "The
# unreasonable effectiveness of quasirandom sequences" (2018)
_GOLDEN = 1.1673039782614187  # of x**6 = x + 1


def samples(grid: tuple[int, int, int]) -> tuple[list[Any], list[Any]]:
    """Program ids, and iterations as shares of a loop, for each sample; the corners are among them."""
    j = np.arange(SAMPLES)
    cube = [_strata(np.modf(0.5 + j * _GOLDEN ** -(d + 1))[0]) for d in range(6)]
    programs = grid[0] * grid[1] * grid[2]
    if programs <= SAMPLES:
        linear = j * programs // SAMPLES
        ids = [linear % grid[0], linear // grid[0] % grid[1], linear // (grid[0] * grid[1])]
    else:
        ids = [np.floor(cube[d] * grid[d]) for d in range(3)]
    for d in range(3):
        ids[d] = ids[d].astype(float)
        ids[d][0], ids[d][-1] = 0.0, grid[d] - 1.0
    random = cube[3:]
    for shares in random:
        shares[0], shares[-1] = 0.0, 1.0 - 1e-9
    return ids, random


def _strata(shares: Any) -> Any:
    """The shares in their order, one in the middle of each of as many strata; the corners apart."""
    inner = shares[1:-1].argsort().argsort()
    return np.concatenate([[0.0], (inner + 0.5) / len(inner), [0.0]])


def stands_for(grid: tuple[int, int, int]) -> Any:
    """Weights of the samples, one on average: the corners stand for themselves alone."""
    weights = np.ones(SAMPLES)
    weights[[0, -1]] = min(1.0, SAMPLES / (grid[0] * grid[1] * grid[2]))
    return weights * (SAMPLES / weights.sum())


def first_failure(holds: Callable[[Any], Any]) -> Any:
    """The first iteration at which a condition fails, by sample; NaN where that is not known."""
    zero = np.zeros(SAMPLES)
    first = zero + holds(zero)
    high = zero + 1.0
    going = np.where(np.isnan(zero + holds(high)), NAN, zero + holds(high)) > 0.5
    while np.any(going) and high.max() < MAX_TRIPS:
        high = np.where(going, high * 2, high)
        going = going & ((zero + holds(high)) > 0.5)
    low = np.floor(high / 2)
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        still = (zero + holds(middle)) > 0.5
        low, high = np.where(still, middle, low), np.where(still, high, middle)
    trips = np.where(first > 0.5, high, 0.0)
    return np.where(np.isnan(first) | (high >= MAX_TRIPS), NAN, trips)
