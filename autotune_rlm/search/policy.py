"""What to measure next, and when to stop: a short list of rules over a prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import ndtri
from scipy.stats import spearmanr

from autotune_rlm._checks import check_number
from autotune_rlm.learn.acquisition import log_expected_improvement
from autotune_rlm.learn.columns import encode_configs
from autotune_rlm.types import Candidate, Observation, Prediction, Task

__all__ = ["RULES", "Policy", "Rule", "Slot"]

_JITTER = 1e-6
_MIN_SPREAD = 1e-4
_HEDGE_FROM = 8  # measurements made before hedges begin
_HEDGE_EVERY = 4  # measurements of which the last one is a hedge
_MAX_FEW = 100  # candidates up to which a search also hedges early
# Measurements made before each early hedge: the third and the fifth measurement hedge.
# Chosen on the recorded matrix products (`mm`) of an H100.
_EARLY_HEDGES = (2, 4)
# Measurements made before each copy of a near problem's best configuration. Many of a large space's
# configurations fail, and a copy works. Chosen on 240 of TorchInductor's landscapes (few) and on four
# Triton matmuls, a CLBlast GEMM and a dedispersion (many).
_COPIES_OF_FEW = (3, 5, 7)
FIRST_COPY = _COPIES_OF_FEW[0]
_COPIES_OF_MANY = (0, 2, 4)
_COPIES_UNFAMILIAR = (0, 1, 2, 4, 6)  # where the surrogate's training lacked such kernels
# Where the surrogate's order is a guess and something failed: measurements that must have worked before
# a model of them chooses, and random candidates of which the best by that guess is measured. On 7 Triton
# matmuls, half of whose configurations fail, the best of 4 is better than the best of 1 (a random order)
# and much better than the best of 64. Without failures the order is worth more: docs/benchmarks.md.
_EXPLORED = 4
_DRAWN = 4
_PATIENCE = 4  # fewest measurements without an improvement before a stop
_AGREEMENT = 0.2  # Spearman correlation up to which predicted and measured order disagree


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Chooses the candidates to measure next, and when to stop.

    The first of ``RULES`` that has a candidate makes the choice. Candidates that must be measured come
    first. Now and then follows a copy of a near problem's best configuration, or a hedge: the best
    unmeasured candidate in the surrogate's order before anything was measured. Otherwise the candidate
    of the largest worth is chosen.

    A candidate's worth is its expected improvement over the incumbent times the probability that
    it works (Jones et al. 1998, "Efficient Global Optimization"; Schonlau 1997 for the feasibility
    factor). It is computed as a logarithm, so that tiny values still rank. On the logarithmic scale an
    improvement of 0.01 is one per cent. Before anything worked, the incumbent is a poor
    configuration (the 90 % quantile of the predictions), so that candidates rank by the model's
    prediction with a penalty on failure.

    A batch is chosen greedily (Wilson et al. 2018, "Maximizing acquisition functions for
    Bayesian optimization"): each further candidate is worth the improvement that it is expected to add
    to those before it. The expectation is over joint draws, in which the errors and failures of
    similar configurations correlate. The batch's first candidate is the same as in a batch of one.

    Attributes:
        seed: Seeds the joint draws; equal arguments and seed give equal choices.
        batch: Measurements between two rankings. 1 ranks after each measurement; more save time for
            ranking and need more measurements.
        min_gain: Stop when the expected improvement by all unmeasured candidates together is below
            this fraction of the incumbent's value; None never stops.
        patience: Measurements without an improvement that must have been made before a stop, twice as
            many where the surrogate's training lacked the kernel or the device
            (``Prediction.unfamiliar``), four times where its order is a guess or most measurements
            contradict it. None for as often as the candidates can be halved until two are left, at
            least 4: 4 for 32 candidates, 13 for 8,640.
        exploration: Factor on the predicted spread. Below 1 because part of a prediction's error is
            shared by all candidates of a task and cannot change their order.
        length: Correlation length of prediction errors, as a fraction of a parameter's range.
        shortlist: Candidates of the largest individual worth that compete for a batch.
        draws: Number of joint draws; an even number.

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
            check_number(name, getattr(self, name), least=1, whole=True)
        for name in ("min_gain", "patience"):
            check_number(name, getattr(self, name), least=0, none=True)
        for name in ("exploration", "length"):
            check_number(name, getattr(self, name), above=0)
        if self.draws < 2 or self.draws % 2:
            raise ValueError(f"draws must be an even number of at least 2, got {self.draws!r}")

    def choose(self, slot: Slot, n: int) -> list[int]:
        """Choose up to ``n`` unmeasured candidates, the most promising first.

        Args:
            slot: What is known. It keeps what is chosen.
            n: How many to choose; fewer come back only where fewer are left.

        Returns:
            Distinct indices into the candidates; a larger ``n`` only appends to them.
        """
        n = min(n, int(slot.open.sum()))
        while len(slot.chosen) < n:
            pick = next(i for rule in RULES if (i := rule(slot)) is not None)
            slot.chosen.append(pick)
            slot.open[pick] = False
        return slot.chosen

    def should_stop(self, slot: Slot) -> bool:
        """Whether no better candidate is likely, by ``min_gain`` and ``patience``."""
        if self.min_gain is None:
            return False
        if not slot.open.any():
            return True
        patience = self.patience
        if patience is None:
            patience = max(_PATIENCE, math.ceil(math.log2(len(slot.candidates) / 2)))
        prediction = slot.prediction
        doubt = 2 if prediction.unfamiliar else 1
        if not prediction.ordered or slot.contradicted:
            doubt = 4
        if _since_best(slot.task, slot.observed) < doubt * patience:
            return False
        return slot.gain(enough=self.min_gain) < self.min_gain


@dataclass(kw_only=True)
class Slot:
    """One choice to be made, as a rule sees it.

    Attributes:
        policy: The options.
        task: What is tuned.
        candidates: All n candidates.
        prediction: The surrogate's prediction for them, given ``observed``.
        observed: The observations, in the order of measuring, skipped candidates included. None of
            them is chosen again.
        must: Indices that are to be measured first, in this order.
        near: Indices of the best configurations of known problems, the nearest problem's first.
        zero_shot: The surrogate's prediction before anything was measured; None for no hedges.
        features: The candidates as numbers (``encode_configs``), shape (n, columns).
        open: Which candidates may be chosen, shape (n,).
        chosen: Indices chosen since the last measurement.

    Raises:
        ValueError: The prediction is not one of the candidates.
    """

    policy: Policy
    task: Task
    candidates: Sequence[Candidate]
    prediction: Prediction
    observed: Sequence[Observation]
    must: Sequence[int] = ()
    near: Sequence[int] = ()
    zero_shot: Prediction | None = None
    features: np.ndarray | None = None
    open: np.ndarray = field(init=False)
    chosen: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if len(self.prediction) != len(self.candidates):
            raise ValueError(
                f"prediction must be of the {len(self.candidates)} candidates, got "
                f"{len(self.prediction)}; pass surrogate.predict(task, candidates, ...) of the same list"
            )
        seen = {o.candidate.key for o in self.observed}
        self.open = np.array([c.key not in seen for c in self.candidates], dtype=bool)

    @property
    def number(self) -> int:
        """How many measurements come before this one."""
        return len(self.observed) + len(self.chosen)

    @cached_property
    def view(self) -> _View:
        """The prediction, to be minimised."""
        sign = 1.0 if self.task.minimize else -1.0
        location = sign * self.prediction.location
        p_valid = np.clip(self.prediction.p_valid, 1e-6, 1.0)
        values = self._worked[1]
        if self.prediction.log_scale:
            values = np.log(np.maximum(values, np.finfo(np.float64).tiny))
        if len(values):
            incumbent = (sign * values).min()
        else:
            incumbent = np.quantile(location[p_valid >= min(0.5, p_valid.max())], 0.9)
        spread = np.maximum(self.policy.exploration * self.prediction.spread, _MIN_SPREAD)
        return _View(location, spread, p_valid, float(incumbent), bool(len(values)))

    @property
    def log_worth(self) -> np.ndarray:
        """Logarithm of what each candidate alone is worth, shape (n,)."""
        return self.view.log_worth

    def best_of(self, order: np.ndarray) -> int | None:
        """The first index of ``order`` that may be chosen and works with probability at least 0.5."""
        for i in order.tolist():
            if self.open[i] and self.prediction.p_valid[i] >= 0.5:
                return int(i)
        return None

    @cached_property
    def trusts_first_order(self) -> bool:
        """Whether the predicted order before any measurement correlates with the measured order."""
        zero, (at, measured) = self.zero_shot, self._worked
        if zero is None:
            return False
        if len(at) < 3 or np.ptp(measured) == 0 or np.ptp(zero.median[at]) == 0:
            return True
        return bool(spearmanr(zero.median[at], measured).statistic > _AGREEMENT)

    @property
    def contradicted(self) -> bool:
        """Whether most measured values are outside of the intervals predicted before any measurement.

        The surrogate then takes the kernel for another one, mostly because its parameters have the same
        names.
        """
        at, measured = self._worked
        if self.zero_shot is None or not len(at):
            return False
        low, high = self.zero_shot.low[at], self.zero_shot.high[at]
        return bool(np.mean((measured < low) | (measured > high)) > 0.5)

    @cached_property
    def _worked(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices and values of the candidates that worked."""
        values = {o.candidate.key: o.measurement.value for o in self.observed if o.measurement.ok}
        at = [i for i, c in enumerate(self.candidates) if c.key in values]
        measured = [values[self.candidates[i].key] for i in at]
        return np.array(at, dtype=int), np.array(measured, dtype=float)

    def added(self) -> np.ndarray:
        """Logarithm of the worth that each shortlisted candidate adds to those chosen, shape (short,).

        A candidate's own worth is exact. The joint draws only estimate the share of it that remains
        beside those already chosen.
        """
        drawn, incumbent = self._drawn, self.view.incumbent
        mine = np.isin(self._short, self.chosen)
        best = np.minimum(incumbent, drawn[:, mine].min(axis=1, initial=np.inf))
        alone = np.maximum(incumbent - drawn, 0.0).mean(axis=0)
        more = np.maximum(best[:, None] - drawn, 0.0).mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.log_worth[self._short] + np.log(np.where(alone > 0, more / alone, 0.0))

    def likeliest(self) -> int:
        """The open candidate that is expected to add the largest improvement."""
        for score in (self.added(), self.log_worth[self._short]) if self.chosen else ():
            score = np.where(self.open[self._short], score, -np.inf)
            if np.isfinite(score).any():
                return int(self._short[np.argmax(score)])
        return int(np.argmax(np.where(self.open, self.log_worth, -np.inf)))

    def gain(self, enough: float) -> float:
        """Expected improvement by all open candidates, or a lower bound of at least ``enough``."""
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
        """Indices of the chosen candidates, then of the open ones of the largest worth."""
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
"""Returns the index of a candidate for a slot, or None to leave it to the next rule."""


