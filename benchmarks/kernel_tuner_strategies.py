"""Our engine and Kernel Tuner's own strategies in Kernel Tuner's simulation mode, on recorded landscapes.

    python benchmarks/kernel_tuner_strategies.py FILE... [--surrogate FOLDER] [--seeds 5]

Kernel Tuner runs every search itself: it reads the cache file that we export, keeps the budget and
replays. Judge a model on landscapes that it was not trained on (``benchmarks/held_out.py``). The table
shows the median over landscapes and seeds of how much slower than the best the best one found is.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from kernel_tuner import tune_kernel
from rich.console import Console
from rich.table import Table

from autotune_rlm.integrations.kernel_tuner import rlm_strategy
from autotune_rlm.landscapes import Landscape, read_landscapes, write_landscapes
from autotune_rlm.surrogate import load

OWN = (
    "random_sample",
    "genetic_algorithm",
    "simulated_annealing",
    "greedy_ils",
    "pso",
    "bayes_opt",
)
OURS = "RLMStrategy"


def values(landscape: Landscape) -> Iterator[tuple[str, list[Any]]]:
    """Each parameter with all its values, ascending."""
    for name in landscape.candidates[0].config:
        yield (
            name,
            sorted({c.config[name] for c in landscape.candidates}, key=lambda v: (str(type(v)), v)),
        )


def search(landscape: Landscape, cache: Path, strategy: Any, budget: int, seed: int) -> list[float]:
    """The values of what was run, in this order; infinite where it failed."""
    levels = dict(values(landscape))
    listed = {tuple(c.config[name] for name in levels) for c in landscape.candidates}

    def is_listed(config: dict[str, Any]) -> bool:
        return tuple(config[name] for name in levels) in listed

    results, _ = tune_kernel(
        landscape.task.kernel,
        landscape.task.source,
        json.loads(cache.read_text()).get("problem_size", 1),
        [],
        levels,
        restrictions=[is_listed],
        cache=str(cache),
        simulation_mode=True,
        strategy=strategy,
        strategy_options={"max_fevals": budget},
        lang="CUDA",
        quiet=True,
        seed=seed,
    )
    found = {tuple(r[name] for name in levels): r for r in results}
    return [np.inf if "__error__" in r else float(r["time"]) for r in found.values()][:budget]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--surrogate", help="name or folder; default: the bundled one")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budgets", type=int, nargs="+", default=[10, 25, 50, 100])
    parser.add_argument("--at-most", type=int, default=0, help="landscapes of each file; 0: all")
    parser.add_argument("--json", type=Path, help="also write every regret here")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    surrogate = load(args.surrogate)
    regrets: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    seconds: dict[str, float] = defaultdict(float)
    n = 0
    with tempfile.TemporaryDirectory() as folder:
        for file in args.files:
            found = read_landscapes(file)
            for landscape in found[: args.at_most or None]:
                n += 1
                cache = Path(folder) / f"{n}.json"
                write_landscapes(cache, [landscape], "kernel-tuner")
                for name in (*OWN, OURS):
                    for seed in range(args.seeds):
                        strategy = (
                            rlm_strategy(surrogate=surrogate, seed=seed) if name == OURS else name
                        )
                        begin = time.process_time()
                        times = search(landscape, cache, strategy, max(args.budgets), seed)
                        seconds[name] += time.process_time() - begin
                        for budget in args.budgets:
                            best = min(times[:budget], default=np.inf)
                            regrets[name][budget].append(landscape.regret(best))
                print(landscape.id, flush=True)
    table = Table(title=f"median (mean) regret, % of the best; {n} landscapes, {args.seeds} seeds")
    for column in ("strategy", *(f"{b} runs" for b in args.budgets), "CPU s a search"):
        table.add_column(column)
    for name, found in regrets.items():
        cells = [f"{100 * np.median(v):.1f} ({100 * np.mean(v):.1f})" for v in found.values()]
        table.add_row(name, *cells, f"{seconds[name] / (n * args.seeds):.1f}")
    Console(width=130).print(table)
    if args.json:
        args.json.write_text(json.dumps(regrets))


if __name__ == "__main__":
    main()
