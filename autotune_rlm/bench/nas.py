"""Prediction of architectures: rank correlation on networks kept out, by number of shots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

from autotune_rlm.landscapes.architectures import ArchitectureTable
from autotune_rlm.networks.regression import Source, few_shot

__all__ = ["BASELINES", "NasRun", "baseline_runs", "nas_json", "nas_runs"]

BASELINES = ("flops", "parameters", "ridge")
_FEWEST = 2  # test networks that a rank correlation needs


@dataclass(frozen=True)
class NasRun:
    """How well one predictor ranked the networks that were neither trained on nor shots.

    Attributes:
        method: ``"rlm"`` or one of ``BASELINES``.
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
) -> Iterator[NasRun]:
    """Runs of the predictor.

    Networks of the test table that are also in a training table of the same space are left out of
    the test, so that nothing is predicted that was trained on.

    Args:
        train: Tables known before; all their columns may lead.
        test: The table to predict.
        target: Its column.
        shots: Numbers of measured networks to learn from.
        seeds: Draws of the shots.
    """
    fresh = _unseen(train, test)
    sources = [Source(table, column) for table in train for column in table.targets]
    predictor = few_shot(fresh, target, sources)
    values = fresh.target(target)
    for number, seed, rows, rest in _draws(values, shots, seeds):
        score, _ = predictor.predict(rows, values[rows])
        yield _run("rlm", target, number, seed, score[rest], values[rest])


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
        if len(rows) >= _FEWEST:
            score = _ridge(features[rows], values[rows], features[rest])
            yield _run("ridge", target, number, seed, score, values[rest])


def nas_json(runs: Sequence[NasRun]) -> dict[str, Any]:
    """The results as plain JSON: ``runs`` of the predictor, and ``baselines`` with their names."""
    own, other = [], []
    for run in runs:
        row = asdict(run)
        if run.method == "rlm":
            row.pop("method")
            own.append(row)
        else:
            other.append(row)
    return {"runs": own, "baselines": other}


def _unseen(train: Sequence[ArchitectureTable], test: ArchitectureTable) -> ArchitectureTable:
    known = {
        repr(sorted(config.items()))
        for table in train
        if table.space.name == test.space.name
        for config in table.configs
    }
    rows = [i for i, c in enumerate(test.configs) if repr(sorted(c.items())) not in known]
    if len(rows) < _FEWEST:
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
        if number > len(known) - _FEWEST:
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
