"""The surrogate with the compiler's facts on landscapes that a recipe keeps out of training.

    python benchmarks/unseen_device.py --data FOLDER --landscapes 180 --method rlm --method trees

Facts come from the table of ``benchmarks/train_eye.py``; landscapes without facts there are left out.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from autotune_rlm.bench.kernels import run_search
from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.surrogate import load_surrogate
from autotune_rlm.training.examples import is_held_out
from autotune_rlm.training.facts_table import FactsTable
from autotune_rlm.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
BUDGETS = (1, 2, 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--facts", type=Path, default=ROOT / "data/kernel_facts/kernel_facts.gz")
    parser.add_argument("--recipe", default=str(ROOT / "recipes/nano-validation.yaml"))
    parser.add_argument("--surrogate", default=str(ROOT / "recipes/weights/nano-validation"))
    parser.add_argument("--landscapes", type=int, default=180)
    parser.add_argument("--method", action="append", default=[])
    args = parser.parse_args()
    table, holdout = FactsTable.load(args.facts), Recipe.load(args.recipe).holdout
    surrogate = load_surrogate(args.surrogate)
    groups: defaultdict[tuple[str, str], list[Landscape]] = defaultdict(list)
    for name in ("inductor_mm", "inductor_mixed_mm"):
        for one in read_landscapes(args.data / f"{name}.csv.gz"):
            if is_held_out(one, holdout) and table.facts(one.task, one.candidates[0].config):
                groups[one.task.kernel, one.task.device.name].append(one)
    for (kernel, device), landscapes in groups.items():
        some = [
            replace(x, candidates=tuple(table.candidate(x.task, c) for c in x.candidates))
            for x in landscapes[: args.landscapes]
        ]
        for method in args.method or ["rlm"]:
            runs = [
                run_search(x, method, budgets=BUDGETS, seed=0, load_surrogate=lambda: surrogate)
                for x in some
            ]
            regret = [
                np.mean([r.worst_regret if r.regret[b] is None else r.regret[b] for r in runs])
                for b in BUDGETS
            ]
            told = " / ".join(f"{100 * x:.2f}" for x in regret)
            print(f"{kernel}, {device}, {len(some)} landscapes, {method}: {told} %", flush=True)


if __name__ == "__main__":
    main()
