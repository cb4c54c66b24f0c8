"""What the arguments of ``RLMSampler`` must be, checked when the sampler is made."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.samplers import BaseSampler
from optuna.study import Study

from autotune_rlm.types import Task

__all__ = ["Arguments"]


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
    independent_sampler: Any
    constraints_func: Any

    def __post_init__(self) -> None:
        n = self.n_startup_trials
        if n is not None and (isinstance(n, bool) or not isinstance(n, int)):
            raise TypeError(f"n_startup_trials must be an int or None, got {n!r}")
        if n is not None and n < 0:
            raise ValueError(f"n_startup_trials must be at least 0, got {n}")
        if not (
            self.describe is None or callable(self.describe) or hasattr(self.describe, "costs")
        ):
            raise TypeError(
                "describe must be a function of a trial's parameters or an ArchitectureSpace, got "
                f"{type(self.describe).__name__}"
            )
        if self.constraints_func is not None and not callable(self.constraints_func):
            raise TypeError(
                "constraints_func must be a function of a finished trial, got "
                f"{type(self.constraints_func).__name__}"
            )
        if not isinstance(self.independent_sampler, (BaseSampler, type(None))):
            raise TypeError(
                "independent_sampler must be a sampler of Optuna, got "
                f"{type(self.independent_sampler).__name__}"
            )
        _check_context(self.context)
        _check_surrogate(self.surrogate)
        _check_studies(self.warm_start)
        if self.store is not None and not isinstance(self.store, (str, os.PathLike)):
            from autotune_rlm.store import Store

            if not isinstance(self.store, Store):
                raise TypeError(
                    f"store must be a Store, a path or a URL, got {type(self.store).__name__}"
                )


def _check_context(context: Any) -> None:
    several = isinstance(context, Sequence) and not isinstance(context, (str, bytes))
    for one in context if several else [context]:
        if one is not None and not isinstance(one, (Task, Mapping)):
            raise TypeError(
                "context must be a mapping, a Task, or a list with one for each objective, got "
                f"{type(one).__name__}"
            )


def _check_surrogate(surrogate: Any) -> None:
    if surrogate is None or isinstance(surrogate, bool):
        return
    if isinstance(surrogate, (str, os.PathLike)):
        name = os.fspath(surrogate)
        weights = Path(__file__).parents[2] / "surrogate" / "weights"
        known = sorted(p.name for p in weights.glob("*") if p.is_dir()) if weights.is_dir() else []
        looks_local = os.sep in str(name) and not Path(name).is_dir()
        hub = str(name).count("/") == 1 and importlib.util.find_spec("huggingface_hub") is not None
        if name not in known and not Path(name).is_dir() and looks_local and not hub:
            raise ValueError(
                f"surrogate: there is no folder {name}; bundled ones are {', '.join(known)}"
            )
        return
    if not callable(getattr(surrogate, "predict", None)):
        raise TypeError(
            "surrogate must be a surrogate, the name or path of one, False or None, got "
            f"{type(surrogate).__name__}"
        )


def _check_studies(studies: Any) -> None:
    if isinstance(studies, Study):
        raise TypeError("warm_start must be a list of studies, got one study: put it into a list")
    for study in studies:
        if not isinstance(study, Study):
            raise TypeError(f"warm_start must hold studies, got {type(study).__name__}")
    counts = {len(study.directions) for study in studies}
    if len(counts) > 1:
        raise ValueError(
            f"warm_start: the studies must have equally many objectives, got {sorted(counts)}"
        )
