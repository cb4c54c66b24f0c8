"""One stretch of compilations under our choices: ranks, counts, and learns from what was timed."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autotune_rlm._version import __version__
from autotune_rlm.integrations.inductor import _read
from autotune_rlm.search.engine import Search
from autotune_rlm.store import Store
from autotune_rlm.types import Candidate, Device, Measurement, Observation, Status, Surrogate, Task

_log = logging.getLogger("autotune_rlm")
# An implementation is left out of a problem where it lost in so many of the nearest known problems
# by more than timing noise; the mm timings of the public recordings repeat within 6 % (99 of 100).
_VOTES = 3
_CLEARLY = 1.1


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a session did.

    Attributes:
        operations: Operations whose choices were ranked.
        listed: Choices that Inductor listed for them.
        kept: Choices that were left to compile and time.
        measured: Timings that Inductor made and the store keeps.
    """

    operations: int = 0
    listed: int = 0
    kept: int = 0
    measured: int = 0


class Session:
    """Ranks the choices of every operation that is compiled, and keeps what was timed.

    Args:
        budget: Triton templates to keep for each operation, beside every library kernel.
        surrogate: Gives the model; called when the first operation is met.
        store: Where timings go and known problems come from; None keeps nothing.
        device: What the kernels run on, by ``torch.device``.
    """

    def __init__(
        self,
        *,
        budget: int,
        surrogate: Callable[[], Surrogate],
        store: Store | None,
        device: Callable[[Any], Device],
    ) -> None:
        self.budget, self.store = budget, store
        self._load, self._device = surrogate, device
        self._lock = threading.Lock()
        self._summary = Summary()
        self._surrogate: Surrogate | None = None

    @property
    def summary(self) -> Summary:
        """What was done so far."""
        return self._summary

    @property
    def uuid(self) -> str:
        """Part of Inductor's cache key: graphs that were compiled otherwise are not ours."""
        return f"autotune_rlm-{__version__}-{self.budget}"

    def templates(self, made: Sequence[Any], inputs: Any) -> list[Any]:
        """Of templates that are not generated yet, those to generate; library kernels stay.

        Args:
            made: ``KernelTemplateChoice``, in Inductor's order.
            inputs: ``KernelInputs``.
        """
        ours = [t for t in made if "num_warps" in t.params.to_kwargs()]

        def read() -> tuple[Task, list[Candidate]]:
            return _read.of_templates(ours, inputs, self._device(inputs.device()))

        return self._select(made, ours, read)

    def choices(self, made: list[Any]) -> list[Any]:
        """Of generated choices those to compile and time, for ``add_preprocessing_fn``."""
        if len(made) < 2:
            return made
        device = made[0].layout.device
        ours = [c for c in made if _read.parameters_of(c) is not None]
        if len(ours) > self.budget:

            def read() -> tuple[Task, list[Candidate]]:
                return _read.of_choices(ours, self._device(device))

            made = self._select(made, ours, read)
        return self._without_losers(made, device)

    def timed(self, timings: Mapping[Any, float], *_: Any) -> None:
        """Keep what Inductor timed, for ``add_feedback_saver``; ms, infinite where it failed."""
        choices = list(timings)
        if self.store is None or not choices:
            return
        with _fault_tolerant("keep"):
            task, candidates = _read.of_choices(choices, self._device(choices[0].layout.device))
            for candidate, ms in zip(candidates, timings.values(), strict=True):
                if math.isfinite(ms) and ms > 0:
                    bare = replace(candidate, payload=None)
                    self.store.add(task, bare, Measurement(status=Status.OK, value=float(ms)))
                    self._count(measured=1)

    def _select(
        self,
        made: Sequence[Any],
        ours: Sequence[Any],
        read: Callable[[], tuple[Task, list[Candidate]]],
    ) -> list[Any]:
        if len(ours) <= self.budget:
            return list(made)
        kept = set(map(id, ours))
        with _fault_tolerant("rank"):
            task, candidates = read()
            kept = {id(c.payload) for c in self._best(task, candidates)}
        others = {id(item) for item in made} - set(map(id, ours))
        found = [item for item in made if id(item) in kept | others]
        self._count(operations=1, listed=len(made), kept=len(found))
        _log.info("%s of %d choices are left to compile", len(found), len(made))
        return found

    def _best(self, task: Task, candidates: Sequence[Candidate]) -> list[Candidate]:
        """What is known to be best, the nearest known problem's best, and what a search would ask for."""
        if self._surrogate is None:
            self._surrogate = self._load()
        observed: list[Observation] = []
        near: list[Candidate] = []
        if self.store is not None:
            observed = list(self.store.observations(task))
            near = self.store.near_best(task)
        search = Search(task, candidates, self._surrogate, first=near[:1], observed=observed)
        known = [search.best.candidate] if search.best is not None else []
        return [*known, *search.ask(self.budget)][: self.budget]

    def _without_losers(self, made: list[Any], device: Any) -> list[Any]:
        """Without implementations that lost clearly in each of the nearest known problems."""
        if self.store is None:
            return made
        with _fault_tolerant("compare"):
            task, candidates = _read.of_choices(made, self._device(device))
            losers = self._losers(task, {c.key for c in candidates})
            kept = [c.payload for c in candidates if c.key not in losers]
            if kept and len(kept) < len(made):
                self._count(operations=1, listed=len(made), kept=len(kept))
                return kept
        return made

    def _losers(self, task: Task, keys: set[str]) -> set[str]:
        assert self.store is not None
        lost = dict.fromkeys(keys, 0)
        near = self.store.nearest(task, _VOTES)
        for other, best in near:
            limit = _CLEARLY * (best.measurement.value or 0.0)
            for o in self.store.observations(other):
                value = o.measurement.value
                if o.candidate.key in lost and value is not None and value > limit:
                    lost[o.candidate.key] += 1
        return {key for key, votes in lost.items() if votes == _VOTES}

    def _count(self, **more: int) -> None:
        with self._lock:
            was = self._summary
            self._summary = replace(was, **{k: getattr(was, k) + n for k, n in more.items()})


@contextlib.contextmanager
def _fault_tolerant(what: str) -> Iterator[None]:
    """A compilation never fails for our ranking: faults are logged, Inductor goes on as it would."""
    try:
        yield
    except Exception as error:
        _log.warning("cannot %s Inductor's choices: %s", what, error, exc_info=error)
