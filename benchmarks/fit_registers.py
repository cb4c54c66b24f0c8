"""Fits the weights of predicted registers to recorded compilations, and judges them on kernels left out.

    python benchmarks/fit_registers.py --record kernels.jsonl --work runs/package_kernels

The compilations are those of the suite (one landscape of eight of ``data/compile_facts``) and those that
``package_kernels.py`` recorded. Weights minimise the mean absolute logarithm of estimate over truth, in
which a kernel counts with the square root of its compilations. Factors are those of six folds over
kernels; the printed weights, fitted to everything, stand in ``autotune_rlm/ir/_registers.py``. Factors of
shared memory, of which nothing is fitted, are on all compilations.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas
from package_kernels import _constant_of, _module
from predicted_facts import DATA, GRID, SUITE, recorded
from rich.progress import track
from scipy.optimize import minimize

from autotune_rlm.ir import IRCache, KernelFacts, Launch, NotRead, Reader
from autotune_rlm.ir._products import Family
from autotune_rlm.ir._registers import register_terms
from autotune_rlm.ir._shared import shared_bytes
from autotune_rlm.landscapes import read_landscapes
from autotune_rlm.record.suite import load_suite

FOLDS = 6


class Compiled(NamedTuple):
    """One compilation: a kernel's facts, its options, and what the compiler said."""

    source: str
    kernel: str
    target: str
    facts: KernelFacts
    num_warps: int
    num_stages: int
    registers: float
    shared: float


def of_suite() -> Iterator[Compiled]:
    """Compilations of the suite's kernels."""
    suite, cache = load_suite(SUITE), IRCache()
    for landscape in track(read_landscapes(DATA)[::8], "suite"):
        task = landscape.task
        reader = Reader(suite[task.kernel].fn, target=task.device.target, cache=cache)
        registers, shared = (recorded(landscape, fact) for fact in ("registers", "shared_bytes"))
        for candidate, *truth in zip(landscape.candidates, registers, shared, strict=True):
            options = {"num_warps": 4, "num_stages": 3, **candidate.config}
            warps, stages = options["num_warps"], options["num_stages"]
            launch = Launch({**task.problem, **candidate.config}, GRID, warps, stages)
            facts = reader.facts(launch)
            yield Compiled("suite", task.kernel, reader.target, facts, warps, stages, *truth)


def of_packages(record: Path, work: Path) -> Iterator[Compiled]:
    """Compilations of packages' kernels."""
    cache = IRCache()
    for one in track([json.loads(line) for line in record.open()], "packages"):
        if one["status"] != "ok":
            continue
        arguments = {k: _constant_of(v) for k, v in one["arguments"].items()}
        warps, stages = (int(one["options"][k]) for k in ("num_warps", "num_stages"))
        try:
            kernel = getattr(_module(work / f"k{one['kernel']}.py"), one["name"])
            reader = Reader(kernel, target=one["target"], cache=cache)
            facts = reader.facts(Launch(arguments, GRID, warps, stages))
        except (NotRead, NameError) as error:
            print(f"{one['kernel']} is not read: {error}")
            continue
        truth = (float(one["facts"].get(k) or np.nan) for k in ("registers", "shared_bytes"))
        shared = float(one["facts"].get("shared_bytes", np.nan))
        yield Compiled(
            "package", one["kernel"], one["target"], facts, warps, stages, next(truth), shared
        )


def kind_of(target: str) -> str:
    return "cuda" if target.startswith("sm_") else "rdna" if target.startswith("gfx1") else "hip"


class Fit:
    """Compilations of one kind of GPU as a matrix of terms."""

    def __init__(self, points: list[Compiled]) -> None:
        self.points = points
        families = [Family.of(p.target) for p in points]
        rows = [
            register_terms(p.facts, f, num_warps=p.num_warps)
            for p, f in zip(points, families, strict=True)
        ]
        self.names = list(dict.fromkeys(name for row in rows for name in row))
        self.terms = np.array([[row.get(name, 0.0) for name in self.names] for row in rows])
        self.truth = np.array([p.registers for p in points])
        self.limits = np.array(
            [
                min(f.most_registers, f.registers // (p.num_warps * f.warp))
                for p, f in zip(points, families, strict=True)
            ]
        )
        self.kernels = np.array([p.kernel for p in points])

    def weights(self, rows: np.ndarray) -> np.ndarray:
        """Weights fitted to some rows, none of them negative."""
        terms, truth, limits = self.terms[rows], self.truth[rows], self.limits[rows]
        count = Counter(self.kernels[rows])
        importance = np.array([count[k] ** -0.5 for k in self.kernels[rows]])
        importance /= importance.sum()
        scale = np.abs(self.terms).mean(axis=0) + 1e-9

        def loss(scaled: np.ndarray) -> tuple[float, np.ndarray]:
            told = terms @ (scaled / scale)
            error = np.log(np.clip(told, 6, limits) / truth)
            smooth = np.sqrt(error**2 + 1e-3)
            inside = (told > 6) & (told < limits)
            slope = importance * error / smooth / np.where(inside, told, np.inf)
            return float(importance @ smooth), terms.T @ slope / scale

        start = 0.5 * scale
        bounds = [(0, None)] * len(scale)
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
        return np.asarray(found.x / scale)

    def left_out(self) -> np.ndarray:
        """Estimates of each row by weights that its kernel had no part in."""
        names = np.random.default_rng(0).permutation(np.unique(self.kernels))
        fold = {name: i % FOLDS for i, name in enumerate(names)}
        of = np.array([fold[k] for k in self.kernels])
        told = np.empty(len(of))
        for i in range(FOLDS):
            told[of == i] = self.terms[of == i] @ self.weights(of != i)
        return np.clip(told, 6, self.limits)


def factor(told: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The larger over the smaller, one added to each."""
    return np.asarray(np.exp(np.abs(np.log((told + 1) / (truth + 1)))))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/package_kernels"))
    args = parser.parse_args()
    points = [*of_suite(), *of_packages(args.record, args.work)]
    tables = []
    for kind in ("cuda", "hip", "rdna"):
        here = [p for p in points if kind_of(p.target) == kind and p.registers > 0]
        fit = Fit(here)
        weights = fit.weights(np.ones(len(here), dtype=bool))
        print(kind, {n: float(f"{w:.3g}") for n, w in zip(fit.names, weights, strict=True)})
        shared = [
            shared_bytes(
                p.facts, Family.of(p.target), num_warps=p.num_warps, num_stages=p.num_stages
            )
            for p in here
        ]
        truth = np.array([p.shared for p in here])
        columns = {"registers": factor(fit.left_out(), fit.truth)}
        columns["shared memory"] = factor(np.array(shared), truth)
        where = {"target": [p.target for p in here], "source": [p.source for p in here]}
        tables.append(pandas.DataFrame({**where, **columns}))
    table = pandas.concat(tables)
    for keys in (["target"], ["target", "source"]):
        factors = table.groupby(keys)[["registers", "shared memory"]].quantile([0.5, 0.9])
        print(factors.unstack().round(2).to_string())


if __name__ == "__main__":
    main()
