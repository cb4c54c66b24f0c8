"""What to measure next, and when to stop: a short list of rules over a prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import ndtri
from scipy.stats import spearmanr

from autotune_rlm.learn.acquisition import log_expected_improvement
from autotune_rlm.learn.columns import encode_configs
from autotune_rlm.types import Candidate, Observation, Prediction, Task

__all__ = ["RULES", "Policy", "Rule", "Slot"]

_JITTER = 1e-6
_MIN_SPREAD = 1e-4
_HEDGE, _FROM = 4, 8  # every fourth from the ninth on
_EARLY, _FEW = (
    (2, 4),
    100,
)  # of up to 100 candidates the third and fifth too: the best of 300 H100 mm
_PATIENCE = 4
_AGREEMENT = 0.2  # Spearman's; below it an order says nothing of what was measured


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Chooses the candidates to measure next, and when to stop.

    Each choice is made by the first of ``RULES`` that has one: what must be measured; now and then a
    hedge, the best that is left in the surrogate's order before anything was measured; else the
    candidate of the largest worth.

    A candidate's worth is its expected improvement over the incumbent times the probability that
    it works (Jones et al. 1998, "Efficient Global Optimization"; Schonlau 1997 for the feasibility
    factor), in logarithms so that ranking never degenerates. On the logarithmic scale an
    improvement of 0.01 is one per cent. Before anything worked, the incumbent is a poor
    configuration (the 90 % quantile of the predictions), which makes the order that of the
    model with a price on failure.

    Several at once are chosen greedily (Wilson et al. 2018, "Maximizing acquisition functions for
    Bayesian optimization"): each further candidate is worth what it is expected to add to those
    before it, over joint draws in which configurations that are near each other err
    together and fail together. The first of them is the one that is chosen alone.

    Attributes:
        seed: Seeds the joint draws; equal arguments and seed give equal choices.
        batch: Measurements between two rankings. 1 learns from each; more save ranking, and cost
            measurements.
        min_gain: Stop when the expected improvement by all unmeasured candidates together is below
            this fraction of the incumbent's value; None never stops.
        patience: Measurements without an improvement that must have been made before a stop, twice as
            many where the surrogate's order is a guess (``Prediction.ordered``). None for as often as
            the candidates can be halved until two are left, at least 4: 4 of 32, 13 of 8,640.
        exploration: Factor on the predicted spread. Below 1 because part of a prediction's error is
            shared by all candidates of a task and cannot change their order.
        length: Distance, in units of one parameter's whole range, over which errors stay related.
        shortlist: Candidates that compete for a batch, by their own worth.
        draws: Joint draws; an even number.

    Raises:
        ValueError: An option is out of range.
    """

    seed: int = 0
    batch: int = 1
    min_gain: float | None = 0.003
    patience: int | None = None
    exploration: float = 0.7
    length: float = 0.5
    shortlist: int = 128
    draws: int = 512

    def __post_init__(self) -> None:
        for name in ("batch", "shortlist"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.min_gain is not None and not self.min_gain >= 0:
            raise ValueError(f"min_gain must be at least 0 or None, got {self.min_gain!r}")
        if self.patience is not None and self.patience < 0:
            raise ValueError(f"patience must be at least 0 or None, got {self.patience!r}")
        for name in ("exploration", "length"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)!r}")
        if self.draws < 2 or self.draws % 2:
            raise ValueError(f"draws must be an even number of at least 2, got {self.draws!r}")

    def choose(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        prediction: Prediction,
        observed: Sequence[Observation],
        n: int,
        *,
        must: Sequence[int] = (),
        zero_shot: Prediction | None = None,
        features: np.ndarray | None = None,
    ) -> list[int]:
        """Choose up to ``n`` candidates that were not measured, the most wanted first.

        Args:
            task: What is tuned.
            candidates: All candidates, measured ones included.
            prediction: The surrogate's word on ``candidates``, given ``observed``.
            observed: What was measured or skipped of this task; never chosen again.
            n: How many to choose; fewer come back only where fewer are left.
            must: Indices that come first, in this order, where not measured yet.
            zero_shot: The surrogate's word before anything was measured, for the choices that
                hedge; None for no such choices.
            features: ``encode_configs`` of the candidates, shape (len(candidates), columns);
                computed here where None.

        Returns:
            Distinct indices into ``candidates``; choosing more only adds to them at the end.
        """
        slot = self._slot(task, candidates, prediction, observed, features, must, zero_shot)
        n = min(n, int(slot.open.sum()))
        while len(slot.chosen) < n:
            pick = next(i for rule in RULES if (i := rule(slot)) is not None)
            slot.chosen.append(pick)
            slot.open[pick] = False
        return slot.chosen

    def log_worth(
        self, task: Task, prediction: Prediction, observed: Sequence[Observation]
    ) -> np.ndarray:
        """Logarithm of what each candidate alone is worth, shape (n,)."""
        return _View.of(task, prediction, observed, self.exploration).log_worth

    def expected_gain(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        prediction: Prediction,
        observed: Sequence[Observation],
        *,
        features: np.ndarray | None = None,
    ) -> float:
        """Expected improvement by all unmeasured candidates together.

        Returns:
            A fraction of the incumbent's value; 0.0 where nothing is left to measure and infinity
            where nothing worked yet.
        """
        slot = self._slot(task, candidates, prediction, observed, features)
        return slot.gain(enough=math.inf)

    def should_stop(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        prediction: Prediction,
        observed: Sequence[Observation],
        *,
        features: np.ndarray | None = None,
    ) -> bool:
        """Whether no better candidate is likely, by ``min_gain`` and ``patience``."""
        if self.min_gain is None:
            return False
        if len({o.candidate.key for o in observed}) >= len(candidates):
            return True
        patience = self.patience
        if patience is None:
            patience = max(_PATIENCE, math.ceil(math.log2(len(candidates) / 2)))
        if _since_best(task, observed) < (1 if prediction.ordered else 2) * patience:
            return False
        slot = self._slot(task, candidates, prediction, observed, features)
        return slot.gain(enough=self.min_gain) < self.min_gain

    def _slot(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        prediction: Prediction,
        observed: Sequence[Observation],
        features: np.ndarray | None,
        must: Sequence[int] = (),
        zero_shot: Prediction | None = None,
    ) -> Slot:
        if len(prediction) != len(candidates):
            raise ValueError(
                f"prediction must be of the {len(candidates)} candidates, got {len(prediction)}; "
                "pass surrogate.predict(task, candidates, ...) of the same list"
            )
        seen = {o.candidate.key for o in observed}
        return Slot(
            policy=self,
            task=task,
            candidates=candidates,
            prediction=prediction,
            observed=observed,
            must=must,
            zero_shot=zero_shot,
            features=features,
            open=np.array([c.key not in seen for c in candidates], dtype=bool),
        )


