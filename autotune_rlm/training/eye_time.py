"""Fits the constants of ``ir.time_us`` to lists of candidates whose order, or whose best, is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from autotune_rlm.ir import INPUTS, time_us
from autotune_rlm.surrogate.eye import WORST
from autotune_rlm.training.eye import RankedList

__all__ = ["PLAUSIBLE", "fit_time"]

PLAUSIBLE: dict[str, float] = {
    **dict.fromkeys(("products", "async_products"), 1.4),
    **dict.fromkeys(("operands", "async_operands", "staged", "special", "issue", "l2"), 1.0),
    **{"memory": 1.2, "cached": 0.6, "runs": 0.1},
    **{"alone": 0.7, "warps": 0.5, "more_warps": 0.3, "spills": 1.0},
    **{"load_us": 0.5, "wait_us": 0.15, "unstaged_us": 0.5, "program_us": 1.5},
    **{"unpiped_us": 0.6, "barrier_us": 0.15, "shuffles": 40.0, "atomics": 10.0, "serial": 0.4},
    **{"overlap": 4.0, "hiding": 4.0, "rounds": 0.69},
}
"""What to expect without data: rates a little below the data sheet's, latencies of microbenchmarks."""
_PRIOR = 0.03
"""Weight of a squared natural logarithm away from that. Of 0.002 and 0.03 this ranked left-out families
better: products by constants that were fitted to winners alone."""
_TEMPERATURE, _LISTWISE, _RESIDUAL, _SCALE = 0.2, 0.6, 1.6, 0.05
_MAX_LENGTH, _MAX_LISTS = 32, 120


def fit_time(lists: Sequence[RankedList], *, steps: int = 150, seed: int = 0) -> dict[str, float]:
    """Constants for which the expected times rank the lists best.

    The loss is that of the trees (cross-entropy of two softmaxes, and the squares of what is left after
    each list's mean), a little of the error of each list's mean, and a pull towards ``PLAUSIBLE``.

    Args:
        lists: Of each family at most 120 are used.
        steps: Of Adam.
        seed: Chooses the lists.
    """
    data = _Data(lists, np.random.default_rng(seed))
    start = {name: _to_free(name, value) for name, value in PLAUSIBLE.items()}
    free = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
    optimiser = torch.optim.Adam(free.values(), lr=0.04)
    for _ in range(steps):
        constants = {name: _from_free(name, value) for name, value in free.items()}
        loss = data.loss(torch.log(time_us(data.inputs, constants, torch) / 1e3))
        loss = loss + _PRIOR * sum((free[name] - start[name]) ** 2 for name in free)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {name: float(_from_free(name, value.detach())) for name, value in free.items()}


def _to_free(name: str, value: float) -> float:
    """A constant as a number without bounds: powers of norms are above 1, ``rounds`` is a share."""
    if name == "rounds":
        return float(np.log(value / (1 - value)))
    return float(np.log(value - (name in ("overlap", "hiding"))))


def _from_free(name: str, value: torch.Tensor) -> torch.Tensor:
    if name == "rounds":
        return torch.sigmoid(value)
    return torch.exp(value) + (1.0 if name in ("overlap", "hiding") else 0.0)


class _Data:
    """Lists one after the other as tensors; long ones in parts."""

    def __init__(self, lists: Sequence[RankedList], rng: np.random.Generator) -> None:
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, bool]] = []
        used: Counter[str] = Counter()
        for i in rng.permutation(len(lists)):
            one = lists[i]
            if used[one.family] >= _MAX_LISTS:
                continue
            used[one.family] += 1
            if one.log_time is None:
                assert one.share is not None
                share = one.share / one.share.sum()
                parts.append((one.inputs, np.zeros(len(share)), share, False))
                continue
            ok = np.flatnonzero(np.isfinite(one.log_time))
            if len(ok) < 2:
                continue
            least = one.log_time[ok].min()
            for piece in np.array_split(rng.permutation(ok), -(-len(ok) // _MAX_LENGTH)):
                y = np.minimum(one.log_time[piece], least + WORST)
                soft = np.exp(-(y - y.min()) / _TEMPERATURE)
                parts.append((one.inputs[piece], y, soft / soft.sum(), True))
        columns = np.concatenate([p[0] for p in parts]).T
        self.inputs: Mapping[str, torch.Tensor] = {
            name: torch.tensor(column, dtype=torch.float32)
            for name, column in zip(INPUTS, columns, strict=True)
        }
        self._y, self._share = (
            torch.tensor(np.concatenate([p[i] for p in parts]), dtype=torch.float32) for i in (1, 2)
        )
        sizes = [len(p[0]) for p in parts]
        self._group = torch.tensor(np.repeat(np.arange(len(parts)), sizes))
        self._size = torch.tensor(sizes, dtype=torch.float32)
        self._timed = torch.tensor([float(p[3]) for p in parts])

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(self._size)).index_add_(0, self._group, values)

    def loss(self, log_ms: torch.Tensor) -> torch.Tensor:
        """The mean over the lists, for the logarithm of each expected time."""
        z = -log_ms / _TEMPERATURE
        top = torch.full((len(self._size),), -torch.inf).scatter_reduce(0, self._group, z, "amax")
        total = torch.log(self._sum(torch.exp(z - top[self._group]))) + top
        listwise = self._sum(-self._share * (z - total[self._group]))
        left = log_ms - self._y
        mean = self._sum(left) / self._size
        squares = self._sum((left - mean[self._group]) ** 2) / self._size
        timed = self._timed * (_RESIDUAL * squares + _SCALE * mean.abs())
        share = torch.where(self._timed > 0, _LISTWISE, 1.0)
        return (share * listwise + timed).mean()
