"""Measurements a second on a Ray cluster with 1, 2 and 4 workers, and what each costs beside measuring.

    python benchmarks/ray_workers.py [--address ADDRESS] [--workers 1 2 4] [--wait-ms 500]

Without an address a cluster is started here. A measurement only waits, as a program does that waits for
a GPU, so that workers do not compete for cores; without waiting (0 ms) the cost of sending is left. All
goes through ``Tuner`` and a store, as it does for users.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import ray
from rich.console import Console
from rich.table import Table

from autotune_rlm.integrations.ray import RayMeasurer
from autotune_rlm.search.policy import Policy
from autotune_rlm.search.tuner import Tuner
from autotune_rlm.store import Store
from autotune_rlm.types import Candidate, Device, Measurement, Task

TASK = Task(kernel="waits", device=Device(name="cluster"))


class Waits:
    """Takes so many seconds for each candidate."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def measure(
        self, task: Task, candidates: Iterable[Candidate]
    ) -> Iterator[tuple[Candidate, Measurement]]:
        for candidate in candidates:
            time.sleep(self.seconds)
            yield candidate, Measurement(status="ok", value=1.0, cost_s=self.seconds)


def run(address: str | None, workers: int, wait_s: float, count: int) -> tuple[float, float]:
    """Seconds that ``count`` measurements took, and CPU seconds of this process."""
    candidates = [Candidate({"n": n}) for n in range(count)]
    with (
        RayMeasurer(
            lambda: Waits(wait_s), address=address, workers=workers, gpus=False
        ) as measurer,
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder) / "store.sqlite") as store,
    ):
        list(measurer.measure(TASK, [Candidate({"warm": i}) for i in range(4 * workers)]))
        tuner = Tuner(surrogate=None, measurer=measurer, store=store, policy=Policy(min_gain=None))
        begin, cpu = time.perf_counter(), time.process_time()
        result = tuner.tune(TASK, candidates)
        assert result.event.n_measured == count == len(store.observations(TASK))
        return time.perf_counter() - begin, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", help="of a cluster that runs")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--wait-ms", type=float, nargs="+", default=[500.0, 0.0])
    parser.add_argument("--count", type=int, default=40, help="measurements for each worker")
    args = parser.parse_args()
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # Ray's default of 15 starves on a busy machine
    here = {"num_cpus": max(args.workers), "include_dashboard": False, "log_to_driver": False}
    ray.init(address=args.address or "local", **({} if args.address else here))
    table = Table(title="measurements through Tuner, Ray and a store")
    for column in ("waits", "workers", "a second", "of the ideal", "this process, CPU ms each"):
        table.add_column(column)
    for wait_ms in args.wait_ms:
        for workers in args.workers:
            count = args.count * workers
            seconds, cpu = run(args.address, workers, wait_ms / 1e3, count)
            ideal = f"{count * wait_ms / 1e3 / workers / seconds:.0%}" if wait_ms else ""
            cells = [f"{wait_ms:g} ms", str(workers), f"{count / seconds:.1f}", ideal]
            table.add_row(*cells, f"{1e3 * cpu / count:.1f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