@dataclass(kw_only=True)
class Slot:
    """One choice to be made, as a rule sees it.

    Attributes:
        policy: The options.
        task: What is tuned.
        candidates: All n candidates.
        prediction: The surrogate's word on them, given ``observed``.
        observed: What was measured, in this order.
        must: Indices that are to be measured first.
        zero_shot: The surrogate's word before anything was measured.
        features: The candidates as numbers, shape (n, columns).
        open: Which candidates may be chosen, shape (n,).
        chosen: What was chosen since the last measurement.
    """

    policy: Policy
    task: Task
    candidates: Sequence[Candidate]
    prediction: Prediction
    observed: Sequence[Observation]
    must: Sequence[int]
    zero_shot: Prediction | None
    features: np.ndarray | None
    open: np.ndarray
    chosen: list[int] = field(default_factory=list)

    @property
    def number(self) -> int:
        """How many measurements come before this one."""
        return len(self.observed) + len(self.chosen)

    @cached_property
    def view(self) -> _View:
        """The prediction, to be minimised."""
        return _View.of(self.task, self.prediction, self.observed, self.policy.exploration)

    @property
    def log_worth(self) -> np.ndarray:
        """Logarithm of what each candidate alone is worth, shape (n,)."""
        return self.view.log_worth

    def best_of(self, order: np.ndarray) -> int | None:
        """The first index of ``order`` that may be chosen and rather works than not."""
        for i in order.tolist():
            if self.open[i] and self.prediction.p_valid[i] >= 0.5:
                return int(i)
        return None

    @cached_property
    def trusts_first_order(self) -> bool:
        """Whether the order before any measurement has anything to do with the one measured."""
        zero = self.zero_shot
        if zero is None:
            return False
        values = {o.candidate.key: o.measurement.value for o in self.observed if o.measurement.ok}
        at = [i for i, c in enumerate(self.candidates) if c.key in values]
        measured = np.array([values[self.candidates[i].key] for i in at], dtype=float)
        if len(at) < 3 or np.ptp(measured) == 0 or np.ptp(zero.median[at]) == 0:
            return True
        return bool(spearmanr(zero.median[at], measured).statistic > _AGREEMENT)

    def added(self) -> np.ndarray:
        """Logarithm of what each of the short list adds to those chosen, beside their indices.

        A candidate's worth alone is exact; the joint draws estimate the share of it that the others
        leave.
        """
        drawn, incumbent = self._drawn, self.view.incumbent
        mine = np.isin(self._short, self.chosen)
        best = np.minimum(incumbent, drawn[:, mine].min(axis=1, initial=np.inf))
        alone = np.maximum(incumbent - drawn, 0.0).mean(axis=0)
        more = np.maximum(best[:, None] - drawn, 0.0).mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.log_worth[self._short] + np.log(np.where(alone > 0, more / alone, 0.0))

    def likeliest(self) -> int:
        """The candidate that is expected to add most."""
        if not self.chosen:
            return int(np.argmax(np.where(self.open, self.log_worth, -np.inf)))
        for score in (self.added(), self.log_worth[self._short]):
            score = np.where(self.open[self._short], score, -np.inf)
            if np.isfinite(score).any():
                return int(self._short[np.argmax(score)])
        return int(np.argmax(np.where(self.open, self.log_worth, -np.inf)))

    def gain(self, enough: float) -> float:
        """Expected improvement by all open candidates, or a lower bound that reaches ``enough``."""
        if not self.open.any():
            return 0.0
        if not self.view.worked:
            return math.inf
        incumbent = self.view.incumbent
        unit = 1.0 if self.prediction.log_scale else max(abs(incumbent), 1e-12)
        best_alone = math.exp(self.log_worth[self.open].max()) / unit
        if best_alone >= enough:
            return best_alone
        return float(np.maximum(incumbent - self._drawn.min(axis=1), 0.0).mean()) / unit

    @cached_property
    def _short(self) -> np.ndarray:
        """Those chosen so far, then the open ones of most worth."""
        order = np.argsort(np.where(self.open, -self.log_worth, np.inf), kind="stable")
        order = order[: min(self.policy.shortlist, int(self.open.sum()))]
        return np.concatenate([np.array(self.chosen, dtype=int), order])

    @cached_property
    def _drawn(self) -> np.ndarray:
        """Joint draws of the short list's values, shape (draws, short); infinite where failed."""
        policy, short, view = self.policy, self._short, self.view
        features = self.features
        if features is None:
            features = encode_configs([c.config for c in self.candidates])
        related = _correlation(features[short], policy.length)
        root = np.linalg.cholesky(related + _JITTER * np.eye(len(short)))
        rng = np.random.default_rng([policy.seed, len(self.observed), int(self.task.key[:8], 16)])
        noise = rng.standard_normal((2, policy.draws // 2, len(short))) @ root.T
        error, luck = np.concatenate([noise, -noise], axis=1)
        drawn = view.location[short] + view.spread[short] * error
        return np.where(luck <= ndtri(view.p_valid[short]), drawn, np.inf)


Rule = Callable[[Slot], "int | None"]
"""Gives the candidate that it wants in a slot; None to leave it to the next rule."""


def first(slot: Slot) -> int | None:
    """What must be measured: the default, what is recommended, the nearest problem's best."""
    return next((i for i in slot.must if slot.open[i]), None)


def hedge(slot: Slot) -> int | None:
    """The best that is left in the order before any measurement, unless that order was wrong.

    A hedge against a correction that was misled by the first few measurements.
    """
    few = slot.observed and len(slot.candidates) <= _FEW and slot.number in _EARLY
    late = slot.number >= _FROM and slot.number % _HEDGE == _HEDGE - 1
    if not (few or late) or not slot.prediction.ordered or not slot.trusts_first_order:
        return None
    assert slot.zero_shot is not None
    return slot.best_of(slot.zero_shot.order(minimize=slot.task.minimize))


def improve(slot: Slot) -> int | None:
    """The candidate that is expected to improve most on what is known and chosen."""
    return slot.likeliest()


RULES: tuple[Rule, ...] = (first, hedge, improve)
"""The rules that fill a slot, in the order in which they are asked."""


@dataclass(frozen=True)
class _View:
    """A prediction seen by a minimiser: smaller is better, everything finite."""

    location: np.ndarray
    spread: np.ndarray
    p_valid: np.ndarray
    incumbent: float
    worked: bool

    @classmethod
    def of(
        cls,
        task: Task,
        prediction: Prediction,
        observed: Sequence[Observation],
        exploration: float,
    ) -> _View:
        sign = 1.0 if task.minimize else -1.0
        location = sign * prediction.location
        p_valid = np.clip(prediction.p_valid, 1e-6, 1.0)
        values = np.array(
            [o.measurement.value for o in observed if o.measurement.ok], dtype=np.float64
        )
        if prediction.log_scale:
            values = np.log(np.maximum(values, np.finfo(np.float64).tiny))
        if len(values):
            incumbent = float((sign * values).min())
        else:
            likely = location[p_valid >= min(0.5, p_valid.max())]
            incumbent = float(np.quantile(likely, 0.9))
        return cls(
            location=location,
            spread=np.maximum(exploration * prediction.spread, _MIN_SPREAD),
            p_valid=p_valid,
            incumbent=incumbent,
            worked=bool(len(values)),
        )

    @cached_property
    def log_worth(self) -> np.ndarray:
        """Logarithm of probability of working times expected improvement, shape (n,)."""
        gain = log_expected_improvement(-self.location, self.spread, -self.incumbent)
        return np.log(self.p_valid) + gain


def _since_best(task: Task, observed: Sequence[Observation]) -> int:
    """Measurements since the best one was made; 0 where none worked."""
    sign = 1.0 if task.minimize else -1.0
    values = [
        math.inf if o.measurement.value is None else sign * o.measurement.value for o in observed
    ]
    best = min(values, default=math.inf)
    return 0 if best == math.inf else len(values) - 1 - values.index(best)


def _correlation(features: np.ndarray, length: float) -> np.ndarray:
    """Squared-exponential correlation of the rows; the identity where they have no columns."""
    if not features.shape[1]:
        return np.eye(len(features))
    square = (features**2).sum(axis=1)
    distance2 = np.maximum(square[:, None] + square[None, :] - 2 * features @ features.T, 0.0)
    return np.exp(-0.5 * distance2 / length**2)
