"""A search space as columns of numbers: Optuna's distributions to the Gaussian process."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autotune_rlm.learn.gaussian_process import Points

__all__ = ["Encoding", "extend"]

_FINE = 33  # a grid of more values than this is treated as continuous and rounded


class _Parameter:
    """One parameter. Its *raw* value is a grid index, or a number in [0, 1] where continuous."""

    def __init__(self, distribution: BaseDistribution) -> None:
        self.distribution = distribution
        self.choices: Sequence[Any] | None = None
        self.unordered = False
        self.scale = np.zeros(0)
        if isinstance(distribution, CategoricalDistribution):
            self.choices = distribution.choices
            order = _numeric_order(distribution.choices)
            self.unordered = order is None
            self.scale = np.zeros(len(distribution.choices)) if order is None else order
        elif isinstance(distribution, (IntDistribution, FloatDistribution)):
            self.choices = _grid(distribution)
            if self.choices is not None:
                self.scale = np.array([self._unit(v) for v in self.choices])
        else:
            raise ValueError(f"distribution {distribution!r} is of a kind that RLMSampler lacks")

    @property
    def size(self) -> int:
        """Number of values; 0 where continuous."""
        return 0 if self.choices is None else len(self.choices)

    def raw(self, value: Any) -> float:
        if self.choices is None:
            return float(np.clip(self._unit(value), 0.0, 1.0))
        if isinstance(self.distribution, CategoricalDistribution):
            return float(self.distribution.to_internal_repr(value))
        return float(np.argmin(np.abs(self.scale - self._unit(value))))

    def value(self, raw: float) -> Any:
        if self.choices is not None:
            return self.choices[round(raw)]
        d = self.distribution
        assert isinstance(d, (IntDistribution, FloatDistribution))
        low, high = self._bounds()
        x = low + float(np.clip(raw, 0.0, 1.0)) * (high - low)
        x = math.exp(x) if d.log else x
        if d.step is not None:
            x = d.low + round((x - d.low) / d.step) * d.step
        x = min(max(x, d.low), d.high)
        return round(x) if isinstance(d, IntDistribution) else float(x)

    def _bounds(self) -> tuple[float, float]:
        d = self.distribution
        assert isinstance(d, (IntDistribution, FloatDistribution))
        low, high = float(d.low), float(d.high)
        if d.step is not None and (isinstance(d, IntDistribution) or not d.log):
            half = 0.5 * d.step
            low, high = low - half, high + half
        return (math.log(low), math.log(high)) if d.log else (low, high)

    def _unit(self, value: Any) -> float:
        d = self.distribution
        low, high = self._bounds()
        x = math.log(value) if d.log else float(value)  # type: ignore[attr-defined]
        return (x - low) / (high - low) if high > low else 0.5


def _numeric_order(choices: Sequence[Any]) -> np.ndarray | None:
    """Positions in [0, 1] of categories that are all numbers; None for names."""
    plain = all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in choices)
    if not plain or len(set(choices)) < len(choices) or len(choices) < 3:
        return None
    return np.argsort(np.argsort(choices)) / (len(choices) - 1)


def _grid(distribution: IntDistribution | FloatDistribution) -> list[Any] | None:
    """All values of a coarse stepped range; None for a fine or continuous one."""
    step = distribution.step
    if step is None:
        return None
    count = math.floor((distribution.high - distribution.low) / step + 1e-9) + 1
    if count > _FINE:
        return None
    values = [distribution.low + i * step for i in range(count)]
    if isinstance(distribution, IntDistribution):
        return [int(v) for v in values]
    return [min(float(v), distribution.high) for v in values]


class Encoding:
    """A search space: parameters to raw vectors, and raw vectors to points.

    A raw vector has one number per parameter, shape (d,): the index on its grid, or its place in
    [0, 1] (on the logarithm where the distribution is logarithmic).

    A named category is a one-hot block; a number is one column; numbers given as categories are
    both, so that the process finds out whether their order means anything.

    Args:
        search_space: Distributions by name.
        valid: Whether parameters go together; all do by default.
        sample: Draws valid parameters; by default each parameter is drawn uniformly.
    """

    def __init__(
        self,
        search_space: Mapping[str, BaseDistribution],
        *,
        valid: Callable[[Mapping[str, Any]], bool] | None = None,
        sample: Callable[[np.random.Generator], Mapping[str, Any]] | None = None,
    ) -> None:
        self._valid, self._sample = valid, sample
        self.names = list(search_space)
        self._parameters = [_Parameter(d) for d in search_space.values()]
        self.sizes = np.array([p.size for p in self._parameters], dtype=int)
        self.unordered = np.array([p.unordered for p in self._parameters], dtype=bool)
        spread, linear = [], []
        group = effect = 0
        for p in self._parameters:
            if not p.unordered:
                spread.append(group)
                group += 1
                linear += [effect, effect]
                effect += 1
            if isinstance(p.distribution, CategoricalDistribution):
                spread += [group] * p.size
                group += 1
                linear += [effect] * p.size
                effect += 1
        self._spread_groups = np.array(spread, dtype=int)
        self._linear_groups = np.array(linear, dtype=int)
        self.groups = (group, effect)

    @property
    def cardinality(self) -> float:
        """How many combinations there are; infinite where a parameter is continuous."""
        return math.inf if (self.sizes == 0).any() else float(np.prod(self.sizes, dtype=float))

    def raw(self, params: Mapping[str, Any]) -> np.ndarray:
        """The raw vector of parameters, shape (d,)."""
        pairs = zip(self._parameters, self.names, strict=True)
        return np.array([p.raw(params[name]) for p, name in pairs])

    def params(self, raw: np.ndarray) -> dict[str, Any]:
        """The parameters of a raw vector, as Python scalars."""
        triples = zip(self.names, self._parameters, raw, strict=True)
        return {name: p.value(float(r)) for name, p, r in triples}

    def snap(self, raw: np.ndarray) -> np.ndarray:
        """Raw vectors moved to values that the distributions hold, shape (m, d)."""
        raw = np.array(raw, dtype=float)
        for i, p in enumerate(self._parameters):
            if p.size:
                raw[:, i] = np.clip(np.rint(raw[:, i]), 0, p.size - 1)
            else:
                raw[:, i] = np.clip(raw[:, i], 0.0, 1.0)
                if getattr(p.distribution, "step", None) is not None:
                    raw[:, i] = [p.raw(p.value(x)) for x in raw[:, i]]
        return raw

    def valid(self, raw: np.ndarray) -> np.ndarray:
        """Mask of the raw vectors whose parameters go together, shape (m,)."""
        if self._valid is None:
            return np.ones(len(raw), dtype=bool)
        return np.array([self._valid(self.params(row)) for row in raw], dtype=bool)

    def random(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """Draw n valid raw vectors, shape (n, d)."""
        if self._sample is not None:
            source = np.random.default_rng(rng.randint(2**31 - 1))
            return np.array([self.raw(self._sample(source)) for _ in range(n)])
        u = rng.random_sample((n, len(self.sizes)))
        return np.where(self.sizes > 0, np.floor(u * np.maximum(self.sizes, 1)), u)

    def points(self, raw: np.ndarray) -> Points:
        """Columns of raw vectors of shape (m, d)."""
        spread: list[np.ndarray] = []
        linear: list[np.ndarray] = []
        for i, p in enumerate(self._parameters):
            column = raw[:, i]
            if not p.unordered:
                u = p.scale[column.astype(int)] if p.size else column
                spread.append(u[:, None])
                linear.append(np.column_stack([2.0 * u - 1.0, 6.0 * (u - 0.5) ** 2 - 0.5]))
            if isinstance(p.distribution, CategoricalDistribution):
                hot = np.eye(p.size)[column.astype(int)]
                spread.append(hot * math.sqrt(0.5))
                linear.append(hot - 1.0 / p.size)
        return Points(
            np.hstack(spread), np.hstack(linear), self._spread_groups, self._linear_groups
        )


def extend(points: Points, columns: np.ndarray, *, distance: bool = True) -> Points:
    """Points with standardised columns added as one linear group and one group of distances."""
    if not columns.shape[1]:
        return points
    unit = columns / np.sqrt(columns.shape[1])
    group = int(points.linear_groups.max()) + 1 if len(points.linear_groups) else 0
    spread, spread_groups = points.spread, points.spread_groups
    if distance:
        spread = np.hstack([spread, 0.5 * unit])
        near = int(spread_groups.max()) + 1 if len(spread_groups) else 0
        spread_groups = np.append(spread_groups, np.full(columns.shape[1], near))
    return Points(
        spread,
        np.hstack([points.linear, unit]),
        spread_groups,
        np.append(points.linear_groups, np.full(columns.shape[1], group)),
    )
