"""Facts of compilation, predicted for kernels: shared memory, registers, spills, compile time.

    python benchmarks/predicted_facts.py [--kernel NAME ...] [--surrogate FOLDER]

Compares ``RLMSurrogate.facts`` with a recording of what compiling said: as the kernels' first IR tells
it, or with ``--text`` as the network reads it from the text alone; for that, give the kernels that it was
not trained on (a recipe's ``holdout.kernels``). Spearman is that of all points of a
kernel, median over kernels; the error is the median of the larger over the smaller value, plus one
each; coverage is the share of values within the 90 % interval.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr

from autotune_rlm.devices import completed
from autotune_rlm.ir import IRCache, Launch, Reader
from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.record.suite import SuiteKernel, load_suite
from autotune_rlm.surrogate import load
from autotune_rlm.types import Candidate, Device

SUITE = Path(__file__).with_name("kernels")
GRID = (64, 1, 1)  # what compiling says does not depend on it
DATA = Path(__file__).parents[1] / "data" / "compile_facts" / "compile_facts.csv.gz"


def recorded(landscape: Landscape, metric: str) -> np.ndarray:
    """The landscape's values of a fact, NaN where there is none; shape (n,)."""
    if metric == landscape.task.metric:
        return landscape.values
    told = [m.facts.get(metric) for m in landscape.measurements]
    return np.array([np.nan if v is None else float(v) for v in told])


def read(kernel: SuiteKernel, landscape: Landscape) -> list[Candidate]:
    """The candidates with the facts of the kernel's first IR."""
    task = landscape.task
    device = completed(Device(name=task.device.name, target=task.device.target))
    reader = Reader(kernel.fn, target=device.target, cache=IRCache())
    found = []
    for candidate in landscape.candidates:
        options = {"num_warps": 4, "num_stages": 3, **candidate.config}
        launch = Launch(
            {**task.problem, **candidate.config},
            GRID,
            options["num_warps"],
            options["num_stages"],
        )
        found.append(replace(candidate, facts=reader.numbers(launch, device)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--kernel", action="append", help="repeatable; default: all")
    parser.add_argument("--surrogate", help="folder or name; the bundled one where not given")
    parser.add_argument("--text", action="store_true", help="do not read the kernels' first IR")
    parser.add_argument("--every", type=int, default=1, help="one of so many landscapes")
    args = parser.parse_args()
    suite = {} if args.text else load_suite(SUITE)
    surrogate = load(args.surrogate)
    landscapes = [
        x for x in read_landscapes(args.data) if not args.kernel or x.task.kernel in args.kernel
    ]
    landscapes = landscapes[:: args.every]
    if not landscapes:
        raise SystemExit(f"--kernel: none of {args.kernel} is in {args.data}")
    points: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for landscape in track(landscapes, "Predicting"):
        candidates = landscape.candidates
        if not args.text:
            candidates = read(suite[landscape.task.kernel], landscape)
        for metric, p in surrogate.facts(landscape.task, candidates).items():
            row = np.stack([recorded(landscape, metric), p.median, p.low, p.high])
            points[metric][landscape.task.kernel].append(row)
    table = Table("fact", "kernels", "points", "Spearman", "error", "coverage")
    for metric, of_kernel in points.items():
        rho, error, covered = [], [], []
        for rows in of_kernel.values():
            values, median, low, high = np.hstack(rows)
            known = np.isfinite(values)
            values, median = values[known], median[known]
            if np.ptp(values) > 0 and np.ptp(median) > 0:
                rho.append(spearmanr(median, values).statistic)
            error.append(np.exp(np.abs(np.log1p(median) - np.log1p(values))))
            covered.append((low[known] <= values) & (values <= high[known]))
        errors, inside = np.concatenate(error), np.concatenate(covered)
        spearman = f"{np.median(rho):.2f}" if rho else "all equal"
        table.add_row(
            metric,
            str(len(of_kernel)),
            str(len(errors)),
            spearman,
            f"{np.median(errors):.2f}",
            f"{inside.mean():.0%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
