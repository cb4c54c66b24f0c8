"""`torch.compile(mode="max-autotune")` on this CPU, with and without our ranking of its choices.

    python benchmarks/inductor_cpu.py --layers 20

A model of linear layers of different sizes is compiled in a fresh process with an empty cache, once as
it is, once with `autotune_rlm.integrations.inductor` and an empty store, once with the store that this
filled and another batch size. Inductor times the library's kernel and its C++ template for each layer;
ours leaves out what lost clearly in each of the nearest known problems.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODES = ("without", "with", "with, store known")


def build(count: int, seed: int = 0):
    import torch

    torch.manual_seed(seed)
    sizes = [32 * (1 + (7 * i) % 24) for i in range(count + 1)]
    layers = [torch.nn.Linear(i, o) for i, o in itertools.pairwise(sizes)]
    return torch.nn.Sequential(*layers).eval(), sizes[0]


def compile_once(layers: int, batch: int, store: str | None) -> dict:
    import torch
    from torch._inductor import config, select_algorithm

    from autotune_rlm import Store
    from autotune_rlm.integrations import inductor

    timed = 0

    def count(timings, *_):
        nonlocal timed
        timed += len(timings)

    select_algorithm.add_feedback_saver(count)
    model, width = build(layers)
    x = torch.randn(batch, width)
    config.max_autotune_gemm_backends = "ATEN,CPP"
    if store is not None:
        inductor.enable(store=Store(store))
    with torch.no_grad(), config.patch(freezing=True):
        compiled = torch.compile(model, mode="max-autotune", dynamic=False)
        begin = time.perf_counter()
        compiled(x)
        seconds = time.perf_counter() - begin
        runs = []
        for _ in range(200):
            begin = time.perf_counter()
            compiled(x)
            runs.append(1e3 * (time.perf_counter() - begin))
    return {"timed": timed, "seconds": seconds, "ms": statistics.median(runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--child", nargs=2, metavar=("BATCH", "STORE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        batch, store = options.child
        print(json.dumps(compile_once(options.layers, int(batch), store or None)))
        return
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store.sqlite")
        print("| batch | integration | choices timed | s to compile | ms a forward pass |")
        print("| --- | --- | --- | --- | --- |")
        cases = [
            (options.batch, MODES[0], ""),
            (options.batch, MODES[1], store),
            (options.batch + 8, MODES[0], ""),
            (options.batch + 8, MODES[2], store),
        ]
        for number, (batch, mode, place) in enumerate(cases):
            cache = {"TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / f"cache-{number}")}
            command = [sys.executable, __file__, "--layers", str(options.layers)]
            done = subprocess.run(
                [*command, "--child", str(batch), place],
                env=os.environ | cache,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            row = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| {batch} | {mode} | {row['timed']} | {row['seconds']:.0f} | {row['ms']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
