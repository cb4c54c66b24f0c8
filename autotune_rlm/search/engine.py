"""The engine of every search, by ask and tell. It uses no clock and no hardware."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from autotune_rlm._checks import check_all, check_type
from autotune_rlm._forks import no_fork
from autotune_rlm.learn.columns import encode_configs
from autotune_rlm.search.policy import FIRST_COPY, Policy, Slot
from autotune_rlm.types import (
    Candidate,
    Measurement,
    Observation,
    Prediction,
    Status,
    Surrogate,
    Task,
)

__all__ = ["Search"]

_CLAIMS = 4  # latest measurements whose predicted intervals are checked before a stop


class Search:
    """The state of one search.

    ``ask`` returns the candidates to measure next, ``tell`` takes a measurement, and ``ended`` gives the
    reason why the search is over. The state depends on arguments and measurements alone, so that the
    decorator and a benchmark on recorded landscapes make the same choices.

    Args:
        task: What is tuned.
        candidates: The choices; equal ones are one.
        surrogate: Predicts the task's metric; None for no ranking, where all are measured anyway.
        policy: Chooses and stops; by default ``Policy()``.
        first: Candidates that are measured before all others, in this order.
        near: Best configurations of known problems, the nearest problem's first. The policy measures
            some of them between the surrogate's choices.
        observed: Earlier observations of the task, of these candidates or of others.
        budget: Most candidates that may be measured in the end, those in ``observed`` included;
            None for all.

    Raises:
        ValueError: There are no candidates.
    """

    def __init__(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        surrogate: Surrogate | None,
        policy: Policy | None = None,
        *,
        first: Iterable[Candidate] = (),
        near: Iterable[Candidate] = (),
        observed: Iterable[Observation] = (),
        budget: int | None = None,
    ) -> None:
        if not candidates:
            raise ValueError("candidates must not be empty; pass at least one Candidate")
        check_type("task", task, Task)
        check_all("candidates", candidates, Candidate)
        self.task, self.surrogate, self.policy = task, surrogate, policy or Policy()
        self.candidates = list({c.key: c for c in reversed(candidates)}.values())[::-1]
        self.budget = len(self.candidates) if budget is None else budget
        self._index = {candidate.key: i for i, candidate in enumerate(self.candidates)}
        self._known: dict[int, Measurement] = {}
        self._elsewhere: list[Observation] = []
        self._claims: dict[int, tuple[float, float]] = {}
        self._now: Prediction | None = None
        for o in observed:
            i = self._index.get(o.candidate.key)
            if o.measurement.status is Status.SKIPPED:
                continue
            if i is None:
                self._elsewhere.append(o)
            else:
                self._known[i] = o.measurement
        self.reused = frozenset(self.candidates[i].key for i in self._known)
        self._first, self._near = (
            list(dict.fromkeys(self._index[c.key] for c in some if c.key in self._index))
            for some in (first, near)
        )
        if 1 < self.budget <= FIRST_COPY:  # it would end before the policy comes to a copy
            self._first += self._near[:1]

    @property
    def observations(self) -> list[Observation]:
        """Observations of the candidates, in the order in which they arrived."""
        return [Observation(self.candidates[i], m) for i, m in self._known.items()]

    @property
    def best(self) -> Observation | None:
        """The best observation; None where no candidate worked."""
        sign = 1.0 if self.task.minimize else -1.0
        values = {i: sign * m.value for i, m in self._known.items() if m.value is not None}
        best = min(values, key=lambda i: (values[i], i), default=None)
        return None if best is None else Observation(self.candidates[best], self._known[best])

    @cached_property
    def zero_shot(self) -> Prediction:
        """The surrogate's prediction before anything was measured."""
        if self.surrogate is None:
            ones = np.ones(len(self.candidates))
            return Prediction(
                metric=self.task.metric, median=ones, low=ones, high=ones, spread=ones, p_valid=ones
            )
        return self.surrogate.predict(self.task, self.candidates)

    @property
    def asked(self) -> bool:
        """Whether the surrogate was asked for a prediction."""
        return "zero_shot" in vars(self)

    @property
    def prediction(self) -> Prediction:
        """The surrogate's prediction given all observations so far."""
        if self._now is None:
            observed = [o for o in self.observations if o.measurement.status is not Status.SKIPPED]
            observed += self._elsewhere
            self._now = self.zero_shot
            if observed and self.surrogate is not None:
                self._now = self.surrogate.predict(self.task, self.candidates, observed=observed)
        return self._now

    @property
    def ended(self) -> str | None:
        """Why the search is over: all measured, budget spent, no better one likely; else None."""
        if len(self._known) >= len(self.candidates):
            return "measured all"
        if len(self._known) >= self.budget:
            return "budget"
        if self.surrogate is None or not self._known or self._missing_first():
            return None
        stops = self._last_claims_held() and self.policy.should_stop(self._slot())
        return "no better one is likely" if stops else None

    @no_fork()
    def ask(self, n: int = 1) -> list[Candidate]:
        """Up to ``n`` unmeasured candidates within the budget, the most promising first.

        The first of them is that of ``ask(1)``. The others are chosen without its measurement.
        """
        n = min(n, self.budget - len(self._known))
        first = self._missing_first()
        if n <= len(first):
            return [self.candidates[i] for i in first[: max(n, 0)]]
        return [self.candidates[i] for i in self.policy.choose(self._slot(), n)]

    def as_good(self, wanted: Candidate, others: Iterable[Candidate], *, loss: float) -> Candidate:
        """The best of ``others`` if it is worth ``1 - loss`` of ``wanted`` or more; else ``wanted``."""
        if self._index[wanted.key] in self._missing_first():
            return wanted
        worth = self._slot().log_worth
        at = [self._index[wanted.key], *(self._index[c.key] for c in others)]
        best = max(at[1:], key=lambda i: worth[i], default=at[0])
        good = worth[best] >= worth[at[0]] + np.log1p(-loss)
        return self.candidates[best] if good else wanted

    def tell(self, candidate: Candidate, measurement: Measurement) -> bool:
        """Take a measurement.

        Args:
            candidate: One of the candidates.
            measurement: Its measurement; a skipped candidate is not asked for again.

        Returns:
            Whether the measurement was taken: those of other candidates, and second ones, are not.
        """
        i = self._index.get(candidate.key)
        if i is None or i in self._known:
            return False
        if measurement.status is not Status.SKIPPED and self.surrogate is not None:
            prediction = self._now if self._now is not None else self.zero_shot
            self._claims[i] = (float(prediction.low[i]), float(prediction.high[i]))
        self._known[i] = measurement
        self._now = None
        return True

    def _slot(self) -> Slot:
        return Slot(
            policy=self.policy,
            task=self.task,
            candidates=self.candidates,
            prediction=self.prediction,
            observed=self.observations,
            must=self._missing_first(),
            near=self._near,
            zero_shot=self.zero_shot if self.surrogate is not None else None,
            features=self._features,
        )

    @cached_property
    def _features(self) -> np.ndarray:
        return encode_configs([c.config for c in self.candidates])

    def _missing_first(self) -> list[int]:
        return [i for i in self._first if i not in self._known]

    def _last_claims_held(self) -> bool:
        """Whether half of the last few measurements fell into the intervals predicted for them.

        The same model predicts that no better candidate is likely. A search whose model has just
        been wrong therefore goes on, which matters most on an unfamiliar device or kernel.
        """
        recent = [(self._claims[i], self._known[i].value) for i in list(self._claims)[-_CLAIMS:]]
        held = [v is not None and low <= v <= high for (low, high), v in recent]
        return 2 * sum(held) >= len(held)
