"""A search space as columns of numbers: Optuna's distributions to the Gaussian process."""

from __future__ import annotations

import json
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

from autotune_rlm.integrations.optuna._activity import Rule, learn_rule
from autotune_rlm.learn.gaussian_process import Points

_FINE = 33  # a grid of more values than this is treated as continuous and rounded
_FEW = 16  # categories up to which each has a column of its own; of more, those seen so far


def internal_of(distribution: BaseDistribution, value: Any) -> float | None:
    """A value as storages keep it; None of one that the distribution cannot give.

    Of categories the JSON form counts: a storage gives tuples back as lists, and enums as texts.
    """
    try:
        internal = float(distribution.to_internal_repr(value))
        return internal if distribution._contains(internal) else None
    except (ValueError, TypeError, OverflowError):
        pass
    choices = getattr(distribution, "choices", ())
    form = _json_form(value) if choices else None
    return next((float(i) for i, c in enumerate(choices) if _json_form(c) == form), None)


def _json_form(value: Any) -> str:
    return json.dumps(value, default=repr, skipkeys=True)


class _Parameter:
    """One parameter. Its *raw* value is the index of a category, else a number's place in [0, 1]."""

    def __init__(self, distribution: BaseDistribution) -> None:
        self.distribution = distribution
        self.categorical = isinstance(distribution, CategoricalDistribution)
        self.grid: np.ndarray | None = None  # the raw values, ascending; None: they are too many
        self.count = math.inf
        self.unordered = False  # a category whose values are names
        self.position = np.zeros(0)  # in [0, 1], of each category of numbers
        self._index: dict[Any, float | None] = {}
        if isinstance(distribution, CategoricalDistribution):
            self.grid = np.arange(len(distribution.choices), dtype=float)
            self.count = float(len(distribution.choices))
            order = _numeric_order(distribution.choices)
            self.unordered = order is None
            self.position = np.zeros(0) if order is None else order
            return
        if not isinstance(distribution, (IntDistribution, FloatDistribution)):
            raise ValueError(f"distribution {distribution!r} is of a kind that RLMSampler lacks")
        if distribution.step is not None:
            steps = distribution.high / distribution.step - distribution.low / distribution.step
            if math.isfinite(steps):
                self.count = math.floor(steps + 1e-9) + 1.0
            if self.count <= _FINE:
                values = [distribution.low + i * distribution.step for i in range(int(self.count))]
                self.grid = np.array([self._unit(v) for v in values])

    def raw(self, value: Any) -> float:
        """The raw value; NaN of what the distribution cannot hold in any range."""
        if not self.categorical:  # may be outside of the range
            try:
                return self._unit(self.distribution.to_internal_repr(value))
            except (ValueError, TypeError, OverflowError):
                return math.nan
        try:
            key = (type(value), value)
            if key not in self._index:
                self._index[key] = internal_of(self.distribution, value)
            raw = self._index[key]
        except TypeError:  # an unhashable category
            raw = internal_of(self.distribution, value)
        return math.nan if raw is None else raw

    def value(self, raw: float) -> Any:
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return d.choices[min(max(round(raw), 0), len(d.choices) - 1)]
        assert isinstance(d, (IntDistribution, FloatDistribution))
        low, high = self._bounds()
        u = min(max(float(raw), 0.0), 1.0)
        x = low * (1.0 - u) + high * u
        if d.log:
            x = math.exp(min(x, 709.0))
        if d.step is not None and math.isfinite(steps := x / d.step - d.low / d.step):
            x = d.low + round(steps) * d.step
        if isinstance(d, IntDistribution):
            return min(max(round(x), d.low), d.high)
        return float(min(max(x, d.low), d.high))

    def snap(self, raw: np.ndarray) -> np.ndarray:
        """Raw values (m,) moved to the nearest that the distribution holds."""
        if self.grid is not None:
            if self.categorical:
                return np.clip(np.rint(raw), 0, len(self.grid) - 1)
            middles = (self.grid[1:] + self.grid[:-1]) / 2.0
            return self.grid[np.searchsorted(middles, raw)]
        raw = np.clip(raw, 0.0, 1.0)
        if math.isinf(self.count):
            return raw
        d = self.distribution
        assert isinstance(d, (IntDistribution, FloatDistribution))
        assert d.step is not None
        low, high = self._bounds()
        x = low * (1.0 - raw) + high * raw
        steps = np.rint(((np.exp(x) if d.log else x) - d.low) / d.step)
        value = d.low + np.clip(steps, 0.0, self.count - 1.0) * d.step
        return ((np.log(value) if d.log else value) - low) / (high - low)

    def all(self) -> np.ndarray:
        """The raw values of a number with steps."""
        d = self.distribution
        assert isinstance(d, (IntDistribution, FloatDistribution))
        assert d.step is not None
        return np.array([self._unit(d.low + i * d.step) for i in range(int(self.count))])

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
        half = high / 2.0 - low / 2.0  # of halves, because high - low may be beyond floating point
        return (x / 2.0 - low / 2.0) / half if half > 0.0 else 0.5


