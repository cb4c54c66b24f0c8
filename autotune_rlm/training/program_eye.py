"""Fits the eye for programs to recorded programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autotune_rlm._checks import of_extra
from autotune_rlm.landscapes import Landscape
from autotune_rlm.surrogate.program_eye import (
    LanguageScale,
    ProgramEye,
    ProgramMetric,
    program_columns,
)
from autotune_rlm.surrogate.trees import Trees
from autotune_rlm.types import Candidate

__all__ = ["fit_program_eye"]

_FOLDS = 5
_ROUNDS = 300
_RUNS = 3  # of a program: more say little that is new, and the medians of all are learned too
_MIN_PROGRAMS = 30
_SETTINGS: dict[str, Any] = {
    "max_depth": 6,
    "eta": 0.06,
    "subsample": 0.7,
    "colsample_bytree": 0.3,
    "min_child_weight": 4,
    "tree_method": "hist",
    "max_bin": 64,
    "nthread": 1,
}


def _forgetful(candidate: Candidate, rng: np.random.Generator) -> Candidate:
    """The candidate with some of its input's sizes, as users tell them."""
    kept = {name: value for name, value in candidate.config.items() if rng.random() < 0.5}
    return replace(candidate, config=kept)


class _Rows:
    """Runs of programs in one language, and their medians, which are told without sizes."""

    def __init__(self, landscape: Landscape, groups: Sequence[str], seed: int) -> None:
        rng = np.random.default_rng(seed)
        names = np.array([str(c.payload) for c in landscape.candidates])
        values = np.log1p(np.maximum(landscape.values, 0.0))
        candidates: list[Candidate] = []
        logs: list[float] = []
        group: list[str] = []
        for name in dict.fromkeys(names.tolist()):
            at = np.flatnonzero(names == name)
            some = rng.choice(at, size=min(_RUNS, len(at)), replace=False)
            first = landscape.candidates[at[0]]
            runs = [landscape.candidates[i] for i in some]
            candidates += [*runs, _forgetful(runs[0], rng), Candidate({}, text=first.text)]
            logs += [*values[some].tolist(), float(values[some[0]]), float(np.median(values[at]))]
            group += [groups[at[0]]] * (len(some) + 2)
        self.language = landscape.task.language
        self.candidates, self.logs, self.groups = candidates, np.array(logs), group
        self.programs = len(set(names.tolist()))


def fit_program_eye(
    landscapes: Sequence[Landscape], groups: Sequence[Sequence[str]], *, seed: int = 0
) -> ProgramEye:
    """Fit boosted trees to the facts of programs.

    Args:
        landscapes: Of ``landscapes.programs.program_landscapes``: one for each language and metric,
            the program's name as a candidate's payload. Languages with fewer than 30 programs are
            passed over; metrics and languages with more programs come first.
        groups: For each landscape the group of each candidate; groups are never split when the errors
            are measured that the intervals rest on.
        seed: Of the runs that are taken, of folds and trees.

    Raises:
        ImportError: XGBoost is not installed.
        ValueError: No landscape has enough programs.
    """
    found = [
        (landscape.task.metric, _Rows(landscape, of, seed))
        for landscape, of in zip(landscapes, groups, strict=True)
    ]
    by_metric: dict[str, list[_Rows]] = {}
    for metric, rows in sorted(found, key=lambda one: -one[1].programs):
        if rows.programs >= _MIN_PROGRAMS:
            by_metric.setdefault(metric, []).append(rows)
    if not by_metric:
        raise ValueError(f"no language has the {_MIN_PROGRAMS} programs that an eye needs")
    return ProgramEye({name: _fit(parts, seed) for name, parts in by_metric.items()})


def _fit(parts: Sequence[_Rows], seed: int) -> ProgramMetric:
    languages = [part.language for part in parts]
    scales = {
        part.language: LanguageScale(float(part.logs.mean()), float(part.logs.std()) or 1.0)
        for part in parts
    }
    x = np.vstack([program_columns(part.candidates, part.language, languages) for part in parts])
    z = np.concatenate(
        [(p.logs - scales[p.language].center) / scales[p.language].spread for p in parts]
    )
    names = [name for part in parts for name in part.groups]
    _, of_group = np.unique(names, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(of_group.max() + 1)[of_group] % _FOLDS
    outside = np.zeros(len(z))
    for k in range(_FOLDS):
        trees = Trees.from_xgboost([_boosted(x[fold != k], z[fold != k], seed)])
        outside[fold == k] = trees.predict(x[fold == k])
    start = 0
    for part in parts:
        end = start + len(part.logs)
        scale = scales[part.language]
        off = scale.spread * (z - outside)[start:end]
        low, high = np.quantile(off, (0.05, 0.95))
        scales[part.language] = replace(scale, low=min(low, -0.01), high=max(high, 0.01))
        start = end
    return ProgramMetric(Trees.from_xgboost([_boosted(x, z, seed)]), scales)


def _boosted(x: np.ndarray, z: np.ndarray, seed: int) -> Any:
    with of_extra("tables", "fitting the eye for programs"):
        import xgboost
    return xgboost.train({**_SETTINGS, "seed": seed}, xgboost.DMatrix(x, label=z), _ROUNDS)
