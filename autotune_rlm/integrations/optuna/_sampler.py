"""``RLMSampler``: a sampler for Optuna."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from autotune_rlm._threads import one_thread
from autotune_rlm.integrations.optuna._arguments import Arguments
from autotune_rlm.integrations.optuna._encoding import Encoding, internal_of
from autotune_rlm.integrations.optuna._memory import StudyMemory
from autotune_rlm.integrations.optuna._policy import Policy, Turn, another_branch, is_stuck
from autotune_rlm.integrations.optuna._propose import keys
from autotune_rlm.integrations.optuna._state import StudyStates
from autotune_rlm.integrations.optuna._trials import StudyData, collect, fixed_params, share_params
from autotune_rlm.types import Surrogate, Task

if TYPE_CHECKING:
    from optuna.study import Study

    from autotune_rlm.integrations.optuna._describe import Describe
    from autotune_rlm.networks import ArchitectureSpace
    from autotune_rlm.store import Store

_logger = optuna.logging.get_logger(__name__)
_ATTEMPTS = 6  # most proposals for a trial while other workers try the same point


class RLMSampler(BaseSampler):
    """Bayesian optimisation whose prior can come from a Regression Language Model.

    A Gaussian process over the parameters (numbers on their scale, names one-hot, numeric categories
    in both ways) proposes the candidate of highest expected improvement. Where ``describe`` maps
    the parameters to an object, facts of the object become further inputs of the process. Where a
    surrogate predicts its value, the prediction becomes the prior mean and one more input. It then
    guides the search from the second trial on, and measurements can overrule it. Without ``describe``,
    ``warm_start`` and ``store`` the sampler uses the numbers alone.

    It supports several objectives, constraints, pruning, conditional and dynamic spaces, and parallel
    workers. Workers announce their proposals in the storage, so that two rarely try the same point.
    Running trials count with their expected value. A search of one objective in a large space that no
    longer improves takes every third proposal from elsewhere. If ``describe``, the surrogate or the
    store fails, the sampler logs one warning and the study goes on without it.

    Example:
        ```python
        import optuna
        from autotune_rlm.integrations.optuna import RLMSampler

        def objective(trial):
            x = trial.suggest_float("x", -10, 10)
            return (x - 2) ** 2

        study = optuna.create_study(sampler=RLMSampler(seed=0))
        study.optimize(objective, n_trials=20)
        ```

    Args:
        describe: Maps a trial's parameters to the object they describe: an ONNX model
            (``ModelProto``, a path ending in ``.onnx``, or a ``Graph``), a text such as code, a
            mapping of numbers, or None where these parameters describe nothing. It is also called
            for candidates that are never tried, at most 32 new ones a trial (176 for the first). An
            ``ArchitectureSpace`` may be given as it is.
        context: Context for the surrogate: a mapping with ``metric``, ``device``,
            ``dataset``, ``space``... or a ``Task``; one for each objective in a list.
        surrogate: The surrogate, the name or path of one, or False for none. By default the
            bundled one, where ``describe`` gives networks and ``context`` names a metric that it
            was trained on: ``accuracy``, ``accuracy_top5``, ``latency_ms``, ``throughput`` or
            ``train_time_s``.
        warm_start: Earlier studies of the same parameters and objectives. Their trials guide the
            search; their values may be on another scale.
        store: A ``Store``, its path or URL. Trials are written to it as they finish. Earlier studies
            in it of the same name, architecture space or ``context["space"]`` with the same metric
            guide the search as those of ``warm_start`` do. Give the study a name for this.
        n_startup_trials: Space-filling trials before the first one that the process proposes. By
            default 6, or 1 with ``warm_start`` or a surrogate's prediction. May be 0, but the first
            trial of a study is always sampled.
        seed: Seed of all randomness.
        independent_sampler: Samples parameters outside of the space that all trials share: the first
            trial, and conditional parameters. By default ``TPESampler``.
        deterministic_objective: Whether the objective has no noise.
        constraints_func: Maps a finished trial to values that are above 0 where a constraint is
            violated; NaN counts as violated. In Optuna 5, ``trial.set_constraint`` says the same.
        warn_independent_sampling: Whether to warn when a parameter is sampled independently.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a wrong value, such as a negative ``n_startup_trials``.
        StoreError: ``store`` cannot be opened.
    """

    def __init__(
        self,
        *,
        describe: Describe | ArchitectureSpace | None = None,
        context: Task | Mapping[str, Any] | Sequence[Any] | None = None,
        surrogate: Surrogate | str | bool | None = None,
        warm_start: Sequence[Study] = (),
        store: Store | str | os.PathLike[str] | None = None,
        n_startup_trials: int | None = None,
        seed: int | None = None,
        independent_sampler: BaseSampler | None = None,
        deterministic_objective: bool = False,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        warn_independent_sampling: bool = True,
    ) -> None:
        arguments = Arguments(
            describe=describe,
            context=context,
            surrogate=surrogate,
            warm_start=warm_start,
            store=store,
            n_startup_trials=n_startup_trials,
            seed=seed,
            independent_sampler=independent_sampler,
            deterministic_objective=deterministic_objective,
            constraints_func=constraints_func,
            warn_independent_sampling=warn_independent_sampling,
        )
        self._seed = seed
        self._random: np.random.RandomState | None = None
        self._independent_sampler = independent_sampler or TPESampler(seed=seed)
        self._hedge = TPESampler(seed=seed)
        self._constraints_func = constraints_func
        self._warn_independent_sampling = warn_independent_sampling
        space = getattr(describe, "name", None) if hasattr(describe, "costs") else None
        self._warned_of_nan = False
        self._memory = None if store is None else StudyMemory(store, context, space)
        noise = 1e-6 if deterministic_objective else 1e-3
        self._policy = Policy(arguments, memory=self._memory, noise=noise)
        self._states = StudyStates()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_states": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._states = StudyStates()

    @property
    def _rng(self) -> np.random.RandomState:
        if self._random is None:  # made at first use, so that copies of an unseeded sampler differ
            self._random = np.random.RandomState(self._seed)
        return self._random

    def reseed_rng(self) -> None:
        """Draw a new seed, so that each worker of ``n_jobs`` has its own random numbers."""
        self._random = np.random.RandomState()
        self._independent_sampler.reseed_rng()
        self._hedge.reseed_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing: ``sample_independent`` hands each value over where the objective asks for it.

        Optuna ends a study whose relative space has a parameter of another kind than the objective
        asks for: a float that was an int, or tuples that a storage gives back as lists.
        """
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal for a trial: a value of every parameter, even of those it may not suggest."""
        fixed = {**fixed_params(study, trial), **trial.params}
        if not search_space or search_space.keys() <= fixed.keys():
            return {}
        state = self._states.of(study)
        with state.lock, one_thread():
            space = state.of_space(search_space)
            encoding = self._policy.encoding(search_space)
            encoding.fix(fixed)
            turn = Turn(study, state, space, encoding, self._rng)
            before = turn.data = self._collect(turn, trial)
            raw = self._propose(turn, trial, attempt=0)
            share_params(study, trial, encoding.internal(raw))
            for attempt in range(1, _ATTEMPTS):
                # The proposal was announced before this look at the storage. Of two workers with the
                # same proposal, at least one therefore sees the other's.
                turn.data = self._collect(turn, trial)
                if not _is_twin(encoding.prune(raw[None, :]), before, turn.data):
                    break
                before = turn.data
                raw = self._propose(turn, trial, attempt=attempt)
                share_params(study, trial, encoding.internal(raw))
        return encoding.params(raw)

    def _propose(self, turn: Turn, trial: FrozenTrial, *, attempt: int) -> np.ndarray:
        fitted, branch = True, {}
        encoding, data = turn.encoding, turn.data
        assert data is not None
        n = len(data.values)
        hedges = attempt == 0 and n % 3 == 0 and encoding.free.all()  # one trial in three
        if hedges and is_stuck(encoding, data):
            branch = another_branch(encoding, data, self._rng)
            if not branch and n % 2:
                other = {
                    name: self._drawn(self._hedge, turn.study, trial, name, distribution)
                    for name, distribution in encoding.space.items()
                }
                return encoding.snap(encoding.raw(other)[None, :])[0]
            fitted = bool(branch)
        ranked = self._policy.rank(turn, fitted=fitted, branch=branch)
        return ranked[0] if attempt == 0 else ranked[self._rng.randint(min(len(ranked), 8))]

    def _collect(self, turn: Turn, trial: FrozenTrial) -> StudyData:
        encoding = turn.encoding
        data = collect(turn.study, encoding, own_id=trial._trial_id, cache=turn.space.raw)
        encoding.learn(data.seen, data.raw[data.completed])
        return data

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The proposal's value; of a parameter that no finished trial has, the independent sampler's."""
        state = self._states.of(study)
        with state.lock, one_thread():
            if trial._trial_id not in state.proposals:
                proposal = self.sample_relative(study, trial, state.space(study))
                state.proposals[trial._trial_id] = proposal
            proposal = state.proposals[trial._trial_id]
            if param_name in proposal:
                internal = internal_of(param_distribution, proposal[param_name])
            else:
                internal = self._policy.opening(
                    study, state, trial, param_name, param_distribution, self._rng
                )
        if internal is not None:
            return param_distribution.to_external_repr(internal)
        if self._warn_independent_sampling and param_name not in state.warned:
            done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if len(done) > self._policy.n_startup_trials(study, state):
                state.warned.add(param_name)
                reason = (
                    "its proposed value is outside of what the objective asks for"
                    if param_name in proposal
                    else "no finished trial has it yet"
                )
                _logger.warning(
                    f"The parameter '{param_name}' in trial#{trial.number} is sampled "
                    f"independently by `{type(self._independent_sampler).__name__}`, because "
                    f"{reason}. Suppress this warning by "
                    "`RLMSampler(warn_independent_sampling=False)`."
                )
        return self._drawn(self._independent_sampler, study, trial, param_name, param_distribution)

    def _drawn(
        self,
        sampler: BaseSampler,
        study: Study,
        trial: FrozenTrial,
        name: str,
        distribution: BaseDistribution,
    ) -> Any:
        """A sampler's value; uniform where Optuna's arithmetic overflows (a range above 1.8e308)."""
        try:
            return sampler.sample_independent(study, trial, name, distribution)
        except (OverflowError, FloatingPointError):
            encoding = Encoding({name: distribution})
            return encoding.params(encoding.random(self._rng, 1)[0])[name]

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Forwarded to the independent sampler."""
        self._independent_sampler.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Evaluate the constraints of a finished trial."""
        self._states.of(study).proposals.pop(trial._trial_id, None)
        if self._constraints_func is not None and state in (TrialState.COMPLETE, TrialState.PRUNED):
            constraints = _numbers(self._constraints_func(trial))
            if any(map(math.isnan, constraints)) and not self._warned_of_nan:
                self._warned_of_nan = True
                _logger.warning(
                    f"constraints_func returned NaN for trial#{trial.number}: NaN counts as "
                    "violated. This is said once."
                )
            constraints = tuple(math.inf if math.isnan(c) else c for c in constraints)
            study._storage.set_trial_system_attr(trial._trial_id, "constraints", constraints)
        self._independent_sampler.after_trial(study, trial, state, values)
        if self._memory is not None:
            self._memory.add(study, trial, state, values)


def _numbers(constraints: Any) -> tuple[float, ...]:
    try:
        return tuple(float(c) for c in constraints)
    except (TypeError, ValueError):
        raise TypeError(
            f"constraints_func must return a list or tuple of numbers, got {constraints!r}"
        ) from None


def _is_twin(raw: np.ndarray, known: StudyData, now: StudyData) -> bool:
    """Whether another worker tries the same point, or has finished it since ``known``."""
    key = keys(raw)[0]
    ended, before = (keys(np.vstack([data.raw, data.failed])) for data in (now, known))
    return key in keys(now.pending) or (key in ended and key not in before)
