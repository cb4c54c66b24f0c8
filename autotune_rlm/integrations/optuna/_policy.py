"""Which point to try next, given the trials so far and what is known beyond them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution

from autotune_rlm.integrations.onnx._default import default_surrogate, networks_checkpoint
from autotune_rlm.integrations.optuna._describe import Describer, names_trained_metric, tasks_of
from autotune_rlm.integrations.optuna._encoding import Encoding
from autotune_rlm.integrations.optuna._knowledge import Descriptions, EarlierStudies, trials_of
from autotune_rlm.integrations.optuna._memory import StudyMemory
from autotune_rlm.integrations.optuna._model import StudyModel, Trend
from autotune_rlm.integrations.optuna._propose import climb, keys, spread_out
from autotune_rlm.integrations.optuna._trials import StudyData
from autotune_rlm.networks.rendering import is_known_space

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["Policy", "is_stuck"]

_STARTUP = 6
_REFERENCE = 48  # random points that fix the scale of what descriptions say
_FIRST = 128  # random candidates that a surrogate chooses the first trial from
_DESCRIBED = (24, 8)  # most promising and random candidates described per trial
_MANY = 200  # trials from which on half as many are


class Policy:
    """Startup, then the process's choice; with descriptions, a second look at its best ones.

    Args:
        describe: As of ``RLMSampler``, like all others.
        context: What the surrogate should know.
        surrogate: A surrogate, its name, False for none, None for the default.
        warm_start: Earlier studies.
        memory: Where more of them are found.
        n_startup_trials: None for the default.
        noise: Expected variance of the noise.
    """

    def __init__(
        self,
        *,
        describe: Any,
        context: Any,
        surrogate: Any,
        warm_start: Sequence[Study],
        memory: StudyMemory | None,
        n_startup_trials: int | None,
        noise: float,
    ) -> None:
        self._describe = describe
        self._context = context
        self._surrogate = surrogate
        self._by_default = surrogate is None or surrogate is True
        self._warm_start = warm_start
        self._memory = memory
        self._noise = noise
        self._asks = surrogate is not False
        if self._by_default:
            self._asks = names_trained_metric(context) and networks_checkpoint() is not None
        self._surrogate_leads = describe is not None and self._asks
        leads = self._surrogate_leads or bool(warm_start)
        usual = 1 if leads else _STARTUP
        self.n_startup_trials = usual if n_startup_trials is None else n_startup_trials
        self._describer: Describer | None = None
        self.forget()

    @property
    def declared_parameters(self) -> Mapping[str, Sequence[Any]]:
        """The values by parameter where ``describe`` is an architecture space."""
        return getattr(self._describe, "parameters", None) or {}

    def encoding(self, space: Mapping[str, BaseDistribution]) -> Encoding:
        """The encoding of a space; of an architecture space, of its valid networks only."""
        declared = self.declared_parameters
        if not declared or set(declared) != set(space):
            return Encoding(space)
        return Encoding(space, valid=self._describe.valid, sample=self._describe.sample)

    def forget(self) -> None:
        """Drop what was fitted to a space, because another is sampled now."""
        self._starts: dict[str, np.ndarray] = {}
        self._fitted_at = 0
        self._descriptions: Descriptions | None = None
        self._earlier: EarlierStudies | None = None
        self._described_pool: dict[tuple[float, ...], np.ndarray] = {}
        self._representatives: dict[tuple[float, ...], np.ndarray] = {}

    def rank(
        self,
        study: Study,
        space: Mapping[str, BaseDistribution],
        encoding: Encoding,
        data: StudyData,
        rng: np.random.RandomState,
    ) -> np.ndarray:
        """Raw vectors, the most promising first, shape (m, d) with m >= 1."""
        n = len(data.values)
        seen = np.vstack([data.raw, data.pending, data.failed])
        if n < max(self.n_startup_trials, 1):
            if self._surrogate_leads:
                return self._by_surrogate(study, encoding, seen, rng)
            return spread_out(encoding, seen, rng)[None, :]
        refit = n < 40 or n >= self._fitted_at * 1.1 or n < self._fitted_at
        if refit:
            self._fitted_at = n
        trends = self._trends(study, space, encoding)
        model = self._model("plain", data, encoding.points, trends, refit)
        good = data.raw[_best_rows(data, 12)]
        finite = encoding.cardinality < math.inf
        taken = set(keys(seen if finite else data.pending))
        ranked = climb(encoding, lambda raw: model.score(raw, rng), good, taken, rng)
        if self._describe is None:
            return ranked
        return self._second_look(study, encoding, data, ranked, taken, rng, trends, refit)

    def _model(
        self, name: str, data: StudyData, encode: Any, trends: list[Trend], refit: bool
    ) -> StudyModel:
        return StudyModel(
            data,
            encode,
            trends=trends,
            name=name,
            starts=self._starts,
            refit=refit,
            noise=self._noise,
        )

    def _trends(
        self, study: Study, space: Mapping[str, BaseDistribution], encoding: Encoding
    ) -> list[Trend]:
        if not self._warm_start and self._memory is None:
            return []
        if self._earlier is None:
            known = trials_of(self._warm_start, encoding, space, len(study.directions))
            if self._memory is not None:
                known += self._memory.earlier(study, encoding, space)
            self._earlier = EarlierStudies(encoding, known)
        earlier = self._earlier
        return [lambda raw, i=i: earlier.trends(raw)[i] for i in range(len(earlier))]  # type: ignore[misc]

    def _second_look(
        self,
        study: Study,
        encoding: Encoding,
        data: StudyData,
        ranked: np.ndarray,
        taken: set[tuple[float, ...]],
        rng: np.random.RandomState,
        trends: list[Trend],
        refit: bool,
    ) -> np.ndarray:
        """The best candidates again, by a process that also reads their descriptions."""
        described = self._described(study, encoding, rng)
        good, others = (k // (1 if len(data.values) < _MANY else 2) for k in _DESCRIBED)
        self._remember(encoding, np.vstack([ranked[:good], encoding.random(rng, others)]))
        if taken:
            taken = set(keys(self._canonical(encoding, np.array(sorted(taken)))))
        fresh = [raw for key, raw in self._described_pool.items() if key not in taken]
        pool = np.array(fresh) if fresh else ranked
        if self._describer is not None and self._describer.asks:
            trends = [*trends, described.trend]
        model = self._model("described", data, described.points, trends, refit)
        scores = model.score(pool, rng)
        return pool[np.argsort(-scores, kind="stable")]

    def _described(
        self, study: Study, encoding: Encoding, rng: np.random.RandomState
    ) -> Descriptions:
        if self._descriptions is None:
            self._describer = Describer(
                self._describe, self._load(), only_networks=self._by_default
            )
            space = self._describe.name if is_known_space(self._describe) else None
            tasks = tasks_of(study, self._context, space)
            reference = encoding.random(rng, _REFERENCE)
            self._descriptions = Descriptions(self._describer, encoding, tasks, reference)
            self._remember(encoding, reference)
        return self._descriptions

    def _by_surrogate(
        self, study: Study, encoding: Encoding, seen: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        """Random candidates in the surrogate's order, before anything is known."""
        described = self._described(study, encoding, rng)
        if self._describer is None or not self._describer.asks:
            return spread_out(encoding, seen, rng)[None, :]
        self._remember(encoding, encoding.random(rng, _FIRST))
        taken = set(keys(seen))
        pool = np.array([raw for key, raw in self._described_pool.items() if key not in taken])
        return pool[np.argsort(-described.trend(pool).mean(1), kind="stable")]

    def _remember(self, encoding: Encoding, raw: np.ndarray) -> None:
        canonical = self._canonical(encoding, encoding.snap(raw))
        self._described_pool.update(zip(keys(canonical), canonical, strict=True))

    def _canonical(self, encoding: Encoding, raw: np.ndarray) -> np.ndarray:
        """Raw vectors of the representatives: of an architecture space, twins become one."""
        declared = self.declared_parameters
        if not declared or set(declared) != set(encoding.names):
            return raw
        space, known = self._describe, self._representatives
        for key, row in zip(keys(raw), raw, strict=True):
            if key not in known:
                known[key] = encoding.raw(space.canonical(encoding.params(row)))
        return np.array([known[key] for key in keys(raw)])

    def _load(self) -> Any:
        if not self._asks:
            return None
        if self._by_default:
            return default_surrogate()
        if isinstance(self._surrogate, str):
            from autotune_rlm.surrogate import load

            return load(self._surrogate)
        return self._surrogate


def is_stuck(encoding: Encoding, data: StudyData) -> bool:
    """Whether a continuous search should try another sampler's idea now: one trial in three.

    Where the best value is older than the last ten trials, the process may have settled on an edge
    of a plateau that it takes for noise.
    """
    n, k = data.values.shape
    if k > 1 or n < 20 or n % 3 or encoding.cardinality < math.inf:
        return False
    values = np.where(data.feasible, data.values[:, 0], -np.inf)
    return int(np.argmax(values)) < n - 10


def _best_rows(data: StudyData, n: int) -> np.ndarray:
    """Rows of good trials: feasible ones first, by their best rank among the objectives."""
    ranks = np.argsort(np.argsort(-data.values, axis=0, kind="stable"), axis=0)
    worst = np.where(data.feasible, 0, len(ranks))
    return np.argsort(ranks.min(1) + worst, kind="stable")[:n]
