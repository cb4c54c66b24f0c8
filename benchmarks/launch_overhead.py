"""What a cached launch costs: ``rlm_autotune`` beside ``triton.autotune`` over the same stub.

    python benchmarks/launch_overhead.py [--batches N] [--json FILE]

No GPU is needed: launches end in a driver that does nothing. Two ratios are told, ours over Triton's:
of the whole launch (with Triton's own ``JITFunction.run``), and of the autotuner's part alone (over a
kernel that returns at once). Batches of both alternate, and the median of the batches counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
import triton
import triton.language as tl
from triton.runtime.jit import KernelInterface

from autotune_rlm import rlm_autotune
from autotune_rlm.integrations.triton.stub import StubDriver

CONFIGS = [
    triton.Config({"BLOCK_M": m, "BLOCK_N": 32}, num_warps=w) for m in (16, 32) for w in (1, 2)
]
KEY = ["M", "N", "K"]


@triton.jit
def matmul_like(
    a, b, c, M, N, K, stride_am, stride_ak, stride_bk, stride_bn, stride_cm, stride_cn,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """As many arguments as a matmul has; what it does is of no importance here."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_N)
    at = c + rows[:, None] * stride_cm + columns[None, :] * stride_cn
    left = tl.load(a + rows[:, None] * stride_am + columns[None, :] * stride_ak)
    right = tl.load(b + rows[:, None] * stride_bk + columns[None, :] * stride_bn)
    tl.store(at, left + right + K, mask=(rows[:, None] < M) & (columns[None, :] < N))


@triton.jit
def vector_like(x, y, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    at = tl.program_id(0) * BLOCK_M * BLOCK_N + tl.arange(0, BLOCK_M * BLOCK_N)
    tl.store(y + at, tl.load(x + at, mask=at < n), mask=at < n)


class Nothing(KernelInterface):
    """A kernel that returns at once, with another's arguments."""

    def __init__(self, kernel: Any) -> None:
        self.fn = kernel.fn
        self.arg_names = kernel.arg_names

    def run(self, *args: Any, **kwargs: Any) -> None:
        pass


def both(kernel: Any, key: list[str]) -> dict[str, Any]:
    """The kernel under either autotuner."""
    bench = {"do_bench": lambda call, quantiles: [1.0] * len(quantiles)}
    return {
        "triton.autotune": triton.autotune(configs=CONFIGS, key=key, **bench)(kernel),
        "rlm_autotune": rlm_autotune(configs=CONFIGS, key=key, store=False, **bench)(kernel),
    }


def launcher(tuned: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
    """Launches as a program does."""
    return lambda: tuned[(1,)](*args, **kwargs)


def interleaved(calls: dict[str, Callable[[], Any]], batches: int, size: int) -> dict[str, float]:
    """Median CPU seconds of one call, from alternating batches."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for batch in range(batches):
        order = list(calls.items())
        for name, call in order if batch % 2 else reversed(order):
            begin = time.process_time()
            for _ in range(size):
                call()
            seconds[name].append((time.process_time() - begin) / size)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=201)
    parser.add_argument("--size", type=int, default=200, help="launches in a batch")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()

    x = torch.empty(64, 64)
    strides = (64, 1, 64, 1, 64, 1)
    cases = {
        "12 arguments, by position": (matmul_like, KEY, (x, x, x, 64, 64, 64, *strides), {}),
        "12 arguments, half by name": (
            matmul_like,
            KEY,
            (x, x, x, 64, 64, 64),
            dict(zip(matmul_like.arg_names[6:12], strides, strict=True)),
        ),
        "3 arguments": (vector_like, ["n"], (x, x, 4096), {}),
    }
    rows = []
    with StubDriver(keep=False):
        for case, (kernel, key, args, kwargs) in cases.items():
            for part, inner in (("whole launch", kernel), ("autotuner alone", Nothing(kernel))):
                calls = {
                    name: launcher(tuned, args, kwargs) for name, tuned in both(inner, key).items()
                }
                for call in calls.values():
                    call()
                times = interleaved(calls, options.batches, options.size)
                ratio = times["rlm_autotune"] / times["triton.autotune"]
                rows.append({"case": case, "part": part, "ratio": ratio, **times})
    print(f"Triton {triton.__version__}, Python {sys.version.split()[0]}")
    print("| launch | part | triton.autotune (us) | rlm_autotune (us) | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        times = (f"{1e6 * row[name]:.2f}" for name in ("triton.autotune", "rlm_autotune"))
        print(f"| {row['case']} | {row['part']} | {' | '.join(times)} | {row['ratio']:.2f} |")
    if options.json:
        options.json.write_text(json.dumps({"triton": triton.__version__, "rows": rows}, indent=1))
    return int(max(row["ratio"] for row in rows) > 1.0)


if __name__ == "__main__":
    sys.exit(main())
