"""Methods that start from nothing: random search, tree ensembles, a Gaussian process and TPE.

The model-based ones begin with ``_START`` random candidates and then refit after every measurement,
which is the most favourable schedule for them. Their target is the logarithm of the metric where it
is positive. Failures are learnt apart, by a forest that tells how likely a candidate works, so that
they distort no value (Gelbart et al. 2014, "Bayesian Optimization with Unknown Constraints").
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import norm

from autotune_rlm.bench._method import Ordered, Search, Stepwise
from autotune_rlm.types import Measurement

_START = 4
_TOLD_FAILURE = 1e30


class RandomSearch(Ordered):
    """Uniformly random candidates without replacement."""

    def order(self) -> np.ndarray:
        return self.search.rng.permutation(len(self.search.candidates))


class ModelBased(Stepwise):
    """Random candidates first, then the one of highest ``worth`` that rather works than not."""

    def suggest(self, measured: Mapping[int, Measurement], n: int) -> list[int]:
        search = self.search
        left = search.unmeasured(measured)
        y = taught(measured, minimize=search.task.minimize)
        worked = np.isfinite(y)
        x, tried = search.features, np.array(list(measured), dtype=int)
        if len(measured) < _START or not x.shape[1] or not worked.any():
            return search.rng.permutation(left)[:n].tolist()
        p_valid = probability_of_working(x[tried], worked, x[left], search.seed)
        if np.ptp(y[worked]) == 0:
            worth = p_valid
        else:
            worth = self.worth(x[tried[worked]], y[worked], x[left], p_valid)
        tie = search.rng.random(len(left))
        return left[np.lexsort((tie, -worth, p_valid < 0.5))][:n].tolist()

    @abstractmethod
    def worth(
        self, x: np.ndarray, y: np.ndarray, x_new: np.ndarray, p_valid: np.ndarray
    ) -> np.ndarray:
        """How much each of the m new candidates is wanted, shape (m,).

        Args:
            x: Features of the n candidates that worked, shape (n, columns).
            y: Their values, to minimise, shape (n,).
            x_new: Features of the new ones, shape (m, columns).
            p_valid: How likely each of them works, shape (m,).
        """


class RandomForest(ModelBased):
    """A random forest with expected improvement from the spread over its trees.

    Hutter et al. 2011, "Sequential Model-Based Optimization for General Algorithm Configuration".
    """

    trees = 64

    def worth(
        self, x: np.ndarray, y: np.ndarray, x_new: np.ndarray, p_valid: np.ndarray
    ) -> np.ndarray:
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(
            n_estimators=self.trees,
            max_features=0.8,
            min_samples_leaf=1,
            random_state=self.search.seed,
        ).fit(x, y)
        x32 = np.ascontiguousarray(x_new, dtype=np.float32)
        votes = np.stack([tree.tree_.predict(x32)[:, 0] for tree in forest.estimators_])
        return p_valid * expected_improvement(votes.mean(axis=0), votes.std(axis=0), y.min())


class GaussianProcess(ModelBased):
    """A Gaussian process (Matern 5/2, one length per column) with expected improvement.

    Hyperparameters are refitted after every measurement up to 16, then after every fourth. Snoek et
    al. 2012, "Practical Bayesian Optimization of Machine Learning Algorithms".
    """

    _kernel: Any = None

    def worth(
        self, x: np.ndarray, y: np.ndarray, x_new: np.ndarray, p_valid: np.ndarray
    ) -> np.ndarray:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        refit = self._kernel is None or len(y) <= 16 or len(y) % 4 == 0
        lengths = np.full(x.shape[1], 0.7)
        kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(
            lengths, (0.05, 20.0), nu=2.5
        ) + WhiteKernel(1e-3, (1e-6, 1e-1))
        model = GaussianProcessRegressor(
            kernel=self._kernel or kernel,
            optimizer="fmin_l_bfgs_b" if refit else None,
            normalize_y=True,
            random_state=self.search.seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)
        self._kernel = model.kernel_
        mean, std = model.predict(x_new, return_std=True)
        return p_valid * expected_improvement(mean, std, y.min())


class Tpe(Stepwise):
    """Optuna's TPE sampler (multivariate) over the parameters; ordered ones keep their order.

    The sampler proposes a point of the full grid, and the unmeasured candidate nearest to it is
    measured and told, so that no proposal is lost on a combination that is not in the list. TPE
    only ranks what it is told, so a failure is told as a huge value.
    """

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=search.seed, multivariate=True, n_startup_trials=_START
            )
        self._study = optuna.create_study(sampler=sampler)
        self._levels = _levels(search)
        self._codes = _codes(search, self._levels)
        self._steps = np.array([max(1, len(v) - 1) for v in self._levels.values()])
        self._space: dict[str, Any] = {
            name: optuna.distributions.IntDistribution(0, len(values) - 1)
            if _ordered(values)
            else optuna.distributions.CategoricalDistribution(range(len(values)))
            for name, values in self._levels.items()
        }
        self._told = 0

    def suggest(self, measured: Mapping[int, Measurement], n: int) -> list[int]:
        left = self.search.unmeasured(measured)
        if not self._levels or len(measured) < _START:
            return self.search.rng.permutation(left)[:n].tolist()
        import optuna

        self._tell(measured)
        trial = self._study.ask(self._space)
        asked = np.array([trial.params[name] for name in self._levels])
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        gap = np.abs(self._codes[left] - asked) / self._steps
        categorical = [not _ordered(values) for values in self._levels.values()]
        gap[:, categorical] = gap[:, categorical] > 0
        tie = self.search.rng.random(len(left))
        return left[np.lexsort((tie, gap.sum(axis=1)))][:1].tolist()

    def _tell(self, measured: Mapping[int, Measurement]) -> None:
        import optuna

        sign = 1.0 if self.search.task.minimize else -1.0
        for i, m in list(measured.items())[self._told :]:
            value = _TOLD_FAILURE if m.value is None else sign * m.value
            params = {
                name: int(code) for name, code in zip(self._levels, self._codes[i], strict=True)
            }
            self._study.add_trial(
                optuna.trial.create_trial(params=params, distributions=self._space, value=value)
            )
        self._told = len(measured)


def taught(measured: Mapping[int, Measurement], *, minimize: bool) -> np.ndarray:
    """Targets to minimise: log values, NaN where the candidate failed; shape (measured,)."""
    raw = np.array([math.nan if m.value is None else m.value for m in measured.values()])
    ok = np.isfinite(raw)
    y = np.log(raw, where=ok, out=raw.copy()) if (raw[ok] > 0).all() else raw
    return np.where(ok, y if minimize else -y, math.nan)


def probability_of_working(
    x: np.ndarray, worked: np.ndarray, x_new: np.ndarray, seed: int
) -> np.ndarray:
    """How likely new candidates work, by a random forest over those tried; 1 where none failed."""
    if worked.all():
        return np.ones(len(x_new))
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_estimators=50, random_state=seed).fit(x, worked)
    return forest.predict_proba(x_new)[:, list(forest.classes_).index(True)]


def expected_improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """Expected improvement below ``best`` of normal predictions."""
    std = np.maximum(std, 1e-9)
    u = (best - mean) / std
    return std * (u * norm.cdf(u) + norm.pdf(u))


def _levels(search: Search) -> dict[str, list[Any]]:
    """The distinct values of each parameter that varies, numbers in order."""
    names = sorted({name for c in search.candidates for name in c.config})
    levels = {}
    for name in names:
        values = {repr(v): v for v in (c.config.get(name) for c in search.candidates)}
        if len(values) > 1:
            kept: list[Any] = list(values.values())
            levels[name] = sorted(kept) if _ordered(kept) else sorted(kept, key=repr)
    return levels


def _codes(search: Search, levels: Mapping[str, list[Any]]) -> np.ndarray:
    """Position of each candidate's value among its parameter's levels, shape (n, parameters)."""
    columns = []
    for name, values in levels.items():
        position = {repr(v): i for i, v in enumerate(values)}
        columns.append([position[repr(c.config.get(name))] for c in search.candidates])
    return np.array(columns, dtype=int).reshape(len(levels), len(search.candidates)).T


def _ordered(values: list[Any]) -> bool:
    return all(isinstance(v, (int, float)) for v in values)
