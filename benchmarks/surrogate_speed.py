"""How fast the surrogate is, and what it costs to have it in memory.

    python benchmarks/surrogate_speed.py [--surrogate FOLDER] [--threads 2] [--json OUT]

Prints: loading beyond ``import torch``; encoding a shared part of 2,000 tokens; configurations a second
with the exact distribution; learning from 16 new measurements; a fine-tuning round on 500 measurements;
resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import psutil
from rich.console import Console
from rich.table import Table


def child(code: str, threads: int) -> float:
    """Seconds that a fresh process reports."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    return float(out.stdout.strip().splitlines()[-1])


def loading(surrogate: str | None, threads: int) -> float:
    code = (
        "import time, torch; t = time.perf_counter(); from autotune_rlm.surrogate import load; "
        f"load({surrogate!r}); print(time.perf_counter() - t)"
    )
    return statistics.median(child(code, threads) for _ in range(3))


def resident(surrogate: str | None, threads: int) -> float:
    code = (
        "import psutil; from autotune_rlm.surrogate import load; from autotune_rlm.types import *; "
        f"s = load({surrogate!r}); "
        "t = Task(kernel='k', device=Device(name='x'), source='a = 1\\n' * 500); "
        "s.predict(t, [Candidate({'BLOCK': i}) for i in range(5000)]); "
        "print(psutil.Process().memory_info().rss / 2**20)"
    )
    return child(code, threads)


def median_seconds(work, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--surrogate", help="folder or name; the bundled one where not given")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--configurations", type=int, default=8640)
    parser.add_argument("--json", help="write the figures here")
    args = parser.parse_args()

    import numpy as np
    import torch

    from autotune_rlm.devices import lookup
    from autotune_rlm.landscapes import Landscape
    from autotune_rlm.surrogate import RLMSurrogate, load
    from autotune_rlm.training.finetune import fine_tune
    from autotune_rlm.types import Candidate, Measurement, Observation, Status, Task

    torch.set_num_threads(args.threads)
    surrogate = load(args.surrogate)
    fresh = lambda: RLMSurrogate(surrogate.checkpoint)  # noqa: E731
    rng = np.random.default_rng(0)
    source = "".join(f"acc{i} = tl.dot(a{i}, b{i}, acc{i})\n" for i in range(400))

    def task(size: int) -> Task:
        sizes = {"M": size, "N": size, "K": size}
        return Task(kernel="matmul", device=lookup("NVIDIA A100"), problem=sizes, source=source)

    grid = [
        Candidate({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "num_stages": s, "num_warps": w})
        for m in (16, 32, 48, 64, 96, 128, 160, 256)
        for n in (16, 32, 48, 64, 96, 128, 160, 256)
        for k in (16, 32, 64, 128, 256)
        for s in (1, 2, 3, 4, 5, 6)
        for w in (1, 2, 4, 8, 16)
    ][: args.configurations]
    one = grid[:1]
    figures = {"configurations": len(grid), "threads": args.threads}
    figures["load_s"] = loading(args.surrogate, args.threads)
    tokens = len(surrogate.checkpoint.tokenizer.encode(source, limit=2000))
    figures["shared_tokens"] = tokens
    fresh().predict(task(512), one)
    figures["shared_ms"] = 1e3 * median_seconds(lambda: fresh().predict(task(640), one))
    whole = median_seconds(lambda: fresh().predict(task(768), grid), 3)
    figures["configurations_per_s"] = len(grid) / whole
    values = rng.lognormal(size=16)
    seen = [
        Observation(c, Measurement(status=Status.OK, value=float(v)))
        for c, v in zip(grid[:: len(grid) // 16], values, strict=False)
    ]
    surrogate.predict(task(896), grid, observed=seen[:1])
    figures["learn_16_ms"] = 1e3 * median_seconds(
        lambda: surrogate.predict(task(896), grid, observed=seen)
    )
    landscapes = [
        Landscape(
            task(256 * i),
            tuple(grid[i::172][:50]),
            tuple(Measurement(status=Status.OK, value=float(v)) for v in rng.lognormal(size=50)),
        )
        for i in range(1, 11)
    ]
    started = time.perf_counter()
    fine_tune(surrogate, landscapes)
    figures["fine_tune_500_s"] = time.perf_counter() - started
    figures["resident_mib"] = resident(args.surrogate, args.threads)
    table = Table("figure", "value", title=f"Surrogate {surrogate.name!r}, {args.threads} threads")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.2f}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)
    load_now = psutil.getloadavg()[0]
    if load_now > args.threads + 0.5:
        Console().print(
            f"The machine was busy (load {load_now:.1f}); run it again when it is idle."
        )
    if args.json:
        with open(args.json, "w") as out:
            json.dump(figures, out, indent=2)


if __name__ == "__main__":
    main()
