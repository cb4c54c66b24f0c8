"""Training of the compiler's eye: boosted trees over facts, with a listwise loss.

A landscape and a winner are both lists. Of a landscape all times are known: the loss is the
cross-entropy between the softmax of the predicted and of the measured logarithms (ListNet, Cao et
al., ICML 2007), and a squared error of what is left after each list's mean is taken off. Of a winner
only the first is known: its share of the softmax is one, less what near misses get.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from autotune_rlm.devices import lookup
from autotune_rlm.ir import CONSTANTS, INPUTS, time_us
from autotune_rlm.surrogate.eye import WORST, Eye
from autotune_rlm.surrogate.trees import Trees

__all__ = ["SPREADS", "RankedList", "fit_eye", "fit_slowdown"]

SPREADS = (0.21, 0.17, 0.32, 0.76)
"""``Eye.spreads`` by the errors on families and devices that were left out: ``judge_eye.py --widths``."""

_TEMPERATURE = 0.2
"""Of the softmax, on the logarithm of a time: 20 % slower is e times less likely to be the best."""
_LISTWISE = 0.6
_MAX_LENGTH = 32
_SEEDS = 3
_ROUNDS = 160
_SETTINGS: dict[str, Any] = {
    "max_depth": 4,
    "eta": 0.05,
    "subsample": 0.7,
    "colsample_bytree": 0.6,
    "min_child_weight": 2,
    "nthread": 1,
    "base_score": 0.0,
    "tree_method": "hist",
}


@dataclass(frozen=True, eq=False)
class RankedList:
    """Candidates of one task that compete.

    Attributes:
        family: Kernel; what is left out at once.
        device: Its name.
        kind: ``known.kind_of`` the candidates.
        columns: ``eye.columns``, (n, c).
        inputs: What ``ir.time_us`` needs, (n, len(ir.INPUTS)).
        log_time: Logarithm of each time in ms, NaN where it failed; None for a winner's list.
        share: Of a winner's list, how much of being the best each has, (n,).
    """

    family: str
    device: str
    kind: str
    columns: np.ndarray
    inputs: np.ndarray
    log_time: np.ndarray | None = None
    share: np.ndarray | None = None

    def expected(self, constants: Mapping[str, float] = CONSTANTS) -> np.ndarray:
        """Logarithm of the time in ms that each is likely to take, (n,)."""
        inputs = dict(zip(INPUTS, self.inputs.T, strict=True))
        return np.asarray(np.log(time_us(inputs, constants) / 1e3))


class _Joined(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    """Logarithm of the slow-down; 0 in winners' lists."""
    share: np.ndarray
    timed: np.ndarray
    group: np.ndarray
    expected: np.ndarray


def fit_eye(
    lists: Sequence[RankedList],
    *,
    spreads: tuple[float, float, float, float] = SPREADS,
    seeds: int = _SEEDS,
    rounds: int = _ROUNDS,
) -> Eye:
    """Fit all trees of a checkpoint.

    Args:
        lists: What to learn from.
        seeds: Ensembles whose mean is taken.
        rounds: Trees of each.
        spreads: See ``Eye.spreads``.
    """
    joined = _join(lists)
    return Eye(
        slowdown=Trees.from_xgboost(fit_slowdown(joined, seeds=seeds, rounds=rounds)),
        works=Trees.from_xgboost([_fit_works(lists)]),
        plain=Trees.from_xgboost([_fit_plain(joined)]),
        spreads=spreads,
        scales=_scales(lists),
        kinds=_kinds(lists),
    )


def fit_slowdown(
    data: _Joined | Sequence[RankedList], *, seeds: int = _SEEDS, rounds: int = _ROUNDS
) -> list[Any]:
    """Boosters whose mean predicts the logarithm of the slow-down, up to a constant of the list."""
    import xgboost

    joined = data if isinstance(data, _Joined) else _join(data)
    matrix = xgboost.DMatrix(joined.x, label=joined.y, base_margin=joined.expected)
    objective = _objective(joined)
    return [
        xgboost.train({**_SETTINGS, "seed": seed}, matrix, rounds, obj=objective)
        for seed in range(seeds)
    ]


