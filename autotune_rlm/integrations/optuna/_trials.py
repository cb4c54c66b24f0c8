"""What a study knows, as arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autotune_rlm.integrations.optuna._encoding import Encoding

if TYPE_CHECKING:
    from optuna.study import Study

_SHARED_KEY = "rlm:proposed"
_ATTRIBUTE_LENGTH = 2045  # of a system attribute in Optuna's RDB storage
_PAIRS = 4  # completed trials with a value at a step, from which on the step is read


@dataclass(frozen=True)
class StudyData:
    """The trials of a study that count, in order of their numbers; n of them have a value.

    Raw vectors are NaN for parameters that a trial lacks.
    """

    raw: np.ndarray  # (n, d)
    values: np.ndarray  # (n, k), to be maximised; infinities are the worst and best finite ones
    constraints: np.ndarray | None  # (n, c), at most 0 where they hold, NaN where one was not set
    completed: np.ndarray  # mask (n,) of those that ran to their end
    pending: np.ndarray  # raw vectors (p, d) of trials that run elsewhere or wait
    failed: np.ndarray  # raw vectors (f, d)

    @property
    def feasible(self) -> np.ndarray:
        """Mask of the trials that violate no constraint, shape (n,).

        As in Optuna, a constraint that a trial did not set is not violated; a trial that set none of
        those that others set is not feasible.
        """
        if self.constraints is None:
            return np.ones(len(self.values), dtype=bool)
        unset = np.isnan(self.constraints)
        return np.all(unset | (self.constraints <= 0.0), axis=1) & ~unset.all(1)

    @property
    def seen(self) -> np.ndarray:
        """Raw vectors of all trials, whatever became of them, shape (n + p + f, d)."""
        return np.vstack([self.raw, self.pending, self.failed])


def collect(
    study: Study, encoding: Encoding, *, own_id: int, cache: dict[int, np.ndarray]
) -> StudyData:
    """The trials of a study that have any parameter of a space, without that of storage id ``own_id``.

    ``cache`` holds raw vectors of finished trials by storage id, and is filled here.
    """
    done: list[tuple[FrozenTrial, Sequence[float]]] = []
    pruned: list[FrozenTrial] = []
    pending, failed = [], []
    for trial in study.get_trials(deepcopy=False):
        state = trial.state
        if trial._trial_id == own_id:
            continue
        if state in (TrialState.RUNNING, TrialState.WAITING):
            known = {**proposed_params(trial, encoding), **fixed_params(study, trial)}
            params = {**known, **trial.params}
            if params and not np.isnan(raw := encoding.raw(params)).all():
                pending.append(raw)
            continue
        if trial._trial_id not in cache:
            cache[trial._trial_id] = encoding.raw(trial.params)
        if state == TrialState.COMPLETE and trial.values is not None:
            done.append((trial, trial.values))
        elif state == TrialState.PRUNED:
            pruned.append(trial)
        elif state == TrialState.FAIL and trial.params:
            failed.append(cache[trial._trial_id])
    k, d = len(study.directions), len(encoding)
    signs = _signs(study)
    whole = len(done)
    if pruned and done and k == 1:
        done += _of_pruned(done, pruned, signs[0])
    completed = np.arange(len(done)) < whole
    order = np.argsort([trial.number for trial, _ in done], kind="stable")
    done = [done[i] for i in order]
    values = np.array([v for _, v in done], dtype=float).reshape(len(done), k) * signs
    rows = np.array([cache[trial._trial_id] for trial, _ in done]).reshape(len(done), d)
    known = ~np.isnan(rows).all(1)
    constraints = _constraints([trial for trial, _ in done])
    failures = np.array(failed).reshape(len(failed), d)
    return StudyData(
        raw=rows[known],
        values=_finite(values[known]),
        constraints=None if constraints is None else constraints[known],
        completed=completed[order][known] if len(done) else completed,
        pending=np.array(pending).reshape(len(pending), d),
        failed=failures[~np.isnan(failures).all(1)],
    )


def _of_pruned(
    done: Sequence[tuple[FrozenTrial, Sequence[float]]], pruned: Sequence[FrozenTrial], sign: float
) -> list[tuple[FrozenTrial, Sequence[float]]]:
    """Pruned trials with the values that they would probably have reached.

    What completed trials had at the same step and in the end, as a line through both; with fewer than
    four of them the last value counts, never as better than the median of the completed ones. A pruned
    trial is never taken for better than the best.
    """
    final = np.array([sign * values[0] for _, values in done])
    middle, best = float(np.median(final)), float(final.max())
    lines: dict[int, tuple[float, float, float] | None] = {}
    found: list[tuple[FrozenTrial, Sequence[float]]] = []
    for trial in pruned:
        if not trial.intermediate_values:
            continue
        step = max(trial.intermediate_values)
        last = sign * trial.intermediate_values[step]
        if not math.isfinite(last):
            continue
        if step not in lines:
            at = np.array([sign * t.intermediate_values.get(step, math.nan) for t, _ in done])
            lines[step] = _line(at, final)
        line = lines[step]
        if line is None:
            value = min(last, middle)
        else:
            x, y, slope = line
            value = min(y + slope * (last - x), best)
        found.append((trial, [sign * value]))
    return found


def _line(at: np.ndarray, final: np.ndarray) -> tuple[float, float, float] | None:
    """Least squares: mean before, mean in the end, slope (at least 0); None of too few."""
    known = np.isfinite(at) & np.isfinite(final)
    if known.sum() < _PAIRS:
        return None
    x, y = at[known], final[known]
    with np.errstate(all="ignore"):
        slope = np.cov(x, y)[0, 1] / np.var(x, ddof=1)
    if not math.isfinite(slope):
        return None
    return float(x.mean()), float(y.mean()), max(float(slope), 0.0)


def _finite(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    for column in values.T:
        finite = column[np.isfinite(column)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        column[~np.isfinite(column)] = np.where(column[~np.isfinite(column)] < 0, low, high)
    return values


def maximised(study: Study, values: np.ndarray) -> np.ndarray:
    """Values (n, k) of a study with every objective to be maximised and finite."""
    return _finite(values * _signs(study))


def _signs(study: Study) -> np.ndarray:
    return np.where([way == StudyDirection.MINIMIZE for way in study.directions], -1.0, 1.0)


def constraints_of(trial: FrozenTrial) -> dict[str, float]:
    """A trial's constraint values by name (Optuna 4 keeps them as a list)."""
    named = getattr(trial, "constraints", None)
    if named is None:
        named = dict(enumerate(trial.system_attrs.get("constraints") or ()))
    return {str(name): float(value) for name, value in named.items()}


