"""What a study knows, as arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autotune_rlm.integrations.optuna._encoding import Encoding

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["StudyData", "collect", "constraints_of", "holds", "share_params", "shared_params"]

_SHARED_KEY = "rlm:relative_params"
_ATTRIBUTE_LENGTH = 2045  # of a system attribute in Optuna's RDB storage


@dataclass(frozen=True)
class StudyData:
    """The trials of a study that count, in order of their numbers.

    Attributes:
        params: Parameters of the n finished trials.
        raw: Their raw vectors, shape (n, d).
        values: Their values with every objective to be maximised, shape (n, k); infinities are
            replaced by the worst and best finite values.
        constraints: Constraint values, at most 0 where feasible, shape (n, c); None without any.
        pending: Raw vectors of trials that run elsewhere, shape (p, d).
        pending_params: Their parameters.
        failed: Raw vectors of trials that failed, shape (f, d).
    """

    params: list[dict[str, Any]]
    raw: np.ndarray
    values: np.ndarray
    constraints: np.ndarray | None
    pending: np.ndarray
    pending_params: list[dict[str, Any]]
    failed: np.ndarray

    @property
    def feasible(self) -> np.ndarray:
        """Mask of the trials that violate no constraint, shape (n,)."""
        if self.constraints is None:
            return np.ones(len(self.values), dtype=bool)
        return np.all(self.constraints <= 0.0, axis=1)


def collect(
    study: Study,
    encoding: Encoding,
    space: Mapping[str, Any],
    *,
    own_id: int,
    cache: dict[int, np.ndarray],
) -> StudyData:
    """The finished, pending and failed trials of a study that hold every parameter of ``space``.

    A pruned trial counts with its last intermediate value, but never as better than the median
    of the completed ones.

    Args:
        study: The study.
        encoding: Of ``space``.
        space: Distributions by name.
        own_id: Storage id of the trial that is being asked for.
        cache: Raw vectors by storage id, filled here.
    """

    def raw_of(trial: FrozenTrial, params: Mapping[str, Any]) -> np.ndarray:
        if trial._trial_id not in cache:
            cache[trial._trial_id] = encoding.raw(params)
        return cache[trial._trial_id]

    signs = np.array([-1.0 if d == StudyDirection.MINIMIZE else 1.0 for d in study.directions])
    done: list[tuple[FrozenTrial, list[float]]] = []
    pruned: list[tuple[FrozenTrial, float]] = []
    pending, pending_params, failed = [], [], []
    for trial in study.get_trials(deepcopy=False):
        params = trial.params
        if trial.state == TrialState.RUNNING:
            params = {**shared_params(trial), **params}
        if trial._trial_id == own_id:
            continue
        if trial._trial_id not in cache and not holds(params, space):
            continue
        if trial.state == TrialState.COMPLETE and trial.values is not None:
            done.append((trial, trial.values))
        elif trial.state == TrialState.PRUNED and trial.intermediate_values:
            last = trial.intermediate_values[max(trial.intermediate_values)]
            if math.isfinite(last) and len(signs) == 1:
                pruned.append((trial, last))
        elif trial.state == TrialState.RUNNING:
            pending.append(encoding.raw(params))
            pending_params.append({name: params[name] for name in space})
        elif trial.state == TrialState.FAIL:
            failed.append(raw_of(trial, params))
    if pruned and done:
        middle = float(np.median([values[0] for _, values in done]))
        worse = max if signs[0] < 0 else min
        done += [(trial, [worse(last, middle)]) for trial, last in pruned]
        done.sort(key=lambda pair: pair[0].number)
    d = len(encoding.names)
    values = np.array([v for _, v in done], dtype=float).reshape(len(done), len(signs)) * signs
    return StudyData(
        params=[{name: t.params[name] for name in space} for t, _ in done],
        raw=np.array([raw_of(t, t.params) for t, _ in done]).reshape(len(done), d),
        values=_finite(values),
        constraints=_constraints([t for t, _ in done]),
        pending=np.array(pending).reshape(len(pending), d),
        pending_params=pending_params,
        failed=np.array(failed).reshape(len(failed), d),
    )


def holds(params: Mapping[str, Any], space: Mapping[str, Any]) -> bool:
    """Whether there is a value of every parameter of ``space``, within its range."""
    return all(
        name in params and distribution._contains(distribution.to_internal_repr(params[name]))
        for name, distribution in space.items()
    )


def _finite(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    for column in values.T:
        finite = column[np.isfinite(column)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        column[~np.isfinite(column)] = np.where(column[~np.isfinite(column)] < 0, low, high)
    return values


def constraints_of(trial: FrozenTrial) -> list[float]:
    """A trial's constraint values (Optuna 5 keeps them by name, Optuna 4 as a list)."""
    named = getattr(trial, "constraints", None)
    if named is not None:
        return [float(v) for v in named.values()]
    return [float(v) for v in trial.system_attrs.get("constraints") or ()]


def _constraints(trials: list[FrozenTrial]) -> np.ndarray | None:
    rows = [constraints_of(t) for t in trials]
    width = max(map(len, rows), default=0)
    if width == 0:
        return None
    known = np.array([r for r in rows if len(r) == width])
    worst = known.max(0)
    return np.array([r if len(r) == width else worst for r in rows])


def shared_params(trial: FrozenTrial) -> dict[str, Any]:
    """Parameters that another worker announced for a running trial."""
    parts: list[str] = []
    while (part := trial.system_attrs.get(f"{_SHARED_KEY}:{len(parts)}")) is not None:
        parts.append(part)
    return json.loads("".join(parts)) if parts else {}


def share_params(study: Study, trial: FrozenTrial, params: Mapping[str, Any]) -> None:
    """Announce a trial's parameters to the other workers before its objective asks for them."""
    try:
        text = json.dumps(dict(params))
    except TypeError:  # a category that JSON cannot hold
        return
    for part, begin in enumerate(range(0, len(text), _ATTRIBUTE_LENGTH)):
        study._storage.set_trial_system_attr(
            trial._trial_id, f"{_SHARED_KEY}:{part}", text[begin : begin + _ATTRIBUTE_LENGTH]
        )
