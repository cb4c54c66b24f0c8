"""A store under many processes that write and read at once, and whether anything is lost.

    python benchmarks/store_writers.py --store postgresql://me@127.0.0.1:5432/postgres --processes 32
    python benchmarks/store_writers.py --store /tmp/store.sqlite --processes 32

Each process does what a search does: it looks up what is known of a new problem (``recall``), then adds
measurements one at a time, and reads all of a shared problem now and then. The store must be empty; at
the end every measurement has to be there once. Waiting (``--think-ms``) stands for the measurement.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import defaultdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from autotune_rlm.store import Store
from autotune_rlm.types import Candidate, Device, Measurement, Task

_A_SEARCH = 32  # measurements
_READ_EVERY = 8


def problem(m: int) -> Task:
    return Task(kernel="matmul", device=Device(name="NVIDIA H100"), problem={"M": m, "N": 4096})


def search_on_and_on(store: str, number: int, seconds: float, think_s: float, start: Any) -> Any:
    """One process: returns milliseconds by what was done, and how many measurements were added."""
    took: dict[str, list[float]] = defaultdict(list)
    added = 0

    def timed(what: str, call: Any, *args: Any) -> Any:
        begin = time.perf_counter()
        found = call(*args)
        took[what].append(1e3 * (time.perf_counter() - begin))
        return found

    with Store(store) as opened:
        start.wait()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            task = problem(1 + 64 * (number + 1000 * (added // _A_SEARCH)))
            timed("recall of a new problem", opened.recall, task)
            for i in range(_A_SEARCH):
                where = problem(0) if i % _READ_EVERY == 0 else task
                candidate = Candidate({"process": number, "n": added})
                timed("add", opened.add, where, candidate, Measurement(status="ok", value=1.0 + i))
                added += 1
                if i % _READ_EVERY == 0:
                    timed("all of a shared problem", opened.observations, where)
                time.sleep(think_s)
    return dict(took), added


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True, help="an empty one")
    parser.add_argument("--processes", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--think-ms", type=float, default=0.0)
    args = parser.parse_args()
    with Store(args.store) as store:
        if store.info().n_tasks:
            raise SystemExit(f"{args.store} is not empty; give an empty one")
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(args.processes) as pool:
        start = manager.Barrier(args.processes)
        jobs = [
            pool.apply_async(
                search_on_and_on, (args.store, i, args.seconds, args.think_ms / 1e3, start)
            )
            for i in range(args.processes)
        ]
        results = [job.get() for job in jobs]
    added = sum(n for _, n in results)
    with Store(args.store) as store:
        kept = {
            (o.candidate.config["process"], o.candidate.config["n"])
            for task in store.tasks()
            for o in store.observations(task, every=True)
        }
        in_all = sum(store.info().n_measurements.values())
    table = Table(
        title=f"{args.processes} processes, {args.seconds:g} s: {added / args.seconds:,.0f} measurements "
        f"a second; {added - len(kept)} of {added:,} lost, {in_all - len(kept)} twice"
    )
    for column in ("", "calls", "median ms", "95 % ms", "longest ms"):
        table.add_column(column)
    for what in results[0][0]:
        ms = np.concatenate([took.get(what, []) for took, _ in results])
        cells = [f"{x:.1f}" for x in (*np.quantile(ms, [0.5, 0.95]), ms.max())]
        table.add_row(what, f"{len(ms):,}", *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
