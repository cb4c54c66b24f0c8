"""Whether the network orders kernels better where it reads the compiler's facts as fields.

    python benchmarks/facts_as_fields.py --data FOLDER --recipe recipes/mixture.yaml \\
        --surrogate recipes/weights/nano-validation --surrogate runs/mixture

Nothing is measured and the eye has no say: the network's own order of landscapes that the recipe holds
out, as far as ``data/kernel_facts`` has their facts. Mean regret of its first choice and median of
Spearman's rank correlation, without and with the facts.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.surrogate.checkpoint import Checkpoint, load_checkpoint
from autotune_rlm.surrogate.rlm import RLMSurrogate
from autotune_rlm.training.examples import is_held_out
from autotune_rlm.training.facts_table import FactsTable
from autotune_rlm.training.recipe import Recipe
from autotune_rlm.types import Candidate

ROOT = Path(__file__).parents[1]
FILES = ("inductor_mm", "inductor_mixed_mm", "triton_matmul_a100")
MAX_COUNT = 1000  # configurations of a landscape


def held_out(args: argparse.Namespace) -> dict[str, list[Landscape]]:
    """Landscapes whose facts are known, by kernel and device."""
    holdout, table = Recipe.load(args.recipe).holdout, FactsTable.load(args.facts)
    rng, groups = np.random.default_rng(0), defaultdict(list)
    for name in FILES:
        for one in read_landscapes(args.data / "gpu" / f"{name}.csv.gz"):
            if (
                not is_held_out(one, holdout)
                or table.facts(one.task, one.candidates[0].config) is None
            ):
                continue
            rows = np.sort(rng.permutation(len(one))[:MAX_COUNT])
            known = [table.candidate(one.task, one.candidates[i]) for i in rows]
            rows = rows[[bool(c.facts) for c in known]]
            candidates = tuple(c for c in known if c.facts)
            group = groups[f"{one.task.kernel}, {one.task.device.name}"]
            if len(rows) > 2 and len(group) < args.landscapes:
                group.append(replace(one.take(rows), candidates=candidates))
    return groups


def judged(checkpoint: Checkpoint, landscapes: list[Landscape], facts: bool) -> str:
    """Mean regret of the first choice and median rank correlation."""
    surrogate, regret, rho = RLMSurrogate(replace(checkpoint, eye=None)), [], []
    for one in landscapes:
        candidates = one.candidates if facts else [Candidate(c.config) for c in one.candidates]
        told = surrogate.predict(one.task, candidates)
        ok = one.ok
        first = one.values[ok][np.argmin(told.median[ok])]
        regret.append(first / np.nanmin(one.values) - 1)
        rho.append(spearmanr(told.median[ok], one.values[ok]).statistic)
    return f"{100 * np.mean(regret):.2f} % / {np.nanmedian(rho):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="recipes/mixture.yaml")
    parser.add_argument("--surrogate", action="append", required=True)
    parser.add_argument("--landscapes", type=int, default=180, help="at most, of each kind")
    parser.add_argument("--facts", default=str(ROOT / "data/kernel_facts/kernel_facts.gz"))
    args = parser.parse_args()
    groups = held_out(args)
    printed = Table("landscapes", "how many", title="regret of the first choice / Spearman")
    columns = []
    for name in args.surrogate:
        checkpoint = load_checkpoint(name)
        for facts in (False, True) if checkpoint.settings.get("facts") else (False,):
            printed.add_column(f"{checkpoint.name}{' with facts' if facts else ''}")
            columns.append((checkpoint, facts))
    for group, landscapes in groups.items():
        cells = [judged(checkpoint, landscapes, facts) for checkpoint, facts in columns]
        printed.add_row(group, str(len(landscapes)), *cells)
    Console(width=140).print(printed)


if __name__ == "__main__":
    main()
