"""What the arguments of ``RLMSampler`` must be, checked when the sampler is made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.samplers import BaseSampler
from optuna.study import Study

from autotune_rlm._checks import check_all, check_number, check_surrogate, check_type
from autotune_rlm.types import Task


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What ``RLMSampler`` was given.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: It is of the right type, but its value is wrong.
    """

    describe: Any
    context: Any
    surrogate: Any
    warm_start: Any
    store: Any
    n_startup_trials: Any
    seed: Any
    independent_sampler: Any
    deterministic_objective: Any
    constraints_func: Any
    warn_independent_sampling: Any

    def __post_init__(self) -> None:
        check_number("n_startup_trials", self.n_startup_trials, least=0, whole=True, none=True)
        check_number("seed", self.seed, least=0, most=2**32 - 1, whole=True, none=True)
        for name in ("deterministic_objective", "warn_independent_sampling"):
            check_type(name, getattr(self, name), bool)
        describes = callable(self.describe) or hasattr(self.describe, "costs")
        if self.describe is not None and not describes:
            raise _wrong("describe", "a function of parameters or a space", self.describe)
        if self.constraints_func is not None and not callable(self.constraints_func):
            raise _wrong("constraints_func", "a function of a trial", self.constraints_func)
        check_type("independent_sampler", self.independent_sampler, BaseSampler, type(None))
        several = isinstance(self.context, Sequence) and not isinstance(self.context, (str, bytes))
        for one in self.context if several else [self.context]:
            if one is not None and not isinstance(one, (Task, Mapping)):
                raise _wrong("context", "a mapping, a Task or a list, one for each objective", one)
        if self.surrogate is not None and not isinstance(self.surrogate, bool):
            check_surrogate(self.surrogate)
        check_type("warm_start", self.warm_start, Sequence, hint="put studies into a list")
        check_all("warm_start", self.warm_start, Study)
        counts = {len(study.directions) for study in self.warm_start}
        if len(counts) > 1:
            raise ValueError(
                f"warm_start: studies must have equally many objectives, got {sorted(counts)}"
            )
        if self.store is not None and not isinstance(self.store, (str, os.PathLike)):
            from autotune_rlm.store import Store

            if not isinstance(self.store, Store):
                raise _wrong("store", "a Store, a path or a URL", self.store)


def _wrong(name: str, wanted: str, given: Any) -> TypeError:
    return TypeError(f"{name} must be {wanted}, got {given!r}")
