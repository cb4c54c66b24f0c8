"""Predicted times, before anything is measured, of kinds of kernels that were never timed.

    python benchmarks/unseen_kinds.py --data FOLDER

The times are Liger's own (``timings.csv.gz``), of kernels whose warps follow from the row's length. The
kernels here are written for this project and do the same work. Prints for each whether the time lies in
the interval of 90 %, and the factor between time and median.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from pathlib import Path

import numpy as np
import triton
import triton.language as tl

from autotune_rlm import Candidate, Task, devices, ir, load_surrogate

DEVICES = {"NVIDIA A100-SXM4-80GB": "NVIDIA A100 80GB", "NVIDIA H100 80GB HBM3": "NVIDIA H100"}


@triton.jit
def layer_norm(x_ptr, w_ptr, b_ptr, out_ptr, mean_ptr, rstd_ptr, N, eps, BLOCK: tl.constexpr):
    """(x - mean) / deviation * w + b of one row."""
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * N + at, mask=at < N, other=0.0).to(tl.float32)
    mean = tl.sum(x, 0) / N
    x = tl.where(at < N, x - mean, 0.0)
    rstd = tl.rsqrt(tl.sum(x * x, 0) / N + eps)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)
    w, b = tl.load(w_ptr + at, mask=at < N), tl.load(b_ptr + at, mask=at < N)
    tl.store(out_ptr + row * N + at, (x * rstd * w + b).to(out_ptr.dtype.element_ty), mask=at < N)


@triton.jit
def rms_norm(x_ptr, w_ptr, out_ptr, rstd_ptr, N, eps, BLOCK: tl.constexpr):
    """x / root mean square * w of one row."""
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * N + at, mask=at < N, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.sum(x * x, 0) / N + eps)
    tl.store(rstd_ptr + row, rstd)
    out = (x * rstd).to(out_ptr.dtype.element_ty) * tl.load(w_ptr + at, mask=at < N)
    tl.store(out_ptr + row * N + at, out, mask=at < N)


@triton.jit
def relu_squared(x_ptr, out_ptr, N, BLOCK: tl.constexpr):
    """max(x, 0)^2 of one row."""
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    x = tl.maximum(tl.load(x_ptr + row * N + at, mask=at < N, other=0.0).to(tl.float32), 0.0)
    tl.store(out_ptr + row * N + at, (x * x).to(out_ptr.dtype.element_ty), mask=at < N)


@triton.jit
def swiglu(x_ptr, out_ptr, N, BLOCK: tl.constexpr):
    """silu(gate) * up of one row that holds both."""
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    gate = tl.load(x_ptr + row * 2 * N + at, mask=at < N, other=0.0).to(tl.float32)
    up = tl.load(x_ptr + row * 2 * N + N + at, mask=at < N, other=0.0)
    out = (gate * tl.sigmoid(gate)).to(up.dtype) * up
    tl.store(out_ptr + row * N + at, out, mask=at < N)


KERNELS = {
    "liger_layer_norm": layer_norm,
    "liger_rms_norm": rms_norm,
    "liger_megatron_rms_norm": rms_norm,
    "liger_relu_squared": relu_squared,
    "liger_megatron_swiglu": swiglu,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    surrogate, inside, factors = load_surrogate("nano"), [], []
    with gzip.open(args.data / "timings.csv.gz", "rt") as file:
        rows = [
            r for r in csv.DictReader(file) if r["device"] in DEVICES and r["kernel"] in KERNELS
        ]
    for row in rows:
        problem = json.loads(row["problem"])
        if row["implementation"] != "liger" or problem["mode"] != "forward":
            continue
        n, lines = (
            problem.get("N") or problem.get("H") or problem["ffn_local"],
            problem.get("M") or problem["S"] * problem["B"],
        )
        kernel, device = KERNELS[row["kernel"]], devices.lookup(DEVICES[row["device"]])
        block = triton.next_power_of_2(n)
        warps = 32 if block >= 32768 else 16 if block >= 8192 else 8 if block >= 2048 else 4
        dtype = "*fp32" if problem.get("dtype") == "torch.float32" else "*bf16"
        pointers = {name: dtype for name in kernel.arg_names if name.endswith("_ptr")}
        pointers |= {name: "*fp32" for name in ("mean_ptr", "rstd_ptr") if name in pointers}
        arguments = {**pointers, "N": n, "eps": 1e-6, "BLOCK": block}
        facts = ir.on_device(
            ir.kernel_facts(kernel, arguments, grid=(lines,)), device, num_warps=warps
        )
        task = Task(kernel=row["kernel"], device=device, problem={"N": n, "M": lines})
        told = surrogate.predict(
            task, [Candidate({"BLOCK": block, "num_warps": warps}, facts=facts)]
        )
        took = float(row["time_ms"])
        inside.append(told.low[0] <= took <= told.high[0])
        factors.append(took / told.median[0])
        told_text = f"{told.median[0]:.4f} ms ({told.low[0]:.4f} to {told.high[0]:.4f})"
        print(
            f"{row['kernel']}, {device.name}, {lines} x {n}: {took:.4f} ms, predicted {told_text}"
        )
    median = np.exp(np.median(np.abs(np.log(factors))))
    print(f"{np.mean(inside):.0%} of {len(inside)} inside, median factor {median:.2f}")


if __name__ == "__main__":
    main()
