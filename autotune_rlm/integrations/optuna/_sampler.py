"""``RLMSampler``: the loop's policy as a sampler of Optuna."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, TrialState

from autotune_rlm.integrations.optuna._encoding import Encoding
from autotune_rlm.integrations.optuna._model import StudyModel
from autotune_rlm.integrations.optuna._propose import climb, keys, spread_out
from autotune_rlm.integrations.optuna._trials import StudyData, collect, share_params

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["RLMSampler"]

_logger = optuna.logging.get_logger(__name__)


class RLMSampler(BaseSampler):
    """TODO."""

    def __init__(
        self,
        *,
        n_startup_trials: int = 4,
        seed: int | None = None,
        independent_sampler: BaseSampler | None = None,
        deterministic_objective: bool = False,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        warn_independent_sampling: bool = True,
    ) -> None:
        if n_startup_trials < 0:
            raise ValueError(f"n_startup_trials must be at least 0, got {n_startup_trials}")
        self._seed = seed
        self._random: np.random.RandomState | None = None
        self._n_startup_trials = n_startup_trials
        self._independent_sampler = independent_sampler or TPESampler(seed=seed)
        self._deterministic = deterministic_objective
        self._constraints_func = constraints_func
        self._warn_independent_sampling = warn_independent_sampling
        self._intersection = IntersectionSearchSpace()
        self._space_key: tuple[Any, ...] = ()
        self._encoding: Encoding | None = None
        self._raw_cache: dict[int, np.ndarray] = {}
        self._starts: dict[str, np.ndarray] = {}
        self._fitted_at = 0

    @property
    def _rng(self) -> np.random.RandomState:
        if self._random is None:  # late, so that copies of an unseeded sampler differ
            self._random = np.random.RandomState(self._seed)
        return self._random

    def reseed_rng(self) -> None:
        """Draw a new seed: each worker of ``n_jobs`` has its own randomness."""
        self._random = np.random.RandomState()
        self._independent_sampler.reseed_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that all finished trials share."""
        shared = self._intersection.calculate(study)
        return {name: d for name, d in shared.items() if not d.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal for a trial."""
        if not search_space:
            return {}
        encoding = self._encode(search_space)
        with _one_thread():
            raw = self._propose(encoding, self._collect(study, trial, search_space), 0)
            share_params(study, trial, encoding.params(raw))
            for attempt in range(1, 4):
                # Announce first, look second: of two workers with one idea at least one sees it.
                if len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))) < 2:
                    break
                data = self._collect(study, trial, search_space)
                if not _is_twin(raw, data):
                    break
                raw = self._propose(encoding, data, attempt)
                share_params(study, trial, encoding.params(raw))
        return encoding.params(raw)

    def _collect(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> StudyData:
        encoding = self._encode(search_space)
        return collect(study, encoding, search_space, own_id=trial._trial_id, cache=self._raw_cache)

    def _encode(self, search_space: Mapping[str, BaseDistribution]) -> Encoding:
        key = tuple((name, repr(d)) for name, d in search_space.items())
        if self._encoding is None or key != self._space_key:
            self._space_key, self._encoding = key, Encoding(search_space)
            self._raw_cache, self._starts, self._fitted_at = {}, {}, 0
        return self._encoding

    def _propose(self, encoding: Encoding, data: StudyData, attempt: int) -> np.ndarray:
        n = len(data.values)
        seen = np.vstack([data.raw, data.pending, data.failed])
        if n < max(self._n_startup_trials, 1):
            return spread_out(encoding, seen, self._rng)
        refit = n < 32 or n >= self._fitted_at * 1.1 or n < self._fitted_at
        if refit:
            self._fitted_at = n
        model = StudyModel(
            data,
            encoding.points,
            starts=self._starts,
            refit=refit,
            noise=1e-6 if self._deterministic else 1e-3,
        )
        good = data.raw[_best_rows(data, 12)]
        taken = set(keys(seen)) if encoding.cardinality < math.inf else set(keys(data.pending))
        ranked = climb(encoding, lambda raw: model.score(raw, self._rng), good, taken, self._rng)
        return ranked[0] if attempt == 0 else ranked[self._rng.randint(min(len(ranked), 8))]

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value for a parameter outside the shared space: the first trial's, conditional ones."""
        if self._warn_independent_sampling:
            done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if len(done) > max(self._n_startup_trials, 1):
                _logger.warning(
                    f"The parameter '{param_name}' in trial#{trial.number} is sampled "
                    f"independently by `{type(self._independent_sampler).__name__}`, because not "
                    "every finished trial has it. Give the search space a fixed set of parameters, "
                    "or suppress this warning by `RLMSampler(warn_independent_sampling=False)`."
                )
        return self._independent_sampler.sample_independent(
            study, trial, param_name, param_distribution
        )

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Forwarded to the independent sampler."""
        self._independent_sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Evaluate the constraints of a finished trial."""
        if self._constraints_func is not None and state in (
            TrialState.COMPLETE,
            TrialState.PRUNED,
        ):
            constraints = tuple(float(c) for c in self._constraints_func(trial))
            if any(math.isnan(c) for c in constraints):
                raise ValueError("constraints_func returned NaN; return a value above 0 instead")
            study._storage.set_trial_system_attr(trial._trial_id, "constraints", constraints)
        self._independent_sampler.after_trial(study, trial, state, values)


def _best_rows(data: StudyData, n: int) -> np.ndarray:
    """Rows of good trials: feasible ones first, by mean rank over the objectives."""
    ranks = np.argsort(np.argsort(-data.values, axis=0, kind="stable"), axis=0)
    worst = np.where(data.feasible, 0, len(ranks))
    return np.argsort(ranks.min(1) + worst, kind="stable")[:n]


def _is_twin(raw: np.ndarray, data: StudyData) -> bool:
    return keys(raw[None, :])[0] in set(keys(data.pending))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Linear algebra on one thread: for a few hundred rows, threads only wait for each other."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(1, user_api="blas"):
        yield
