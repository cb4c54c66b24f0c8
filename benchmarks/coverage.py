"""How often the 90 % intervals hold: before anything is measured, and after a few measurements.

python benchmarks/coverage.py runs/held-out/inductor*.gz --surrogate recipes/weights/nano-validation
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.surrogate import RLMSurrogate, load
from autotune_rlm.types import Prediction


def share_inside(prediction: Prediction, values: np.ndarray, judged: np.ndarray) -> float:
    """Share of the judged values that lie within their intervals."""
    inside = (prediction.low <= values) & (values <= prediction.high)
    return float(inside[judged].mean())


def judge(
    surrogate: RLMSurrogate, landscape: Landscape, measured: np.ndarray
) -> tuple[float, float]:
    """Coverage over the working configurations, before and after those of ``measured``."""
    task, candidates, values = landscape.task, landscape.candidates, landscape.values
    before = share_inside(surrogate.predict(task, candidates), values, landscape.ok)
    observed = [landscape.observations[i] for i in measured]
    left = landscape.ok.copy()
    left[measured] = False
    after = share_inside(surrogate.predict(task, candidates, observed=observed), values, left)
    return before, after


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+")
    parser.add_argument("--surrogate", help="folder or name; the bundled one where not given")
    parser.add_argument("--landscapes", type=int, default=60, help="at most so many of a file")
    parser.add_argument("--measured", type=int, default=4, help="random configurations measured")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    surrogate, rng = load(args.surrogate), np.random.default_rng(args.seed)
    table = Table("file", "before", f"after {args.measured} measurements", title="Inside 90 %")
    for file in args.files:
        found = [x for x in read_landscapes(file) if x.ok.sum() > args.measured]
        picked = rng.permutation(len(found))[: args.landscapes]
        shares = [
            judge(
                surrogate,
                found[i],
                rng.permutation(np.flatnonzero(found[i].ok))[: args.measured],
            )
            for i in track(picked, description=file, transient=True)
        ]
        before, after = np.mean(shares, axis=0)
        table.add_row(file.rsplit("/", 1)[-1], f"{before:.1%}", f"{after:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
