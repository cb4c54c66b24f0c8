"""What a new key costs, by how many problems of the kernel the store knows.

    python benchmarks/new_key.py [--known 0 100 10000] [--launches N] [--json FILE]

No GPU is needed: launches end in a driver that does nothing, the surrogate knows nothing and answers at
once, so that what is left is the autotuner and the store. Told are medians of CPU time. Launches with
stores of different sizes alternate. "New" is a size that nobody met, chosen with ``mode="predict"`` and
noted for ``watch``; "taken over" is one within a factor of two of a problem that was tuned before, whose
choice serves it; "known" was tuned before, by another autotuner.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import numpy as np
import torch
import triton
from launch_overhead import Nothing, vector_like

from autotune_rlm import Candidate, Measurement, Store, rlm_autotune
from autotune_rlm.integrations.triton.stub import StubDriver
from autotune_rlm.types import Observation, Prediction, Task

CONFIGS = [triton.Config({"BLOCK_M": m, "BLOCK_N": 32}) for m in (16, 32, 64)]
X = torch.empty(8)
FIRST = 1 << 12


class KnowsNothing:
    """A surrogate that answers at once."""

    def predict(
        self, task: Task, candidates: Sequence[Candidate], *, observed: Sequence[Observation] = ()
    ) -> Prediction:
        one = np.ones(len(candidates))
        return Prediction(
            metric=task.metric, median=one, low=one, high=one, spread=one, p_valid=one
        )


def kernel(store: Store, key: Sequence[str] = ("n",)) -> Any:
    """A kernel under an autotuner that has met nothing."""
    made = rlm_autotune(
        configs=CONFIGS, key=list(key), mode="predict", store=store, surrogate=KnowsNothing()
    )
    return made(Nothing(vector_like))


def filled(path: Path, known: int) -> Store:
    """A store with ``known`` tuned problems, whose sizes are two apart."""
    with Store(":memory:") as scratch:
        kernel(scratch, ())[(1,)](X, X, FIRST)
        (task,) = (request.task for request in scratch.requests())
    candidates = [
        Candidate({**c.kwargs, "num_warps": c.num_warps, "num_stages": c.num_stages})
        for c in CONFIGS
    ]
    store = Store(path)
    for start in range(0, known, 1000):
        store.add_many(
            (of_size(task, FIRST + 2 * i), candidate, Measurement(status="ok", value=9.0 - place))
            for i in range(start, min(known, start + 1000))
            for place, candidate in enumerate(candidates)
        )
    return store


def of_size(task: Task, n: int) -> Task:
    """The same launch with another size."""
    return dataclasses.replace(task, problem={**task.problem, "n": n})


def cpu_ms(call: Callable[[], Any]) -> float:
    """CPU time of this process."""
    begin = time.process_time()
    call()
    return 1e3 * (time.process_time() - begin)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--known", type=int, nargs="+", default=[0, 100, 10_000])
    parser.add_argument("--launches", type=int, default=101)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    cases = ("new", "taken over", "known")
    times: dict[tuple[int, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, StubDriver(keep=False):
        stores = {n: filled(Path(folder) / f"{n}.sqlite", n) for n in options.known}
        for store in stores.values():
            kernel(store)[(1,)](X, X, 8)
        for i in range(options.launches):
            order = list(stores.items())
            for known, store in order if i % 2 else reversed(order):
                asked = {"new": (kernel(store), 2**20 + 16 * i)}
                if known:
                    at = FIRST + 2 * (i * known // options.launches)
                    asked["taken over"] = (kernel(store, ()), at + 1)
                    asked["known"] = (kernel(store), at)
                for case, (made, n) in asked.items():
                    launch = made[(1,)]
                    spent = cpu_ms(lambda launch=launch, n=n: launch(X, X, n))
                    times.setdefault((known, case), []).append(spent)
                    if case != "new" and made.best_config != CONFIGS[-1]:
                        raise RuntimeError(f"{case}: {made.best_config} was not the best measured")
        for store in stores.values():
            store.close()
    print(f"Triton {triton.__version__}, Python {sys.version.split()[0]}")
    print("| known problems | " + " | ".join(f"{case} (ms of CPU)" for case in cases) + " |")
    print("| --- |" + " --- |" * len(cases))
    medians = {key: statistics.median(values) for key, values in times.items()}
    for known in options.known:
        row = (f"{medians[known, c]:.1f}" if (known, c) in medians else "" for c in cases)
        print(f"| {known:,} | {' | '.join(row)} |")
    if options.json:
        rows = [{"known": k, "case": c, "cpu_ms": value} for (k, c), value in medians.items()]
        options.json.write_text(json.dumps({"triton": triton.__version__, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
