"""What to measure next: expected improvement over correlated predictions, chosen in batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import spearmanr

from autotune_rlm.learn.acquisition import log_expected_improvement
from autotune_rlm.learn.columns import encode_configs
from autotune_rlm.types import Candidate, Observation, Prediction, Task

__all__ = ["Policy", "is_novel"]

_JITTER = 1e-6
_MIN_SPREAD = 1e-4
_HEDGE = 4
_LEARNED = 8
_EARLY, _FEW = (2, 4), 100
_AGREEMENT = 0.2


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Chooses the candidates to measure next, and when to stop.

    One candidate alone is worth its expected improvement over the incumbent times the
    probability that it works (Jones et al. 1998, "Efficient Global Optimization"; Schonlau 1997
    for the feasibility factor), computed in logarithms so that ranking never degenerates (Ament
    et al. 2023, "Unexpected Improvements to Expected Improvement"). On the logarithmic scale an
    improvement of 0.01 is one per cent. Before anything worked, the incumbent is a poor
    configuration (the 90 % quantile of the predictions), which makes the order that of the
    model with a price on failure.

    A batch is filled greedily (Wilson et al. 2018, "Maximizing acquisition functions for
    Bayesian optimization"): each further candidate is worth what it is expected to add to those
    already in the batch, over joint draws in which configurations that are near each other err
    together and fail together. Near-twins therefore add little and a batch spreads exactly as
    far as the model's own spread and doubt about validity ask for.

    From the ninth measurement on, one in four goes to the best that is left in the surrogate's order
    before anything was measured: a hedge against a correction that was misled by the first few. Of up
    to 100 candidates the third and the fifth measurement do so too; of more, the favourites are
    near-twins. Where that order disagrees with what was measured, there is none.

    Where the surrogate was never told values of configurations like these (``novel``), three of four
    choices before the ninth measurement are taken from its better half, or better eight, as far
    apart as they can be (Gonzalez 1985, farthest first). Its order is then worth something, its
    favourites are not, and they are near-twins.

    Attributes:
        seed: Seeds the joint draws; equal arguments and seed give equal choices.
        batch: Measurements per round; None for a quarter of the budget, at least 1 and at most 8.
        min_gain: Stop when the expected improvement by all unmeasured candidates together is below
            this fraction of the incumbent's value; None never stops.
        exploration: Factor on the predicted spread. Below 1 because part of a prediction's error is
            shared by all candidates of a task and cannot change their order.
        length: Distance, in units of one parameter's whole range, over which errors stay related.
        shortlist: Candidates that compete for a batch, by their own worth.
        draws: Joint draws; an even number.

    Raises:
        ValueError: An option is out of range.
    """

    seed: int = 0
    batch: int | None = None
    min_gain: float | None = 0.003
    exploration: float = 0.7
    length: float = 0.5
    shortlist: int = 128
    draws: int = 512

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"batch must be at least 1 or None, got {self.batch!r}")
        if self.min_gain is not None and not self.min_gain >= 0:
            raise ValueError(f"min_gain must be at least 0 or None, got {self.min_gain!r}")
        for name in ("exploration", "length"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)!r}")
        if self.shortlist < 1:
            raise ValueError(f"shortlist must be at least 1, got {self.shortlist!r}")
        if self.draws < 2 or self.draws % 2:
            raise ValueError(f"draws must be an even number of at least 2, got {self.draws!r}")

    def batch_size(self, budget: int) -> int:
        """Measurements per round of a search that may make ``budget`` of them."""
        return self.batch if self.batch is not None else min(8, max(1, math.ceil(budget / 4)))

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
        novel: bool = False,
        features: np.ndarray | None = None,
    ) -> list[int]:
        """Choose up to ``n`` candidates that were not measured, the most wanted first.

        Args:
            task: What is tuned.
            candidates: All candidates, measured ones included.
            prediction: The surrogate's word on ``candidates``, given ``observed``.
            observed: What was measured or skipped of this task; never chosen again.
            n: How many to choose; fewer come back only where fewer are left.
            must: Indices that come first in this batch, in this order, where not measured yet.
            zero_shot: The surrogate's word before anything was measured, for the choices that
                hedge or spread out; None for no such choices.
            novel: Whether the surrogate was never told values of such configurations.
            features: ``encode_configs`` of the candidates, shape (len(candidates), columns);
                computed here where None.

        Returns:
            Distinct indices into ``candidates``.
        """
        self._check(candidates, prediction)
        open_ = _unmeasured(candidates, observed)
        left = set(open_.tolist())
        chosen = [i for i in dict.fromkeys(must) if i in left][: max(n, 0)]
        slots = range(len(observed) + len(chosen), len(observed) + n)
        if novel and zero_shot is not None:
            wide = sum(0 < slot < _LEARNED and slot % _HEDGE != 0 for slot in slots)
            if features is None:
                features = encode_configs([c.config for c in candidates])
            better = zero_shot.order(minimize=task.minimize)
            better = better[: max(_LEARNED, len(better) // 2)]
            taken = np.setdiff1d(np.arange(len(candidates)), open_).tolist() + chosen
            chosen += _farthest(features, better[np.isin(better, open_)], taken, wide)
        early = _EARLY if observed and not novel and len(candidates) <= _FEW else ()
        hedges = sum(_hedged(slot, early) for slot in slots)
        if hedges and zero_shot is not None and _agrees(zero_shot, candidates, observed):
            likely = left.intersection(np.flatnonzero(prediction.p_valid >= 0.5)) - set(chosen)
            ranked = zero_shot.order(minimize=task.minimize).tolist()
            chosen += [i for i in ranked if i in likely][:hedges]
        wanted = min(n, len(open_)) - len(chosen)
        if wanted <= 0:
            return chosen
        view = _View.of(task, prediction, observed, self.exploration)
        worth = view.log_worth()
        rest = np.setdiff1d(open_, chosen)
        order = rest[np.argsort(-worth[rest], kind="stable")]
        if (wanted == 1 and not chosen) or wanted == len(rest):
            return chosen + order[:wanted].tolist()
        short = np.concatenate([chosen, order[: max(self.shortlist, 2 * wanted)]]).astype(int)
        drawn = self._draw(task, view, candidates, short, len(observed), features)
        return short[_fill(worth[short], drawn, view.incumbent, len(chosen), wanted)].tolist()

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
        return self._gain(task, candidates, prediction, observed, features, math.inf)

    def should_stop(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        prediction: Prediction,
        observed: Sequence[Observation],
        *,
        features: np.ndarray | None = None,
    ) -> bool:
        """Whether ``expected_gain`` fell below ``min_gain``: no better candidate is likely."""
        if self.min_gain is None:
            return False
        enough = self.min_gain
        return self._gain(task, candidates, prediction, observed, features, enough) < enough

    def _gain(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        prediction: Prediction,
        observed: Sequence[Observation],
        features: np.ndarray | None,
        enough: float,
    ) -> float:
        """``expected_gain``, or any lower bound of it that reaches ``enough``."""
        self._check(candidates, prediction)
        open_ = _unmeasured(candidates, observed)
        if not len(open_):
            return 0.0
        view = _View.of(task, prediction, observed, self.exploration)
        if not view.worked:
            return math.inf
        unit = 1.0 if prediction.log_scale else max(abs(view.incumbent), 1e-12)
        worth = view.log_worth()[open_]
        best_alone = math.exp(worth.max()) / unit
        if best_alone >= enough:
            return best_alone
        short = open_[np.argsort(-worth, kind="stable")[: self.shortlist]]
        drawn = self._draw(task, view, candidates, short, len(observed), features)
        return float(np.maximum(view.incumbent - drawn.min(axis=1), 0.0).mean()) / unit

    @staticmethod
    def _check(candidates: Sequence[Candidate], prediction: Prediction) -> None:
        if len(prediction) != len(candidates):
            raise ValueError(
                f"prediction must be of the {len(candidates)} candidates, got {len(prediction)}; "
                "pass surrogate.predict(task, candidates, ...) of the same list"
            )

    def _draw(
        self,
        task: Task,
        view: _View,
        candidates: Sequence[Candidate],
        short: np.ndarray,
        n_observed: int,
        features: np.ndarray | None,
    ) -> np.ndarray:
        """Joint draws of the short list's values, shape (draws, short); infinite where failed."""
        if features is None:
            features = encode_configs([c.config for c in candidates])
        related = _correlation(features[short], self.length)
        root = np.linalg.cholesky(related + _JITTER * np.eye(len(short)))
        rng = np.random.default_rng([self.seed, n_observed, int(task.key[:8], 16)])
        noise = rng.standard_normal((2, self.draws // 2, len(short))) @ root.T
        error, luck = np.concatenate([noise, -noise], axis=1)
        drawn = view.location[short] + view.spread[short] * error
        return np.where(luck <= ndtri(view.p_valid[short]), drawn, np.inf)


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

    def log_worth(self) -> np.ndarray:
        """Logarithm of probability of working times expected improvement, shape (n,)."""
        gain = log_expected_improvement(-self.location, self.spread, -self.incumbent)
        return np.log(self.p_valid) + gain


def is_novel(surrogate: object, task: Task, candidates: Sequence[Candidate]) -> bool:
    """Whether a surrogate says that it was never told values of such configurations.

    One that says nothing of what it knows (has no ``knows(task, candidates)``) is trusted.
    """
    knows = getattr(surrogate, "knows", None)
    return knows is not None and not knows(task, candidates)


def _hedged(slot: int, early: Sequence[int]) -> bool:
    return slot in early or (slot >= _LEARNED and slot % _HEDGE == _HEDGE - 1)


def _unmeasured(candidates: Sequence[Candidate], observed: Sequence[Observation]) -> np.ndarray:
    seen = {o.candidate.key for o in observed}
    return np.array([i for i, c in enumerate(candidates) if c.key not in seen], dtype=int)


def _farthest(features: np.ndarray, among: np.ndarray, taken: list[int], n: int) -> list[int]:
    """Up to n of the rows ``among``, each as far as can be from those taken and those before it."""
    chosen: list[int] = []
    distance = np.full(len(among), np.inf)
    for row in taken:
        distance = np.minimum(distance, ((features[among] - features[row]) ** 2).sum(1))
    distance[np.isin(among, taken)] = -1.0
    for _ in range(n):
        if not (distance >= 0).any():
            break
        at = int(np.argmax(distance))
        chosen.append(int(among[at]))
        near = ((features[among] - features[among[at]]) ** 2).sum(1)
        distance = np.where(distance < 0, distance, np.minimum(distance, near))
        distance[at] = -1.0
    return chosen


def _agrees(
    zero_shot: Prediction, candidates: Sequence[Candidate], observed: Sequence[Observation]
) -> bool:
    """Whether the order predicted for those measured has anything to do with the one measured."""
    values = {o.candidate.key: o.measurement.value or 0.0 for o in observed if o.measurement.ok}
    at = [i for i, c in enumerate(candidates) if c.key in values]
    measured = [values[candidates[i].key] for i in at]
    if len(at) < 3 or np.ptp(measured) == 0 or np.ptp(zero_shot.median[at]) == 0:
        return True
    return bool(spearmanr(zero_shot.median[at], measured).statistic > _AGREEMENT)


def _correlation(features: np.ndarray, length: float) -> np.ndarray:
    """Squared-exponential correlation of the rows; the identity where they have no columns."""
    if not features.shape[1]:
        return np.eye(len(features))
    square = (features**2).sum(axis=1)
    distance2 = np.maximum(square[:, None] + square[None, :] - 2 * features @ features.T, 0.0)
    return np.exp(-0.5 * distance2 / length**2)


def _fill(
    log_worth: np.ndarray, drawn: np.ndarray, incumbent: float, n_given: int, wanted: int
) -> list[int]:
    """Grow a batch: the first ``n_given`` columns are in it, add ``wanted`` more.

    The exact worth of each candidate alone is discounted by the share of it that the batch so far
    leaves, which the draws estimate.
    """
    batch = list(range(n_given))
    best = np.minimum(incumbent, drawn[:, :n_given].min(axis=1, initial=np.inf))
    alone = np.maximum(incumbent - drawn, 0.0).mean(axis=0)
    for _ in range(wanted):
        added = np.maximum(best[:, None] - drawn, 0.0).mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(alone > 0, added / alone, 1.0 if not batch else 0.0)
            score = log_worth + np.log(share)
        score[batch] = -np.inf
        if not np.isfinite(score).any():
            score = log_worth.copy()
            score[batch] = -np.inf
        pick = int(np.argmax(score))
        batch.append(pick)
        best = np.minimum(best, drawn[:, pick])
    return batch
