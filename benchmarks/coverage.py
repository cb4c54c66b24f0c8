"""How good the distributions are: before anything is measured, and after a few measurements.

    python benchmarks/coverage.py runs/held-out/inductor*.gz \\
        --surrogate recipes/weights/nano-validation

Coverage is the share of values inside the 90 % intervals. CRPS (Gneiting and Raftery 2007) is that
of the logarithm of the value, with the interval's ends as those of two half-normals around the
median: 0.1 is about as bad as being sure of a value that is 10 % off.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import norm

from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.surrogate import RLMSurrogate, load
from autotune_rlm.types import Prediction

_Z90 = 1.6448536


def scores(prediction: Prediction, values: np.ndarray, judged: np.ndarray) -> tuple[float, float]:
    """Coverage and mean CRPS of the judged values, all positive."""
    inside = (prediction.low <= values) & (values <= prediction.high)
    low, median, high, y = (
        np.log(x[judged]) for x in (prediction.low, prediction.median, prediction.high, values)
    )
    down, up = ((np.maximum(x, 1e-6) / _Z90) for x in (median - low, high - median))
    return float(inside[judged].mean()), float(crps(y - median, down, up).mean())


def crps(error: np.ndarray, down: np.ndarray, up: np.ndarray) -> np.ndarray:
    """CRPS of a two-piece normal with mode 0, by the integral of (F(x) - [x >= error])^2."""
    quantiles = (np.arange(200) + 0.5) / 200
    z = norm.ppf(quantiles / 2 + 0.5)  # of a half-normal
    share = (down / (down + up))[:, None]  # of the mass that lies below
    below, above = -down[:, None] * z, up[:, None] * z
    points = np.hstack([below, above])
    weights = np.hstack([share + 0 * z, 1 - share + 0 * z]) / len(z)
    to_value = (weights * np.abs(points - error[:, None])).sum(1)
    order = np.argsort(points, axis=1)
    x, w = np.take_along_axis(points, order, 1), np.take_along_axis(weights, order, 1)
    cumulative = np.cumsum(w, axis=1)
    apart = (np.diff(x, axis=1) * cumulative[:, :-1] * (1 - cumulative[:, :-1])).sum(1)
    return to_value - apart


def judge(
    surrogate: RLMSurrogate, landscape: Landscape, measured: np.ndarray
) -> tuple[float, float, float, float]:
    """Scores over the working configurations, before and after those of ``measured``."""
    task, candidates, values = landscape.task, landscape.candidates, landscape.values
    before = scores(surrogate.predict(task, candidates), values, landscape.ok)
    observed = [landscape.observations[i] for i in measured]
    left = landscape.ok.copy()
    left[measured] = False
    after = scores(surrogate.predict(task, candidates, observed=observed), values, left)
    return *before, *after


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
    later = f"after {args.measured} measurements"
    table = Table("file", "inside 90 %, before", "CRPS", f"inside 90 %, {later}", "CRPS")
    for file in args.files:
        found = [x for x in read_landscapes(file) if x.ok.sum() > args.measured]
        picked = rng.permutation(len(found))[: args.landscapes]
        found_scores = [
            judge(
                surrogate,
                found[i],
                rng.permutation(np.flatnonzero(found[i].ok))[: args.measured],
            )
            for i in track(picked, description=file, transient=True)
        ]
        before, crps_before, after, crps_after = np.mean(found_scores, axis=0)
        name = file.rsplit("/", 1)[-1]
        table.add_row(
            name, f"{before:.1%}", f"{crps_before:.3f}", f"{after:.1%}", f"{crps_after:.3f}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