def _join(lists: Sequence[RankedList]) -> _Joined:
    """Lists one after the other, long ones in parts; each part counts as much."""
    rng = np.random.default_rng(0)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, bool, np.ndarray]] = []
    for one in lists:
        expected = one.expected()
        if one.log_time is None:
            assert one.share is not None
            nothing = np.zeros(len(one.share))
            share = one.share / one.share.sum()
            parts.append((one.columns, nothing, share, False, expected))
            continue
        ok = np.flatnonzero(np.isfinite(one.log_time))
        if len(ok) < 2:
            continue
        y = np.minimum(one.log_time[ok] - one.log_time[ok].min(), WORST)
        pieces = -(-len(ok) // _MAX_LENGTH)
        for piece in np.array_split(rng.permutation(len(ok)), pieces if pieces > 2 else 1):
            x, values = one.columns[ok[piece]], y[piece]
            soft = np.exp(-(values - values.min()) / _TEMPERATURE)
            soft /= soft.sum()
            parts.append((x, values, soft, True, expected[ok[piece]]))
    sizes = [len(p[0]) for p in parts]
    return _Joined(
        np.concatenate([p[0] for p in parts]),
        np.concatenate([p[1] for p in parts]),
        np.concatenate([p[2] for p in parts]),
        np.repeat([p[3] for p in parts], sizes),
        np.repeat(np.arange(len(parts)), sizes),
        np.concatenate([p[4] for p in parts]),
    )


def _objective(data: _Joined) -> Callable[[np.ndarray, Any], tuple[np.ndarray, np.ndarray]]:
    groups = int(data.group.max()) + 1
    size = np.bincount(data.group, minlength=groups)
    centred = data.y - _mean(data.y, data.group, size)[data.group]
    listwise = np.where(data.timed, _LISTWISE, 1.0)

    def objective(predicted: np.ndarray, _: Any) -> tuple[np.ndarray, np.ndarray]:
        likely = _softmax(-predicted / _TEMPERATURE, data.group, groups)
        residual = predicted - _mean(predicted, data.group, size)[data.group] - centred
        slope = listwise * (data.share - likely) + 0.5 * (1 - listwise) * residual
        curve = np.maximum(likely * (1 - likely) / _TEMPERATURE, 1e-3)
        return slope, listwise * curve + 0.5 * (1 - listwise)

    return objective


def _mean(values: np.ndarray, group: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.bincount(group, values, len(size)) / size


def _softmax(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    top = np.full(groups, -np.inf)
    np.maximum.at(top, group, values)
    e = np.exp(values - top[group])
    return e / np.bincount(group, e, groups)[group]


def _fit_plain(data: _Joined) -> Any:
    import xgboost

    x, y = data.x[data.timed], data.y[data.timed]
    settings = {**_SETTINGS, "min_child_weight": 10}
    return xgboost.train(settings, xgboost.DMatrix(x, label=y), _ROUNDS)


def _fit_works(lists: Sequence[RankedList]) -> Any:
    import xgboost

    timed = [one for one in lists if one.log_time is not None]
    x = np.concatenate([one.columns for one in timed])
    times = [one.log_time for one in timed if one.log_time is not None]
    works = np.isfinite(np.concatenate(times))
    settings = {**_SETTINGS, "objective": "binary:logistic", "max_depth": 4, "base_score": 0.5}
    return xgboost.train(settings, xgboost.DMatrix(x, label=works), 60)


def _kinds(lists: Sequence[RankedList]) -> tuple[str, ...]:
    """The kinds of kernels that were timed on devices of several architectures."""
    targets: defaultdict[str, set[str]] = defaultdict(set)
    for one in lists:
        if one.log_time is not None:
            targets[one.kind].add(lookup(one.device).target)
    return tuple(sorted(kind for kind, on in targets.items() if len(on) > 1))


def _scales(lists: Sequence[RankedList]) -> dict[str, float]:
    """By kind and device, the mean over families of the logarithm of measured over expected times."""
    errors: defaultdict[str, defaultdict[str, list[float]]]
    errors = defaultdict(lambda: defaultdict(list))
    for one in lists:
        if one.log_time is not None and np.isfinite(one.log_time).any():
            error = float(np.nanmedian(one.log_time - one.expected()))
            errors[f"{one.kind} on {one.device}"][one.family].append(error)
    return {
        name: float(np.mean([np.median(x) for x in families.values()]))
        for name, families in sorted(errors.items())
    }