def _numeric_order(choices: Sequence[Any]) -> np.ndarray | None:
    """Positions in [0, 1] of categories that are all numbers; None for names."""
    plain = all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in choices)
    if not plain or len(set(choices)) < len(choices) or len(choices) < 3:
        return None
    if any(c != c for c in choices):
        return None
    return np.argsort(np.argsort(choices)) / (len(choices) - 1)


class Encoding:
    """A search space: parameters to raw vectors, and raw vectors to points.

    A raw vector has one number per parameter, shape (d,): the index of a category, or a number's place
    in [0, 1] (on the logarithm where the distribution is logarithmic). NaN stands for a parameter that
    a trial does not have. Of trials under an earlier range, numbers may lie outside of [0, 1].

    A named category is a one-hot block; a number is one column; numbers given as categories are
    both, so that the process finds out whether their order means anything. A parameter that a point
    does not have is in the middle of its range and has no main effect.

    ``valid`` says whether parameters go together; ``sample`` draws some that do.
    """

    def __init__(
        self,
        search_space: Mapping[str, BaseDistribution],
        *,
        valid: Callable[[Mapping[str, Any]], bool] | None = None,
        sample: Callable[[np.random.Generator], Mapping[str, Any]] | None = None,
    ) -> None:
        self._valid, self._sample = valid, sample
        self.space = dict(search_space)
        self.names = list(search_space)
        self._parameters = [_Parameter(d) for d in search_space.values()]
        self.grids = [p.grid for p in self._parameters]
        self.continuous = np.array([g is None for g in self.grids], dtype=bool)
        self.unordered = np.array([p.categorical for p in self._parameters], dtype=bool)
        self._numbers = np.flatnonzero(~self.unordered)
        self._categories = np.flatnonzero(self.unordered)
        self._levels = [
            p.grid if p.categorical and p.grid is not None and len(p.grid) <= _FEW else np.zeros(0)
            for p in self._parameters
        ]
        self._rules: dict[int, Rule] = {}
        self._fixed: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self.names)

    @property
    def cardinality(self) -> float:
        """How many combinations there are; infinite where a parameter is continuous."""
        return math.prod(p.count for p in self._parameters)

    def everything(self, most: int) -> np.ndarray | None:
        """All combinations of a space that share the fixed values; None where there are more."""
        sizes = [1 if i in self._fixed else p.count for i, p in enumerate(self._parameters)]
        if math.prod(sizes) > most or self._sample is not None:
            return None
        axes = [
            np.array([self._fixed[i]])
            if i in self._fixed
            else (p.grid if p.grid is not None else p.all())
            for i, p in enumerate(self._parameters)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))

    def learn(self, raw: np.ndarray, finished: np.ndarray) -> None:
        """Learn which categories all trials (n, d) have, and of finished ones what goes with what."""
        for i, p in enumerate(self._parameters):
            if p.categorical and p.grid is not None and len(p.grid) > _FEW:
                column = raw[:, i]
                self._levels[i] = np.unique(column[~np.isnan(column)])
        absent = np.isnan(finished).any(0) if len(finished) else np.zeros(len(self), dtype=bool)
        self._rules = {
            int(i): learn_rule(finished, int(i), self.unordered) for i in np.flatnonzero(absent)
        }

    @property
    def branches(self) -> int:
        """The most values of a category that others depend on, as far as ``learn`` found; or 0."""
        parents = {rule.parent for rule in self._rules.values() if rule.parent is not None}
        grids = [self.grids[i] for i in parents if self.unordered[i]]
        return max((len(grid) for grid in grids if grid is not None), default=0)

    def fix(self, params: Mapping[str, Any]) -> None:
        """Have all candidates take these values (``Study.enqueue_trial`` of some parameters)."""
        pairs = zip(self.names, self._parameters, strict=True)
        raw = {i: p.raw(params[n]) for i, (n, p) in enumerate(pairs) if n in params}
        self._fixed = {i: value for i, value in raw.items() if not math.isnan(value)}

    def fix_raw(self, values: Mapping[int, float]) -> None:
        """Have all candidates take these raw values, too, by index of the parameter."""
        self._fixed = {**values, **self._fixed}

    @property
    def pinned(self) -> dict[int, float]:
        """The fixed categories, by index."""
        return {i: value for i, value in self._fixed.items() if self.unordered[i]}

    @property
    def free(self) -> np.ndarray:
        """Mask of the parameters that are not fixed, shape (d,)."""
        mask = np.ones(len(self), dtype=bool)
        mask[list(self._fixed)] = False
        return mask

    def raw(self, params: Mapping[str, Any]) -> np.ndarray:
        """The raw vector of parameters, shape (d,); NaN where one is missing."""
        pairs = zip(self._parameters, self.names, strict=True)
        return np.array([p.raw(params[name]) if name in params else math.nan for p, name in pairs])

    def params(self, raw: np.ndarray) -> dict[str, Any]:
        """The parameters of a raw vector, as Python scalars; without those it does not have."""
        triples = zip(self.names, self._parameters, raw, strict=True)
        return {name: p.value(float(r)) for name, p, r in triples if not math.isnan(r)}

    def internal(self, raw: np.ndarray) -> dict[str, float]:
        """The parameters of a raw vector as Optuna's storages keep them: numbers only."""
        triples = zip(self.names, self._parameters, raw, strict=True)
        return {
            name: float(p.distribution.to_internal_repr(p.value(float(r))))
            for name, p, r in triples
            if not math.isnan(r)
        }

    def external(self, internal: Mapping[str, float]) -> dict[str, Any]:
        """Parameters of what ``internal`` gave, as far as this space has them."""
        found = {}
        for name, p in zip(self.names, self._parameters, strict=True):
            if name in internal and p.distribution._contains(internal[name]):
                found[name] = p.distribution.to_external_repr(internal[name])
        return found

    def snap(self, raw: np.ndarray) -> np.ndarray:
        """Raw vectors moved to values that the distributions hold, fixed ones set; shape (m, d)."""
        raw = np.array(raw, dtype=float)
        for i, p in enumerate(self._parameters):
            raw[:, i] = self._fixed[i] if i in self._fixed else p.snap(raw[:, i])
        return raw

    def complete(self, raw: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """Raw vectors with every parameter: what is missing is drawn; shape (m, d)."""
        missing = np.isnan(raw)
        if not missing.any():
            return self.snap(raw)
        return self.snap(np.where(missing, self.random(rng, len(raw)), raw))

    def prune(self, raw: np.ndarray) -> np.ndarray:
        """Raw vectors without the parameters that do not go with the others' values, (m, d)."""
        if not self._rules:
            return raw
        pruned = np.array(raw, dtype=float)
        for _ in range(3):  # what depends on a parameter that is gone is gone, too
            before = np.isnan(pruned)
            for i, rule in self._rules.items():
                pruned[~rule.active(pruned), i] = math.nan
            if (before == np.isnan(pruned)).all():
                break
        return pruned

    def valid(self, raw: np.ndarray) -> np.ndarray:
        """Mask of the raw vectors whose parameters go together, shape (m,)."""
        if self._valid is None:
            return np.ones(len(raw), dtype=bool)
        return np.array([self._valid(self.params(row)) for row in raw], dtype=bool)

    def random(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """Draw n valid raw vectors with every parameter, shape (n, d)."""
        if self._sample is not None:
            source = np.random.default_rng(rng.randint(2**31 - 1))
            return np.array([self.raw(self._sample(source)) for _ in range(n)])
        return self.of_uniform(rng.random_sample((n, len(self))))

    def of_uniform(self, u: np.ndarray) -> np.ndarray:
        """Raw vectors of uniform numbers in [0, 1), shape (n, d)."""
        raw = np.array(u)
        for i, grid in enumerate(self.grids):
            if grid is not None:
                raw[:, i] = grid[np.minimum((u[:, i] * len(grid)).astype(int), len(grid) - 1)]
        for i, value in self._fixed.items():
            raw[:, i] = value
        return raw

    def descend(self, raw: np.ndarray, spread: np.ndarray, linear: np.ndarray) -> np.ndarray:
        """Slopes in the columns of ``points``, spread (m, a) and linear (m, b), to those in raw vectors.

        0 where a parameter is not continuous; further linear columns are left out.
        """
        n = len(self._numbers)
        u = raw[:, self._numbers]
        bent = 12.0 * (u - 0.5) * linear[:, 1 : 2 * n : 2]
        slopes = np.zeros_like(raw)
        slopes[:, self._numbers] = spread[:, :n] + 2.0 * linear[:, : 2 * n : 2] + bent
        slopes[:, ~self.continuous] = 0.0
        return np.nan_to_num(slopes)

    def points(self, raw: np.ndarray) -> Points:
        """Columns of raw vectors of shape (m, d): those of numbers first, then the categories'."""
        u = raw[:, self._numbers]
        n = u.shape[1]
        absent = np.isnan(u)
        u = np.where(absent, 0.5, u)
        effects = np.where(
            absent[..., None], 0.0, np.stack([2.0 * u - 1.0, 6.0 * (u - 0.5) ** 2 - 0.5], -1)
        )
        spread, linear = [u], [effects.reshape(len(raw), 2 * n)]
        near, along = [np.arange(n)], [np.repeat(np.arange(n), 2)]
        group = effect = n
        for i in self._categories:
            p, column = self._parameters[i], raw[:, i]
            here = ~np.isnan(column)
            if not p.unordered:
                place = np.full(len(raw), 0.5)
                place[here] = p.position[column[here].astype(int)]
                pair = np.column_stack([2.0 * place - 1.0, 6.0 * (place - 0.5) ** 2 - 0.5])
                spread.append(place[:, None])
                linear.append(np.where(here[:, None], pair, 0.0))
                near.append(np.array([group]))
                along.append(np.array([effect, effect]))
                group, effect = group + 1, effect + 1
            hot = (column[:, None] == self._levels[i][None, :]).astype(float)
            if len(self._levels[i]) < p.count:
                hot = np.column_stack([hot, here & ~hot.any(1)])
            spread.append(hot * math.sqrt(0.5))
            linear.append(np.where(here[:, None], hot - 1.0 / p.count, 0.0))
            near.append(np.full(hot.shape[1], group))
            along.append(np.full(hot.shape[1], effect))
            group, effect = group + 1, effect + 1
        return Points(
            np.hstack(spread), np.hstack(linear), np.concatenate(near), np.concatenate(along)
        )
