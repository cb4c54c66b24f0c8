"""How many measurements each method needs to come within some per cent of the best.

    autotune-rlm bench kernels FILE... --method rlm --method xgboost --budget 1 --budget 2 ... \\
        --json results.json
    python benchmarks/measurements_needed.py results.json [--within 5]

A run's number is the first of the budgets at which its regret is small enough. A run that never gets
there counts as twice the largest budget, and the share of such runs is told. Numbers are geometric
means and medians over landscapes and seeds.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


def needed(run: dict[str, Any], within: float) -> float:
    """Measurements until the regret is at most ``within``; infinity where it never is."""
    for budget, regret in sorted(run["regret"].items(), key=lambda item: int(item[0])):
        if regret is not None and regret <= within:
            return float(budget)
    return float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--within", type=float, default=5.0, help="per cent of the best")
    args = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    most = 0
    for path in args.results:
        for run in json.loads(path.read_text())["runs"]:
            most = max(most, *map(int, run["regret"]))
            where = f"{run['kernel']}, {run['device']}"
            found[where][run["method"]].append(needed(run, args.within / 100))
    methods = list(dict.fromkeys(m for of_method in found.values() for m in of_method))
    table = Table("landscapes", *methods, title=f"measurements to within {args.within:g} %")
    together: dict[str, list[float]] = defaultdict(list)
    for where, of_method in found.items():
        cells = []
        for method in methods:
            cells.append(told(of_method.get(method, []), most))
            together[method] += of_method.get(method, [])
        table.add_row(f"{where} ({max(map(len, of_method.values()))})", *cells)
    table.add_row("all", *(told(together[method], most) for method in methods))
    Console(width=130).print(table)


def told(numbers: list[float], most: int) -> str:
    """Geometric mean and median, and the share of runs that never got there."""
    if not numbers:
        return ""
    counted = np.minimum(numbers, 2.0 * most)
    never = float(np.mean(np.isinf(numbers)))
    mean = f"{np.exp(np.log(counted).mean()):.1f} (median {np.median(counted):g})"
    return mean + (f", {never:.0%} never" if never else "")


if __name__ == "__main__":
    main()
