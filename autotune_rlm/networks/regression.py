"""Predicts a measured value of networks from few of them: closed form, for spaces never seen too.

A Gaussian process over a network's choices, how often each choice occurs, and its fields. What other
tables know enters as trends: the same column of the same space, other columns of the same space
(other devices), or what fields meant in other spaces. A surrogate's word may be one more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from autotune_rlm.learn.gaussian_process import GaussianProcess, Points, fit
from autotune_rlm.learn.prior_mean import differences, extend
from autotune_rlm.learn.transform import PowerTransform, standardised
from autotune_rlm.networks.fields import FIELDS

if TYPE_CHECKING:
    from autotune_rlm.landscapes.architectures import ArchitectureTable
    from autotune_rlm.networks.spaces import ArchitectureSpace

_TRAVELS = (  # fields whose meaning carries over from other spaces
    "parameters",
    "macs",
    "activation_bytes",
    "depth",
    "path_mean",
    "path_max",
    "path_min",
    "paths",
)
_MAX_EXACT = 2000  # networks that the trend of the same column is conditioned on
_MAX_RELATED = 600  # and those of any other column
_DISTANCE = 0.3  # scale of trends as columns that distances are taken of
_NOISE = 1e-2
_MIN_WITH = 2  # networks, and one in 200 of them, that must have something for it to be counted
_COLUMN_SUFFICES = 100  # networks of the same column that say more than a surrogate
_RIDGE, _MIN_ERROR, _CAUTION = 0.3, 0.02, 0.3
_SURROGATE_LEAD = (0.8, 10.0)  # trust in a surrogate that was trained on networks, and its inertia


def encode_networks(
    space: ArchitectureSpace,
    configs: Sequence[Mapping[str, Any]],
    fields: Sequence[Mapping[str, float]],
) -> Points:
    """Columns of n networks of a space, by their configurations and ``networks.network_fields``.

    Each parameter spreads with a length of its own, ordered ones as numbers. Linear effects: every
    choice, the number of times each choice occurs among parameters with the same choices, the
    logarithms of the fields, and what the space counts (paths through a cell).
    """
    spread: list[np.ndarray] = []
    groups: list[int] = []
    hot: list[np.ndarray] = []
    alike: dict[tuple[Any, ...], list[np.ndarray]] = {}
    for group, (name, values) in enumerate(space.parameters.items()):
        index = np.array([values.index(c[name]) for c in configs], dtype=int)
        chosen = np.eye(len(values))[index]
        ordered = len(values) > 2 and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) for v in values
        )
        spread.append((index / (len(values) - 1))[:, None] if ordered else chosen * np.sqrt(0.5))
        groups += [group] * spread[-1].shape[1]
        hot.append(chosen - 1.0 / len(values))
        alike.setdefault(tuple(values), []).append(chosen)
    counts = [np.sum(blocks, axis=0) for blocks in alike.values() if len(blocks) > 1]
    number = _standard(np.hstack(counts)) if counts else np.zeros((len(configs), 0))
    cost = _standard(np.log1p([[f[name] for name in FIELDS] for f in fields]))
    main = np.hstack(hot)
    main /= max(float(np.sqrt((main**2).sum(1).mean())), 1e-9)
    paths = _counted([space.counts(c) for c in configs])
    linear = [main, number / np.sqrt(max(number.shape[1], 1)), cost / 2.0, paths]
    linear_groups = np.repeat(np.arange(4), [block.shape[1] for block in linear])
    next_group = len(space.parameters)
    spread += [0.3 * cost, 0.3 * number, 0.5 * paths]
    groups += list(range(next_group, next_group + cost.shape[1]))
    groups += [next_group + cost.shape[1]] * number.shape[1]
    groups += [next_group + cost.shape[1] + 1] * paths.shape[1]
    _, linear_groups = np.unique(linear_groups, return_inverse=True)
    _, spread_groups = np.unique(groups, return_inverse=True)
    return Points(np.hstack(spread), np.hstack(linear), spread_groups, linear_groups)


def _counted(counts: Sequence[Mapping[str, int]]) -> np.ndarray:
    """Centred counts (n, k) of what enough of the networks have, of mean squared length 1."""
    total = Counter(name for count in counts for name in count)
    enough = max(_MIN_WITH, len(counts) // 200)
    names = sorted(name for name, with_it in total.items() if with_it >= enough)
    columns = np.array([[c.get(name, 0) for name in names] for c in counts], dtype=float)
    columns = columns.reshape(len(counts), len(names))
    columns = columns - columns.mean(0)
    length = float(np.sqrt((columns**2).sum(1).mean()))
    return columns[:, columns.any(0)] / max(length, 1e-9)


def _standard(columns: np.ndarray) -> np.ndarray:
    deviation = columns.std(0)
    live = deviation > 1e-9
    return (columns[:, live] - columns[:, live].mean(0)) / deviation[live]


@dataclass(frozen=True)
class Source:
    """One column of a table that is known before: its networks' values lead the prediction."""

    table: ArchitectureTable
    column: str


