"""What it gives up, and what it saves, to measure a compiled candidate before a better one that is not.

python benchmarks/compile_ahead.py runs/held-out/{triton,hub_}*.gz \\
    --surrogate recipes/weights/nano-validation

Replays the decorator's loop with eight simulated workers that compile ahead, each compilation for as
long as was recorded. ``loss`` is the share of a candidate's worth that is given up for one that is
compiled already: 0 always waits, 1 never does. Landscapes without seconds of compilation are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from unittest import mock

import numpy as np
from rich.console import Console
from rich.table import Table

from autotune_rlm.bench import run_search
from autotune_rlm.landscapes import read_landscapes
from autotune_rlm.search import tuner
from autotune_rlm.surrogate import load


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--surrogate", help="name or path; default: the bundled weights")
    parser.add_argument("--losses", nargs="+", type=float, default=[0.0, tuner._NO_LOSS, 1.0])
    parser.add_argument("--budgets", nargs="+", type=int, default=[4, 8, 16, 32])
    args = parser.parse_args()
    surrogate = load(args.surrogate or "nano")
    landscapes = [one for file in args.files for one in read_landscapes(file)]
    timed = [one for one in landscapes if any(m.compile_s for m in one.measurements)]
    if not timed:
        raise SystemExit("files: no landscape has seconds of compilation")
    table = Table("loss", *(f"{n}: mean regret, %; s" for n in args.budgets))
    for loss in args.losses:
        cells: list[list[tuple[float, float]]] = [[] for _ in args.budgets]
        with mock.patch.object(tuner, "_NO_LOSS", min(loss, 1 - 1e-12)):
            for one in timed:
                found = run_search(
                    one, "rlm", budgets=args.budgets, seed=0, load_surrogate=lambda: surrogate
                )
                for cell, n in zip(cells, args.budgets, strict=True):
                    regret, seconds = found.regret[n], found.seconds or []
                    at = seconds[min(n, len(seconds)) - 1]
                    cell.append((found.worst_regret if regret is None else regret, at))
        means = [np.mean(cell, axis=0) for cell in cells]
        table.add_row(f"{loss:g}", *(f"{100 * regret:.1f}; {s:.1f}" for regret, s in means))
        Console().print(f"loss {loss:g} done, {len(timed)} landscapes")
    Console().print(table)


if __name__ == "__main__":
    main()
