"""Prediction of architectures: rank correlation on networks kept out, by number of shots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

from autotune_rlm.landscapes.architectures import ArchitectureTable
from autotune_rlm.landscapes.columns import column_task
from autotune_rlm.networks.regression import Source, few_shot
from autotune_rlm.networks.rendering import is_known_space, network_candidate
from autotune_rlm.types import Surrogate

__all__ = ["BASELINES", "METHODS", "NasRun", "baseline_runs", "nas_json", "nas_runs"]

METHODS = ("rlm", "few-shot")
"""``few-shot``: regression in closed form; ``rlm``: the same, led by the language model's word."""
BASELINES = ("flops", "parameters", "ridge")
_MIN_COUNT = 2  # test networks that a rank correlation needs


@dataclass(frozen=True)
class NasRun:
    """How well one predictor ranked the networks that were neither trained on nor shots.

    Attributes:
        method: One of ``METHODS`` or ``BASELINES``.
        target: Column of the table.
        shots: Measured networks of the test table that the predictor saw.
        seed: Which of them.
        n_test: Networks that were ranked.
        kendall: Kendall's tau-b; None where all predictions or values are equal.
        spearman: Spearman's rank correlation; None likewise.
    """

    method: str
    target: str
    shots: int
    seed: int
    n_test: int
    kendall: float | None
    spearman: float | None


def nas_runs(
    train: Sequence[ArchitectureTable],
    test: ArchitectureTable,
    target: str,
    shots: Sequence[int],
    seeds: int,
    *,
    surrogate: Surrogate | None = None,
) -> Iterator[NasRun]:
    """Runs of the predictor: ``rlm`` where there is a surrogate, else ``few-shot``.

    Networks of the test table that are also in a training table of the same space are left out of
    the test, so that nothing is predicted that was trained on.

    Args:
        train: Tables known before; all their columns may lead.
        test: The table to predict.
        target: Its column.
        shots: Numbers of measured networks to learn from.
        seeds: Draws of the shots.
        surrogate: Asked for each network, with nothing measured. Networks that it was trained on
            are not known here: give a test table without them.
    """
    fresh = _unseen(train, test)
    sources = [Source(table, column) for table in train for column in table.targets]
    lead = None if surrogate is None else _asked(surrogate, fresh, target)
    predictor = few_shot(fresh, target, sources, lead=lead)
    values = fresh.target(target)
    method = "few-shot" if surrogate is None else "rlm"
    for number, seed, rows, rest in _draws(values, shots, seeds):
        score = predictor.predict(rows, values[rows])[0]
        yield _run(method, target, number, seed, score[rest], values[rest])


def _asked(surrogate: Surrogate, table: ArchitectureTable, target: str) -> np.ndarray:
    known = is_known_space(table.space)
    candidates = [
        network_candidate(fields, config if known else None)
        for config, fields in zip(table.configs, table.fields, strict=True)
    ]
    task = column_task(target, table.space.name, named=known)
    return surrogate.predict(task, candidates).location


def baseline_runs(
    train: Sequence[ArchitectureTable],
    test: ArchitectureTable,
    target: str,
    shots: Sequence[int],
    seeds: int,
) -> Iterator[NasRun]:
    """Runs of FLOPs and parameters (whichever sign fits), and ridge regression on features.

    FLOPs and parameters learn nothing, so they get the better of both signs, which no predictor
    without shots can know.
    """
    fresh = _unseen(train, test)
    values = fresh.target(target)
    plain = few_shot(fresh, target)
    features = np.hstack([plain.points.spread, plain.points.linear])
    for number, seed, rows, rest in _draws(values, shots, seeds):
        for method, cost in (("flops", "macs"), ("parameters", "parameters")):
            score = np.array([float(c[cost]) for c in fresh.costs])
            run = _run(method, target, number, seed, score[rest], values[rest])
            yield NasRun(**{**asdict(run), **_absolute(run)})
        if len(rows) >= _MIN_COUNT:
            score = _ridge(features[rows], values[rows], features[rest])
            yield _run("ridge", target, number, seed, score, values[rest])


def nas_json(runs: Sequence[NasRun]) -> dict[str, Any]:
    """The results as plain JSON: ``runs`` of the first method, all others with their names."""
    own, other = [], []
    for run in runs:
        row = asdict(run)
        if run.method == runs[0].method:
            row.pop("method")
            own.append(row)
        else:
            other.append(row)
    return {"method": runs[0].method if runs else None, "runs": own, "baselines": other}


def _unseen(train: Sequence[ArchitectureTable], test: ArchitectureTable) -> ArchitectureTable:
    known = {
        repr(sorted(config.items()))
        for table in train
        if table.space.name == test.space.name
        for config in table.configs
    }
    rows = [i for i, c in enumerate(test.configs) if repr(sorted(c.items())) not in known]
    if len(rows) < _MIN_COUNT:
        raise ValueError(
            f"test: {len(rows)} of the {len(test)} networks of {test.name!r} are not among those "
            "trained on; give a test table of other networks"
        )
    return test if len(rows) == len(test) else test.take(np.array(rows))


def _draws(
    values: np.ndarray, shots: Sequence[int], seeds: int
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    known = np.flatnonzero(np.isfinite(values))
    for number in shots:
        if number > len(known) - _MIN_COUNT:
            raise ValueError(
                f"shots: {number} of the {len(known)} test networks leave too few to test on"
            )
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(known)
            yield number, seed, order[:number], order[number:]


def _run(
    method: str, target: str, shots: int, seed: int, score: np.ndarray, values: np.ndarray
) -> NasRun:
    tau = float(kendalltau(score, values).statistic)
    rho = float(spearmanr(score, values).statistic) if np.ptp(score) > 0 else math.nan
    return NasRun(
        method=method,
        target=target,
        shots=shots,
        seed=seed,
        n_test=len(values),
        kendall=tau if math.isfinite(tau) else None,
        spearman=rho if math.isfinite(rho) else None,
    )


def _absolute(run: NasRun) -> dict[str, float | None]:
    return {
        "kendall": None if run.kendall is None else abs(run.kendall),
        "spearman": None if run.spearman is None else abs(run.spearman),
    }


def _ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    centre, middle = x.mean(0), y.mean()
    kernel = (x - centre) @ (x - centre).T
    weights = np.linalg.solve(kernel + 1.0 * np.eye(len(x)), y - middle)
    return middle + (new - centre) @ ((x - centre).T @ weights)
