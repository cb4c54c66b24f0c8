"""`torch.compile(mode="max-autotune")`, with and without our ranking of its choices.

    python benchmarks/inductor_layers.py --layers 20
    python benchmarks/inductor_layers.py --layers 8 --device cuda  # on the GPU that is here, in bfloat16

A model of linear layers of different sizes is compiled in a fresh process with an empty cache, once as
it is, once with `autotune_rlm.integrations.inductor` and an empty store, once with the store that this
filled and another batch size. Inductor times the library's kernel and its C++ template (on a GPU its
Triton templates) for each layer; ours times the library's and the few that are likely to win.
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


def build(count: int, device: str, seed: int = 0):
    import torch

    torch.manual_seed(seed)
    unit = 32 if device == "cpu" else 256
    sizes = [unit * (1 + (7 * i) % 24) for i in range(count + 1)]
    layers = [torch.nn.Linear(i, o) for i, o in itertools.pairwise(sizes)]
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model = torch.nn.Sequential(*layers).eval().to(device, dtype)
    return model, torch.randn(1, sizes[0], device=device, dtype=dtype)


def compile_once(layers: int, batch: int, store: str | None, device: str) -> dict:
    import torch
    from torch._inductor import config, select_algorithm

    from autotune_rlm import Store
    from autotune_rlm.integrations import inductor

    timed = 0

    def count(timings, *_):
        nonlocal timed
        timed += len(timings)

    select_algorithm.add_feedback_saver(count)
    model, row = build(layers, device)
    x = row.repeat(batch, 1)
    config.max_autotune_gemm_backends = "ATEN,CPP" if device == "cpu" else "ATEN,TRITON"
    mode = "max-autotune" if device == "cpu" else "max-autotune-no-cudagraphs"
    if store is not None:
        inductor.enable(store=Store(store))

    def run() -> None:
        compiled(x)
        if device != "cpu":
            torch.accelerator.synchronize()

    with torch.no_grad(), config.patch(freezing=device == "cpu"):
        compiled = torch.compile(model, mode=mode, dynamic=False)
        begin = time.perf_counter()
        run()
        seconds = time.perf_counter() - begin
        runs = []
        for _ in range(200):
            begin = time.perf_counter()
            run()
            runs.append(1e3 * (time.perf_counter() - begin))
    return {"timed": timed, "seconds": seconds, "ms": statistics.median(runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--child", nargs=2, metavar=("BATCH", "STORE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        batch, store = options.child
        print(json.dumps(compile_once(options.layers, int(batch), store or None, options.device)))
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
            command += ["--device", options.device, "--child", str(batch), place]
            done = subprocess.run(
                command,
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
