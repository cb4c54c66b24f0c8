"""``RLMSearch``: Helion compiles and times, this package's engine chooses."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence
from typing import Any

from helion import exc
from helion.autotuner.base_search import PopulationBasedSearch, PopulationMember, performance

from autotune_rlm._checks import check_number
from autotune_rlm.integrations.helion._read import candidate_of, facts_of_config, task_of
from autotune_rlm.integrations.triton.device import device_of
from autotune_rlm.integrations.triton.resources import LazySurrogate, open_store
from autotune_rlm.search.engine import Search
from autotune_rlm.search.policy import Policy
from autotune_rlm.types import Candidate, Device, Measurement, Observation, Status, Surrogate

_log = logging.getLogger(__name__)
_BUDGETS = {"none": 1, "quick": 32, "full": 192}
_POOL = 96
# After each batch: the best few, their neighbours in one and in two parameters, and fresh random ones.
# Chosen on two matrix products and two convolutions (docs/helion.md); the rest was not looked at.
_BEST, _NEIGHBOURS, _PAIRS, _FRESH = 4, 48, 24, 16  # reading one takes 85 ms, so that few are added
_STATUS = {
    "ok": Status.OK,
    "timeout": Status.TIMEOUT,
    "peer_compilation_fail": Status.COMPILE_ERROR,
    "error": Status.RUNTIME_ERROR,
}


class RLMSearch(PopulationBasedSearch):
    """A search of Helion that asks a model before it compiles.

    The default configuration, seeds and random ones of Helion's own generator are ranked from the
    Triton code that Helion generates for them (``ir.on_device``), the most promising are compiled and
    timed by Helion in batches, and each batch teaches the engine. Then neighbours of the best few and
    fresh random ones join, until the budget is spent. Helion's own checks, timings and final
    verification stay as they are.

    Args:
        kernel: What Helion tunes.
        args: Its arguments.
        budget: Configurations to measure; those that the store knows of this problem count.
        batch: Configurations that Helion compiles in parallel and times together.
        pool: Configurations to rank at first.
        surrogate: A ``Surrogate``, or what ``autotune_rlm.load_surrogate`` takes; None for the bundled
            one.
        store: As for ``rlm_autotune``: None for the user's own, False for none.
        device: What the kernel runs on; None to find out.
        finishing_rounds: As in Helion: rounds that set parameters back to their defaults.
    """

    def __init__(
        self,
        kernel: Any,
        args: Sequence[object],
        *,
        budget: int = _BUDGETS["full"],
        batch: int = 8,
        pool: int = _POOL,
        surrogate: Surrogate | str | None = None,
        store: Any = None,
        device: Device | str | None = None,
        finishing_rounds: int = 0,
    ) -> None:
        for name, number in (("budget", budget), ("batch", batch), ("pool", pool)):
            check_number(name, number, least=1, whole=True)
        super().__init__(kernel, args, finishing_rounds=finishing_rounds)
        self.budget, self.batch, self.pool = budget, batch, pool
        self._surrogate = LazySurrogate(surrogate, store)
        self._store = open_store(store)
        self._device = device_of(device)
        self._members: dict[str, PopulationMember] = {}
        self._candidates: dict[str, Candidate] = {}
        self._observed: list[Observation] = []

    @classmethod
    def get_kwargs_from_profile(cls, profile: Any, settings: Any) -> dict[str, object]:
        """Helion's effort as a budget: 32 configurations for ``quick``, 192 for ``full``."""
        budget = _BUDGETS.get(str(settings.autotune_effort), _BUDGETS["full"])
        inherited = super().get_kwargs_from_profile(profile, settings)
        return {"budget": budget, "finishing_rounds": inherited.get("finishing_rounds", 0)}

    def _algorithm_cache_policy(self) -> dict[str, object]:
        return {"rlm_version": 2, "budget": self.budget, "batch": self.batch, "pool": self.pool}

    def _autotune(self) -> Any:
        self.log(f"Starting RLMSearch with budget={self.budget}, batch={self.batch}")
        task = task_of(self.kernel, self.args, self._device)
        seeds = self.config_gen.random_population_flat(
            self.pool, user_seed_configs=self._autotune_seed_configs(), log_func=self.log
        )
        first = self._add([self.config_gen.default_flat()]) + self._add(seeds)
        if not self._candidates:
            raise exc.NoConfigFound
        known = [] if self._store is None else self._store.observations(task)
        policy = Policy(seed=int(self.settings.autotune_random_seed), min_gain=None)
        while not self._autotune_budget_exceeded_across_ranks():
            search = Search(
                task,
                list(self._candidates.values()),
                self._surrogate,
                policy,
                first=first[:1],
                observed=[*known, *self._observed],
                budget=self.budget,
            )
            stop = search.ended
            wanted = [] if stop else search.ask(self.batch)
            if not wanted:
                self.log(f"RLMSearch ends: {stop or 'nothing left to measure'}")
                break
            self._measure(task, wanted)
            if len(search.observations) + len(wanted) < self.budget:
                self._add(self._neighbours(), most=_NEIGHBOURS)
                self._add(self.config_gen.random_population_flat(_FRESH))
        measured = [m for m in self._members.values() if m.perfs and math.isfinite(m.perf)]
        if not measured:
            raise exc.NoConfigFound
        self.population = measured
        self.rebenchmark_population(measured, desc="RLMSearch: verifying the best")
        return self._finalize()

    def _add(self, flats: Sequence[Any], most: int | None = None) -> list[Candidate]:
        """Make candidates of configurations, with their facts; what is invalid or known is left out."""
        added: list[Candidate] = []
        for flat in flats:
            if len(added) == most:
                break
            member = self.make_unbenchmarked(flat)
            if member is None:
                continue
            candidate = candidate_of(member.config)
            if candidate.key in self._candidates:
                continue
            facts = facts_of_config(self.kernel, member.config, self.args, self._device)
            candidate = candidate_of(member.config, facts)
            self._candidates[candidate.key] = candidate
            self._members[candidate.key] = member
            added.append(candidate)
        return added

    def _measure(self, task: Any, wanted: Sequence[Candidate]) -> None:
        members = [self._members[c.key] for c in wanted]
        self.benchmark_population(members, desc=f"RLMSearch, {len(self._observed)} measured")
        for candidate, member in zip(wanted, members, strict=True):
            measurement = _measurement(member)
            self._observed.append(Observation(candidate, measurement))
            if self._store is not None:
                self._store.add(task, candidate, measurement)

    def _neighbours(self) -> list[Any]:
        """Of the best few, configurations that differ in one parameter, and some that do in two."""
        working = [m for m in self._members.values() if m.perfs and math.isfinite(m.perf)]
        overridden = self.config_gen.overridden_flat_indices
        found = []
        for member in sorted(working, key=performance)[:_BEST]:
            steps = [
                {index: value}
                for index, spec in enumerate(self.config_gen.flat_spec)
                if index not in overridden
                for value in spec.pattern_neighbors(member.flat_values[index])
            ]
            pairs = [random.choice(steps) | random.choice(steps) for _ in range(_PAIRS) if steps]
            for step in [*steps, *pairs]:
                flat = list(member.flat_values)
                for index, value in step.items():
                    flat[index] = value
                found.append(flat)
        random.shuffle(found)
        return found


def _measurement(member: PopulationMember) -> Measurement:
    if math.isfinite(member.perf):
        return Measurement(
            status=Status.OK, value=float(member.perf), compile_s=member.compile_time
        )
    status = _STATUS.get(str(member.status), Status.RUNTIME_ERROR)
    failed = Status.RUNTIME_ERROR if status is Status.OK else status
    return Measurement(status=failed, reason=f"Helion: {member.status}")