@dataclass(frozen=True)
class FewShot:
    """A fitted predictor of one column of one table, for all its n networks.

    ``related`` are standardised trends of other columns, (n, k); their mean is in the trend, and is
    weighed anew by how well each tells the shots.
    """

    points: Points
    trend: np.ndarray  # standardised prediction before any shot, (n,); zeros: nothing is known
    trust: float  # weight of the trend
    inertia: float  # shots at which their correction of the trend gets half its weight
    related: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    lead: np.ndarray | None = None  # what else is in the trend, standardised, (n,)

    def predict(self, shots: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Score and its standard deviation for all n networks, given the values of the rows ``shots``.

        Scores rise with the value; they are on the scale of the values where there are shots.
        """
        if len(shots) < 2:
            return self.trend, np.full(len(self.trend), 1.0)
        scale = PowerTransform(np.asarray(values, dtype=float))
        targets = scale.normal
        prior = self.trust * self._trend_given(shots, targets)
        prior = prior - prior[shots].mean()
        process = fit(self.points.take(shots), targets - prior[shots], noise=_NOISE, max_fit=300)
        mean, deviation = process.predict(self.points)
        mean = prior + mean * len(shots) / (len(shots) + self.inertia)
        middle = scale.back(mean)
        return middle, np.maximum(scale.back(mean + deviation) - middle, 1e-12)

    def _trend_given(self, shots: np.ndarray, targets: np.ndarray) -> np.ndarray:
        if self.related.shape[1] < 2:
            return self.trend
        mean = standardised(self.related @ _alike(self.related[shots], targets))
        return mean if self.lead is None else standardised((mean + self.lead) / 2)


def _alike(trends: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Weights (k,) of trends by how well each tells the targets, shapes (s, k) and (s,).

    Those of Gaussian likelihoods of one-dimensional ridge regressions, made cautious: 10 shots say
    little of which of 30 devices a new one is like.
    """
    x, y = trends - trends.mean(0), targets - targets.mean()
    slope = np.maximum(x.T @ y / ((x**2).sum(0) + _RIDGE), 0.0)
    error = ((y[:, None] - slope * x) ** 2).mean(0) + _MIN_ERROR
    weight = (error / error.min()) ** (-0.5 * _CAUTION * len(targets))
    return weight / weight.sum()


def few_shot(
    table: ArchitectureTable,
    column: str,
    sources: Sequence[Source] = (),
    *,
    lead: np.ndarray | None = None,
) -> FewShot:
    """A predictor of ``column`` for the networks of ``table``.

    Args:
        table: The networks; their own values are not looked at.
        column: The target.
        sources: Columns of other tables, measured before.
        lead: What a surrogate expects of each network, shape (n,), rising with the value. Not
            heard where a source knows at least 100 networks of this space and column.
    """
    points = encode_networks(table.space, table.configs, table.fields)
    trends, trust, inertia = _trends(table, column, sources)
    means: list[np.ndarray] = []
    heard: np.ndarray | None = None
    if trends.size:
        means.append(standardised(np.mean(standardised(trends).T, axis=0)))
        points = with_trends(points, trends)
    if lead is not None and not _known_well(table, column, sources):
        heard = standardised(np.asarray(lead, dtype=float))
        means.append(heard)
        points = with_trends(points, heard[:, None])
        trust, inertia = max(trust, _SURROGATE_LEAD[0]), max(inertia, _SURROGATE_LEAD[1])
    if not means:
        means.append(standardised(np.log1p([f["macs"] for f in table.fields])))
    trend = standardised(np.mean(means, axis=0))
    return FewShot(points, trend, trust, inertia, trends, heard)


def _known_well(table: ArchitectureTable, column: str, sources: Sequence[Source]) -> bool:
    known = [s for s in _of_space(table, sources) if s.column == column]
    return sum(int(np.isfinite(s.table.target(column)).sum()) for s in known) >= _COLUMN_SUFFICES


def _of_space(table: ArchitectureTable, sources: Sequence[Source]) -> list[Source]:
    return [s for s in sources if s.table.space.name == table.space.name]


def _trends(
    table: ArchitectureTable, column: str, sources: Sequence[Source]
) -> tuple[np.ndarray, float, float]:
    """Trends (n, k) that the best of the sources tell, how far to trust them, and their inertia."""
    same = _of_space(table, sources)
    if exact := [s for s in same if s.column == column]:
        trend = np.mean([_transfer(table, s, _MAX_EXACT) for s in exact], axis=0)
        return trend[:, None], 0.95, 100.0
    if related := [s for s in same if _accuracy(s.column) == _accuracy(column)]:
        trends = [standardised(_transfer(table, s, _MAX_RELATED)) for s in related]
        return np.column_stack(trends), 0.95, 3.0
    if foreign := [s for s in sources if _accuracy(s.column) == _accuracy(column)]:
        trend = np.mean([standardised(_by_cost(table, s)) for s in foreign], axis=0)
        return trend[:, None], 0.4, 2.0
    return np.zeros((len(table), 0)), 0.3, 2.0


def with_trends(points: Points, trends: np.ndarray) -> Points:
    """Points with what other models say of them, shape (n, k), as inputs of one common weight.

    Several trends become the principal components of how they differ from their mean, in their own
    proportions: what separates known devices is what a new one may differ in.
    """
    return extend(points, differences(standardised(trends)), distance=_DISTANCE)


def _transfer(table: ArchitectureTable, source: Source, most: int) -> np.ndarray:
    """What a process on a column of the same space says of the table's networks, shape (n,)."""
    rows = _subset(source, most)
    known = source.table.take(rows)
    together = encode_networks(
        table.space, [*known.configs, *table.configs], [*known.fields, *table.fields]
    )
    targets = PowerTransform(known.target(source.column)).normal
    train = np.arange(len(known))
    process: GaussianProcess = fit(together.take(train), targets, noise=_NOISE, max_fit=most // 4)
    return process.predict(together.take(np.arange(len(known), len(together))))[0]


def _subset(source: Source, most: int) -> np.ndarray:
    """Up to ``most`` rows that have a value, the same ones for all columns as far as possible."""
    order = np.random.default_rng(0).permutation(len(source.table))
    known = np.isfinite(source.table.target(source.column))
    return np.sort(order[known[order]][:most])


def _by_cost(table: ArchitectureTable, source: Source) -> np.ndarray:
    """Ridge regression on standardised fields, learned in another space, shape (n,)."""
    rows = _subset(source, _MAX_RELATED)
    known = source.table.take(rows)

    def columns(t: ArchitectureTable) -> np.ndarray:
        logs = np.log1p([[f[name] for name in _TRAVELS] for f in t.fields])
        z = (logs - logs.mean(0)) / np.maximum(logs.std(0), 1e-9)
        return np.hstack([z, np.minimum(z, 0.0)])

    x, y = columns(known), PowerTransform(known.target(source.column)).normal
    weights = np.linalg.solve(x.T @ x + 0.1 * len(x) * np.eye(x.shape[1]), x.T @ y)
    return columns(table) @ weights


def _accuracy(column: str) -> bool:
    from autotune_rlm.landscapes.architectures import maximised

    return maximised(column) and "throughput" not in column.lower()
