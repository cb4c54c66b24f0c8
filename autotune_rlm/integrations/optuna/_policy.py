"""Which point to try next, given the trials so far and what is known beyond them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from autotune_rlm.integrations.onnx.default import default_surrogate, networks_checkpoint
from autotune_rlm.integrations.optuna._arguments import Arguments
from autotune_rlm.integrations.optuna._describe import Describer, names_trained_metric, tasks_of
from autotune_rlm.integrations.optuna._encoding import Encoding, internal_of
from autotune_rlm.integrations.optuna._knowledge import (
    Descriptions,
    EarlierStudies,
    EarlierTrials,
    trials_of,
)
from autotune_rlm.integrations.optuna._memory import StudyMemory
from autotune_rlm.integrations.optuna._model import PriorModel, StudyModel
from autotune_rlm.integrations.optuna._propose import climb, keys, spread_out
from autotune_rlm.integrations.optuna._state import SpaceState, StudyState
from autotune_rlm.integrations.optuna._trials import StudyData
from autotune_rlm.networks.rendering import is_known_space

if TYPE_CHECKING:
    from optuna.study import Study

_STARTUP = 6
_PER_BRANCH = 2  # start-up trials for each branch where parameters depend on a category
_MAX_STARTUP = 10  # start-up trials for all branches at most
_REFERENCE = 48  # random points that fix the scale of what descriptions say
_FIRST = 128  # random candidates that a surrogate chooses the first trial from
_DESCRIBED = (24, 8)  # most promising and random candidates described per trial
_MANY = 200  # trials from which on half as many are
_STILL = 8  # latest trials whose gain decides whether a search is stuck
_GAIN = 1e-3  # most gain of a stuck search, as a share of the best value's distance to the median
_BRANCHES = 16  # values of a category that a stuck search goes over one by one
_FEW = 10_000  # combinations up to which a search is never stuck


@dataclass
class Turn:
    """What a proposal is computed from."""

    study: Study
    state: StudyState
    space: SpaceState
    encoding: Encoding
    rng: np.random.RandomState
    data: StudyData | None = None  # of the study's trials

    @property
    def seen(self) -> np.ndarray:
        """Raw vectors of all trials, shape (n, d)."""
        return np.zeros((0, len(self.encoding))) if self.data is None else self.data.seen


class Policy:
    """Startup, then the process's choice; with descriptions, a second look at its best ones.

    It holds arguments of the sampler only: what belongs to a study is in its ``StudyState``. More
    earlier studies are found in the ``memory``.
    """

    def __init__(self, given: Arguments, *, memory: StudyMemory | None, noise: float) -> None:
        self._describe = given.describe
        self._given = given
        self._memory = memory
        self._noise = noise
        self._by_default = given.surrogate is None or given.surrogate is True
        self._asks = given.surrogate is not False
        if self._by_default:
            self._asks = names_trained_metric(given.context) and networks_checkpoint() is not None
        self._surrogate_leads = given.describe is not None and self._asks

    def n_startup_trials(self, study: Study, state: StudyState) -> int:
        """Trials of a study that spread over the space before the process is asked."""
        if self._given.n_startup_trials is not None:
            return self._given.n_startup_trials
        return 1 if self._surrogate_leads or self.earlier(study, state) else _STARTUP

    def earlier(self, study: Study, state: StudyState) -> list[EarlierTrials]:
        """The trials of earlier studies: ``warm_start`` first, then those of the store."""
        if state.earlier is None:
            known = trials_of(self._given.warm_start, len(study.directions))
            if self._memory is not None:
                known += self._memory.earlier(study)
            state.earlier = known
        return state.earlier

    @property
    def _declared_parameters(self) -> Mapping[str, Sequence[Any]]:
        """The values by parameter where ``describe`` is an architecture space."""
        return getattr(self._describe, "parameters", None) or {}

    def encoding(self, space: Mapping[str, BaseDistribution]) -> Encoding:
        """The encoding of a space; of an architecture space, of its valid networks only."""
        declared = self._declared_parameters
        if not declared or set(declared) != set(space):
            return Encoding(space)
        return Encoding(space, valid=self._describe.valid, sample=self._describe.sample)

    def opening(
        self,
        study: Study,
        state: StudyState,
        trial: FrozenTrial,
        name: str,
        distribution: BaseDistribution,
        rng: np.random.RandomState,
    ) -> float | None:
        """A value, as storages keep it, for a parameter that no finished trial has; None without any.

        Of the first trials the surrogate's choice among the networks of a space, or the best that
        earlier studies tried; the very first of a study about which nothing is known begins in the
        middle of its numbers, as Vizier's does (arXiv 2408.11527).
        """
        for params in self._openings(study, state, trial, rng):
            if name in params and (held := internal_of(distribution, params[name])) is not None:
                return held
        if trial.number == 0 and isinstance(distribution, (FloatDistribution, IntDistribution)):
            return Encoding({name: distribution}).internal(np.array([0.5]))[name]
        return None

    def _openings(
        self, study: Study, state: StudyState, trial: FrozenTrial, rng: np.random.RandomState
    ) -> list[Mapping[str, Any]]:
        """Parameters that a first trial may take, those that agree with what it has first."""
        trials = study.get_trials(deepcopy=False)
        finished = any(t.state.is_finished() for t in trials)
        if self._surrogate_leads and self._declared_parameters and not finished:
            if trial._trial_id not in state.opening:
                state.opening[trial._trial_id] = self._declared_opening(study, state, rng)
            return [state.opening[trial._trial_id]]
        lists = [known.best() for known in self.earlier(study, state)]
        best = [
            row[i] for i in range(max(map(len, lists), default=0)) for row in lists if i < len(row)
        ]
        if not best:
            if not self._declared_parameters:
                return []
            if trial._trial_id not in state.opening:
                drawn = self._describe.sample(np.random.default_rng(rng.randint(2**31 - 1)))
                state.opening[trial._trial_id] = drawn
            return [state.opening[trial._trial_id]]
        turn = 0
        if not finished:  # of several first trials at once each begins with another
            turn = sum(t.number < trial.number for t in trials if t.state == TrialState.RUNNING)
        turn %= len(best)
        agree = [sum(p.get(k) == v for k, v in trial.params.items()) for p in best]
        order = sorted(range(len(best)), key=lambda i: (-agree[i], (i - turn) % len(best)))
        return [best[i] for i in order]

    def _declared_opening(
        self, study: Study, state: StudyState, rng: np.random.RandomState
    ) -> dict[str, Any]:
        space = {n: CategoricalDistribution(v) for n, v in self._declared_parameters.items()}
        encoding = self.encoding(space)
        ranked = self._by_surrogate(Turn(study, state, SpaceState(), encoding, rng))
        return encoding.params(ranked[0])

    def rank(
        self, turn: Turn, *, fitted: bool = True, branch: Mapping[int, float] | None = None
    ) -> np.ndarray:
        """Raw vectors with every parameter, the most promising first, (m, d) with m >= 1.

        ``fitted`` says whether the process is; a stuck search also asks one that is not, and doubts more.
        ``branch`` are raw values that candidates are to have, by index. With fixed categories the best of
        the trials that have them is to be improved on, else the best of all.
        """
        data, space, encoding, rng = turn.data, turn.space, turn.encoding, turn.rng
        assert data is not None
        n = len(data.values)
        startup = self.n_startup_trials(turn.study, turn.state)
        if self._given.n_startup_trials is None and startup == _STARTUP:
            startup = max(startup, min(_PER_BRANCH * encoding.branches, _MAX_STARTUP))
        if n < max(startup, 1):
            return self._by_surrogate(turn) if self._surrogate_leads else self._spread_out(turn)
        refit = fitted and (n < 40 or n >= space.fitted_at * 1.1 or n < space.fitted_at)
        if refit:
            space.fitted_at = n
        priors = self._priors(turn)
        starts = space.starts if fitted else None
        fit = partial(StudyModel, data, refit=refit, noise=self._noise, rng=rng)
        model = fit(encoding, priors=priors, name="plain", starts=starts)
        encoding.fix_raw(branch or {})
        if branch := encoding.pinned:
            model.compete_with(
                np.all([data.raw[:, i] == value for i, value in branch.items()], axis=0)
            )
        good = data.raw[_best_rows(data, 12)]
        taken = set(keys(data.seen if encoding.cardinality < math.inf else data.pending))
        ranked = climb(encoding, model, good, taken, rng)
        if self._describe is None or not fitted:
            return ranked
        described = self._described(turn)
        good, others = (k // (1 if n < _MANY else 2) for k in _DESCRIBED)
        self._remember(turn, np.vstack([ranked[:good], encoding.random(rng, others)]))
        if taken:
            taken = set(keys(self._canonical(turn, data.seen)))
        fresh = [raw for key, raw in space.described.items() if key not in taken]
        pool = np.array(fresh) if fresh else ranked
        if space.describer is not None and space.describer.asks:
            priors = [*priors, described]
        model = fit(described, priors=priors, name="described", starts=space.starts)
        scores = model.score(encoding.prune(pool))
        return pool[np.argsort(-scores, kind="stable")]

    def _spread_out(self, turn: Turn) -> np.ndarray:
        """A point far from all seen, and no twin of one in an architecture space."""
        taken = set(keys(self._canonical(turn, turn.seen)))
        for _ in range(16):
            drawn = spread_out(turn.encoding, turn.seen, turn.rng)
            chosen = self._canonical(turn, drawn[None, :])
            if keys(chosen)[0] not in taken:
                break
        return chosen

    def _priors(self, turn: Turn) -> Sequence[PriorModel]:
        space = turn.space
        if space.earlier is None:
            space.earlier = EarlierStudies(turn.encoding, self.earlier(turn.study, turn.state))
        return [space.earlier] if len(space.earlier) else []

    def _described(self, turn: Turn) -> Descriptions:
        space = turn.space
        if space.descriptions is None:
            space.describer = Describer(
                self._describe, self._load(), only_networks=self._by_default
            )
            named = self._describe.name if is_known_space(self._describe) else None
            tasks = tasks_of(turn.study, self._given.context, named)
            reference = turn.encoding.random(turn.rng, _REFERENCE)
            space.descriptions = Descriptions(space.describer, turn.encoding, tasks, reference)
            self._remember(turn, reference)
        return space.descriptions

    def _by_surrogate(self, turn: Turn) -> np.ndarray:
        """Random candidates in the surrogate's order, before anything is known."""
        space, described = turn.space, self._described(turn)
        if space.describer is None or not space.describer.asks:
            return spread_out(turn.encoding, turn.seen, turn.rng)[None, :]
        self._remember(turn, turn.encoding.random(turn.rng, _FIRST))
        taken = set(keys(turn.seen))
        fresh = [raw for key, raw in space.described.items() if key not in taken]
        pool = np.array(fresh or list(space.described.values()))
        order = np.argsort(-described.predict(pool).mean((1, 2)), kind="stable")
        return pool[order]

    def _remember(self, turn: Turn, raw: np.ndarray) -> None:
        canonical = self._canonical(turn, turn.encoding.snap(raw))
        turn.space.described.update(zip(keys(canonical), canonical, strict=True))

    def _canonical(self, turn: Turn, raw: np.ndarray) -> np.ndarray:
        """Raw vectors of the representatives: of an architecture space, twins become one."""
        declared, known = self._declared_parameters, turn.space.representatives
        encoding = turn.encoding
        if not declared or set(declared) != set(encoding.names) or np.isnan(raw).any():
            return raw
        for key, row in zip(keys(raw), raw, strict=True):
            if key not in known:
                known[key] = encoding.raw(self._describe.canonical(encoding.params(row)))
        return np.array([known[key] for key in keys(raw)]).reshape(raw.shape)

    def _load(self) -> Any:
        if not self._asks:
            return None
        if self._by_default:
            return default_surrogate()
        if isinstance(self._given.surrogate, (str, os.PathLike)):
            from autotune_rlm.surrogate import load

            return load(os.fspath(self._given.surrogate))
        return self._given.surrogate


