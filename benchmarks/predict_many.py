"""What a prediction of very many candidates costs: processor seconds and the peak of memory.

python benchmarks/predict_many.py --candidates 100000 --observed 1024

Each row is a process of its own. *First* is the network's own word on a list that it never saw; it is
kept. *Corrected* is each later prediction of the list, with measurements. Peak memory is that of the
whole process, beside what it was with the weights loaded.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import resource
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from autotune_rlm.devices import lookup
from autotune_rlm.surrogate import load
from autotune_rlm.types import Candidate, Measurement, Observation, Status, Task

_AXES = {
    "BLOCK_M": (16, 32, 48, 64, 96, 128, 192, 256),
    "BLOCK_N": (16, 32, 48, 64, 96, 128, 192, 256),
    "BLOCK_K": (16, 32, 64, 128, 256),
    "GROUP_M": (1, 2, 4, 8, 16),
    "SPLIT_K": (1, 2, 3, 4, 6, 8, 12, 16),
    "num_stages": (1, 2, 3, 4, 5, 6),
    "num_warps": (1, 2, 4, 8, 16),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--surrogate", help="name or path; default: the bundled weights")
    parser.add_argument("--candidates", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--observed", type=int, nargs="+", default=[1024])
    args = parser.parse_args()
    table = Table("candidates", "observed", "first s", "corrected s", "peak MiB", "loaded MiB")
    spawn = multiprocessing.get_context("spawn")
    for n, observed in itertools.product(args.candidates, args.observed):
        with spawn.Pool(1) as pool:
            first, corrected, peak, loaded = pool.apply(cost, (args.surrogate, n, observed))
        row = (f"{n:,}", f"{observed:,}", f"{first:.2f}", f"{corrected:.2f}")
        table.add_row(*row, f"{peak:,.0f}", f"{loaded:,.0f}")
    Console().print(table)


def cost(surrogate: str | None, n: int, observed: int) -> tuple[float, float, float, float]:
    """Processor seconds of the first prediction and a corrected one, and MiB: peak, and loaded."""
    model = load(surrogate or "nano")
    rng = np.random.default_rng(0)
    values = itertools.islice(itertools.product(*_AXES.values()), n)
    candidates = [Candidate(dict(zip(_AXES, one, strict=True))) for one in values]
    if len(candidates) < n:
        raise SystemExit(f"--candidates must be at most {len(candidates)}, got {n}")
    sizes = {"M": 4096, "N": 4096, "K": 4096}
    task = Task(kernel="matmul", device=lookup("NVIDIA A100"), problem=sizes)
    model.predict(task, candidates[:1])
    loaded = _peak()
    begin = time.process_time()
    model.predict(task, candidates)
    first = time.process_time() - begin
    known = [
        Observation(candidates[i], Measurement(status=Status.OK, value=float(rng.lognormal())))
        for i in rng.permutation(n)[:observed]
    ]
    begin = time.process_time()
    model.predict(task, candidates, observed=known)
    return first, time.process_time() - begin, _peak(), loaded


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