def first(slot: Slot) -> int | None:
    """The next that must be measured: the default, then what was suggested."""
    return next((i for i in slot.must if slot.open[i]), None)


def copy(slot: Slot) -> int | None:
    """The best open configuration of a known problem, that of the nearest first."""
    few = len(slot.candidates) <= _MAX_FEW
    at = _COPIES_OF_FEW if few else _COPIES_OF_MANY
    if slot.number not in (at if slot.prediction.familiar else _COPIES_UNFAMILIAR):
        return None
    return next((i for i in slot.near if slot.open[i]), None)


def hedge(slot: Slot) -> int | None:
    """The best open candidate of the zero-shot order, unless measurements contradict that order.

    It guards against a correction that the first few measurements misled.
    """
    few = slot.observed and len(slot.candidates) <= _MAX_FEW
    early = few and slot.number in _EARLY_HEDGES
    late = slot.number >= _HEDGE_FROM and slot.number % _HEDGE_EVERY == _HEDGE_EVERY - 1
    if not (early or late) or not slot.prediction.ordered or not slot.trusts_first_order:
        return None
    assert slot.zero_shot is not None
    return slot.best_of(slot.zero_shot.order(minimize=slot.task.minimize))


def explore(slot: Slot) -> int | None:
    """The best of a few random candidates, once something failed in an order that is a guess."""
    worked = sum(o.measurement.ok for o in slot.observed)
    failed = worked < len(slot.observed)
    if slot.prediction.ordered or not failed or worked + len(slot.chosen) >= _EXPLORED:
        return None
    seed = [slot.policy.seed, slot.number, int(slot.task.key[:8], 16)]
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(slot.open))[:_DRAWN]
    return int(drawn[np.argmax(slot.log_worth[drawn])])


def improve(slot: Slot) -> int | None:
    """The candidate with the largest expected improvement over those measured and chosen."""
    return slot.likeliest()


RULES: tuple[Rule, ...] = (first, copy, hedge, explore, improve)
"""The rules that fill a slot, in the order in which they are asked."""


@dataclass(frozen=True)
class _View:
    """A prediction for a minimiser: smaller is better, and every number is finite."""

    location: np.ndarray
    spread: np.ndarray
    p_valid: np.ndarray
    incumbent: float
    worked: bool

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
