"""What others use, where it is installed: boosted trees, BoTorch, Kernel Tuner's own strategies."""

from __future__ import annotations

import json
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autotune_rlm.bench._baselines import ModelBased
from autotune_rlm.bench._method import Method, NotApplicableError, Step
from autotune_rlm.landscapes import write_landscapes
from autotune_rlm.measure.replay import ReplayMeasurer
from autotune_rlm.types import Candidate

KERNEL_TUNER = ("genetic_algorithm", "simulated_annealing", "greedy_ils", "pso", "bayes_opt")


class _Boosted(ModelBased):
    """Gradient-boosted trees, greedy with one random choice in ten, as AutoTVM's tuner explores.

    Chen et al. 2018, "Learning to Optimize Tensor Programs" (epsilon-greedy selection).
    """

    epsilon = 0.1

    def worth(
        self, x: np.ndarray, y: np.ndarray, x_new: np.ndarray, p_valid: np.ndarray
    ) -> np.ndarray:
        if self.search.rng.random() < self.epsilon:
            return np.zeros(len(x_new))
        return -self.predicted(x, y, x_new)

    @abstractmethod
    def predicted(self, x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
        """Values of the new candidates, shape (m,)."""


class XGBoost(_Boosted):
    """XGBoost: 60 rounds, depth 4."""

    def predicted(self, x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
        import xgboost

        settings: dict[str, Any] = {
            "max_depth": 4,
            "eta": 0.2,
            "min_child_weight": 1,
            "nthread": 1,
            "seed": self.search.seed,
        }
        model = xgboost.train(settings, xgboost.DMatrix(x, label=y), num_boost_round=60)
        return model.predict(xgboost.DMatrix(x_new)).astype(float)


class LightGBM(_Boosted):
    """LightGBM: 60 rounds of at most 15 leaves, which may hold a single measurement."""

    def predicted(self, x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
        import lightgbm

        settings = {
            "num_leaves": 15,
            "learning_rate": 0.2,
            "min_data_in_leaf": 1,
            "min_data_in_bin": 1,
            "num_threads": 1,
            "seed": self.search.seed,
            "verbose": -1,
        }
        model = lightgbm.train(settings, lightgbm.Dataset(x, label=y), num_boost_round=60)
        return np.asarray(model.predict(x_new))


class CatBoost(_Boosted):
    """CatBoost: 60 rounds, depth 4."""

    def predicted(self, x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
        from catboost import CatBoostRegressor

        model = CatBoostRegressor(
            iterations=60,
            depth=4,
            learning_rate=0.2,
            thread_count=1,
            random_seed=self.search.seed,
            verbose=False,
            allow_writing_files=False,
        )
        return np.asarray(model.fit(x, y).predict(x_new))


class BoTorch(ModelBased):
    """BoTorch's ``SingleTaskGP`` with its own priors, and ``LogExpectedImprovement``.

    Balandat et al. 2020, "BoTorch"; Ament et al. 2023. Refitted after every measurement.
    """

    def worth(
        self, x: np.ndarray, y: np.ndarray, x_new: np.ndarray, p_valid: np.ndarray
    ) -> np.ndarray:
        import torch
        from botorch.acquisition.analytic import LogExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood

        known, new = torch.from_numpy(x), torch.from_numpy(x_new)
        target = torch.from_numpy(-(y - y.mean()) / (y.std() or 1.0))[:, None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = SingleTaskGP(known, target)
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            with torch.no_grad():
                found = LogExpectedImprovement(model, best_f=float(target.max()))(new[:, None, :])
        return found.numpy() + np.log(np.maximum(p_valid, 1e-9))


class KernelTuner(Method):
    """A strategy of Kernel Tuner with its own defaults, in its own simulation mode.

    van Werkhoven 2019, "Kernel Tuner: A search-optimizing GPU code auto-tuner".
    """

    strategy = ""

    def run(self, replay: ReplayMeasurer, limit: int) -> Iterator[Step]:
        from kernel_tuner import tune_kernel

        search, landscape = self.search, replay.landscape
        names = sorted({name for c in search.candidates for name in c.config})
        if any(set(c.config) != set(names) for c in search.candidates):
            raise NotApplicableError(
                "Kernel Tuner needs the same parameters in every configuration"
            )
        places = {self._key(c, names): i for i, c in enumerate(search.candidates)}
        levels = {
            name: sorted({c.config[name] for c in search.candidates}, key=repr) for name in names
        }
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cache = Path(folder) / "cache.json"
            write_landscapes(cache, [landscape], format="kernel-tuner")
            size = json.loads(cache.read_text()).get("problem_size", 1)
            found, _ = tune_kernel(
                landscape.task.kernel,
                "",
                size,
                [],
                levels,
                restrictions=_listed(names, places),
                cache=str(cache),
                simulation_mode=True,
                strategy=self.strategy,
                strategy_options={"max_fevals": limit},
                lang="CUDA",
                quiet=True,
                seed=search.seed,
            )
        asked = dict.fromkeys(self._of(row, names) for row in found)
        chosen = [places[key] for key in asked if key in places][:limit]
        answers = replay.measure(search.task, [search.candidates[i] for i in chosen])
        for i, (_, measurement) in zip(chosen, answers, strict=True):
            yield Step(i, measurement, replay.clock_s)

    @staticmethod
    def _of(config: Mapping[str, Any], names: list[str]) -> tuple[str, ...]:
        return tuple(repr(config[name]) for name in names)

    def _key(self, candidate: Candidate, names: list[str]) -> tuple[str, ...]:
        return self._of(candidate.config, names)


def _listed(names: list[str], places: Mapping[tuple[str, ...], int]) -> list[Any]:
    """Kernel Tuner's restriction to the configurations that are in the record."""

    def is_listed(config: Mapping[str, Any]) -> bool:
        return tuple(repr(config[name]) for name in names) in places

    return [is_listed]


def kernel_tuner(strategy: str) -> type[KernelTuner]:
    """The method of one of Kernel Tuner's strategies."""
    return type(f"KernelTuner_{strategy}", (KernelTuner,), {"strategy": strategy})