def _constraints(trials: Sequence[FrozenTrial]) -> np.ndarray | None:
    rows = [constraints_of(t) for t in trials]
    names = sorted({name for row in rows for name in row})
    if not names:
        return None
    return np.array([[row.get(name, math.nan) for name in names] for row in rows])


def fixed_params(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    """Parameters that ``PartialFixedSampler`` or ``Study.enqueue_trial`` gave a trial."""
    of_sampler = getattr(study.sampler, "_fixed_params", None) or {}
    return {**of_sampler, **(trial.system_attrs.get("fixed_params") or {})}


def proposed_params(trial: FrozenTrial, encoding: Encoding) -> dict[str, Any]:
    """Parameters that another worker announced for a running trial."""
    parts: list[str] = []
    while (part := trial.system_attrs.get(f"{_SHARED_KEY}:{len(parts)}")) is not None:
        parts.append(part)
    try:
        return encoding.external(json.loads("".join(parts))) if parts else {}
    except ValueError:  # half of an announcement
        return {}


def share_params(study: Study, trial: FrozenTrial, internal: Mapping[str, float]) -> None:
    """Announce a trial's parameters to the other workers before its objective asks for them.

    They are announced as storages keep them, as numbers: categories may be of any type.
    """
    text = json.dumps(internal)
    for part, begin in enumerate(range(0, len(text), _ATTRIBUTE_LENGTH)):
        study._storage.set_trial_system_attr(
            trial._trial_id, f"{_SHARED_KEY}:{part}", text[begin : begin + _ATTRIBUTE_LENGTH]
        )
