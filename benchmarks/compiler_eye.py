"""What reading the first IR costs: for one set of constants, and for the ranking of a whole space.

    python benchmarks/compiler_eye.py [--every 4] [--configurations 2000]

The first table has CPU milliseconds of one core: Triton's front end (parsing, code generation, cleaning
passes), the walk that counts, and the numbers of one configuration on a device; medians over kernels of
the suite, of a kernel's second to last set (the first imports and parses). The second table is the wall
time of reading a space with nothing cached, workers and all, and CPU seconds of this process and of
its workers: on quiet cores the wall time is at most the first and a share of the second.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from autotune_rlm.devices import lookup
from autotune_rlm.ir import IRCache, Launch, NotRead, Reader, as_grid, on_device
from autotune_rlm.record.suite import SuiteKernel, load_suite

SUITE = Path(__file__).with_name("kernels")
SETS = 6


def costs(kernel: SuiteKernel) -> tuple[list[float], list[float], list[float]]:
    """CPU ms of front end, walk and numbers, for some sets of constants of a kernel."""
    device = lookup("H100")
    problem = kernel.problems[-1]
    given = kernel.make_args(problem, "meta", None)
    configs = list(kernel.space)
    front, walk, numbers = [], [], []
    for config in configs[:: max(1, len(configs) // SETS)][:SETS]:
        reader = Reader(kernel.fn)
        whole = {**given, **config}
        launch = Launch(whole, as_grid(kernel.grid(whole), whole))
        start = time.process_time()
        reader.keep(reader.read(reader.unread([launch])))
        middle = time.process_time()
        try:
            facts = reader.facts(launch)
        except NotRead:
            continue
        end = time.process_time()
        on_device(facts, device)
        front.append(1e3 * (middle - start))
        walk.append(1e3 * (end - middle))
        numbers.append(1e3 * (time.process_time() - end))
    return front[1:], walk[1:], numbers[1:]


def whole_space(kernel: SuiteKernel, n: int) -> tuple[int, int, float, float, float]:
    """Configurations, distinct sets, wall seconds, CPU seconds of this process and of its workers."""
    from autotune_rlm.integrations.triton import _facts
    from autotune_rlm.integrations.triton._live import launch_of
    from autotune_rlm.integrations.triton.task import candidates_of

    given = kernel.make_args(kernel.problems[-1], "meta", None)
    candidates = candidates_of(kernel.space.to_triton())[:n]
    with tempfile.TemporaryDirectory() as folder:
        cache = IRCache(Path(folder) / "cache" / "ir.sqlite3")
        _facts._cache = lambda: cache  # type: ignore[assignment]
        start, used, workers = time.monotonic(), time.process_time(), workers_cpu_s()
        report = _facts.with_facts(
            kernel.fn,
            candidates,
            lambda c: launch_of(kernel.fn, given, c.payload, grid=kernel.grid),
            lookup("H100"),
            order=lambda known: range(len(known)),
        )
        return (
            len(candidates),
            report.distinct,
            time.monotonic() - start,
            time.process_time() - used,
            workers_cpu_s() - workers,
        )


def workers_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, help="one of so many kernels")
    parser.add_argument("--configurations", type=int, default=2000)
    args = parser.parse_args()
    suite = load_suite(SUITE)
    console = Console()
    table = Table("kernel", "front end", "walk", "numbers", title="CPU ms", title_justify="left")
    rows = []
    for name in list(suite)[:: args.every]:
        medians = [float(np.median(x)) if x else np.nan for x in costs(suite[name])]
        rows.append(medians)
        table.add_row(name, *(f"{x:.1f}" if x >= 1 else f"{x:.2f}" for x in medians))
    table.add_row("median", *(f"{x:.2f}" for x in np.nanmedian(rows, axis=0)))
    console.print(table)
    spaces = Table("kernel", "configurations", "distinct", "wall s", "CPU s here", "of workers")
    for name in ("matmul_kernel", "attention_forward", "softmax_rows"):
        n, distinct, *seconds = whole_space(suite[name], args.configurations)
        spaces.add_row(name, str(n), str(distinct), *(f"{s:.1f}" for s in seconds))
    console.print(spaces)
    console.print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