def is_stuck(encoding: Encoding, data: StudyData) -> bool:
    """Whether a search in a large space gains too little to go on as it does.

    Where the last eight trials gained less than a thousandth of what the best is above the median, the
    process may polish one branch, or have settled on an edge of a plateau that it takes for noise.
    """
    n, k = data.values.shape
    if k > 1 or n < 2 * _STILL or encoding.cardinality <= _FEW:
        return False
    values = np.where(data.feasible, data.values[:, 0], -np.inf)
    before, now = values[:-_STILL].max(), values.max()
    with np.errstate(invalid="ignore", over="ignore"):
        return bool(now - before <= _GAIN * (now - np.median(data.values[:, 0])))


def another_branch(
    encoding: Encoding, data: StudyData, rng: np.random.RandomState
) -> dict[int, float]:
    """A category that the best trial does not have, by index and raw value; those seldom tried first.

    Empty where no parameter is a category of few values.
    """
    best = data.raw[_best_rows(data, 1)[0]]
    others, tried = [], []
    for i in np.flatnonzero(encoding.unordered & encoding.free):
        grid = encoding.grids[i]
        if grid is None or len(grid) > _BRANCHES or math.isnan(best[i]):
            continue
        for value in grid[grid != best[i]]:
            others.append((int(i), float(value)))
            tried.append(int((data.raw[:, i] == value).sum()))
    if not others:
        return {}
    weight = 1.0 / (1.0 + np.array(tried)) ** 2
    return dict([others[rng.choice(len(others), p=weight / weight.sum())]])


def _best_rows(data: StudyData, n: int) -> np.ndarray:
    """Rows of good trials: feasible ones first, by their best rank among the objectives."""
    ranks = np.argsort(np.argsort(-data.values, axis=0, kind="stable"), axis=0)
    worst = np.where(data.feasible, 0, len(ranks))
    return np.argsort(ranks.min(1) + worst, kind="stable")[:n]
