"""Softmax over rows of any length: one pass for maximum and sum, one to write."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def softmax_rows(
    x_ptr,
    y_ptr,
    n_rows,
    n_cols,
    x_stride,
    y_stride,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_mask = rows[:, None] < n_rows
    cols = tl.arange(0, BLOCK)
    running_max = tl.full([ROWS, BLOCK], float("-inf"), tl.float32)
    running_sum = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, n_cols, BLOCK):
        mask = row_mask & (start + cols[None, :] < n_cols)
        x = tl.load(
            x_ptr + rows[:, None].to(tl.int64) * x_stride + start + cols[None, :],
            mask=mask,
            other=float("-inf"),
            eviction_policy="evict_last",
        ).to(tl.float32)
        new_max = tl.maximum(running_max, x)
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
        running_sum = running_sum * tl.exp(running_max - shift) + tl.exp(x - shift)
        running_max = new_max
    row_max = tl.max(running_max, 1)
    lane = tl.where(running_max == float("-inf"), 0.0, tl.exp(running_max - row_max[:, None]))
    row_sum = tl.sum(running_sum * lane, 1)
    for start in range(0, n_cols, BLOCK):
        mask = row_mask & (start + cols[None, :] < n_cols)
        x = tl.load(
            x_ptr + rows[:, None].to(tl.int64) * x_stride + start + cols[None, :],
            mask=mask,
            other=0.0,
            eviction_policy="evict_first",
        ).to(tl.float32)
        y = tl.exp(x - row_max[:, None]) / row_sum[:, None]
        y_ptrs = y_ptr + rows[:, None].to(tl.int64) * y_stride + start + cols[None, :]
        tl.store(y_ptrs, y.to(y_ptr.dtype.element_ty), mask=mask)


def make_args(problem, device, generator):
    rows, cols = problem["rows"], problem["cols"]
    x = random_normal((rows, cols), problem["dtype"], device, generator, scale=3.0)
    return {
        "x_ptr": x,
        "y_ptr": torch.empty_like(x),
        "n_rows": rows,
        "n_cols": cols,
        "x_stride": cols,
        "y_stride": cols,
    }


def _problem(rows, cols, dtype="fp16"):
    return {"rows": rows, "cols": cols, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=softmax_rows,
    space=ConfigSpace(
        ROWS=[1, 2, 4, 8, 16],
        BLOCK=[64, 128, 256, 512, 1024, 2048, 4096, 8192],
        num_warps=[1, 2, 4, 8, 16],
        num_stages=[1, 2, 3],
        constraint=lambda c: 1 <= c["ROWS"] * c["BLOCK"] // (32 * c["num_warps"]) <= 64,
    ),
    problems=resized(
        (
            _problem(128, 128, "fp32"),
            _problem(512, 1024),
            _problem(4096, 256),
            _problem(65536, 64),
            _problem(4096, 1000, "fp32"),
            _problem(8192, 4096),
            _problem(2048, 16384, "bf16"),
            _problem(1024, 50257, "fp32"),
            _problem(32, 131072, "bf16"),
        ),
        "rows",
        0.5,
    ),
    small=(_problem(5, 200, "fp32"), _problem(3, 70)),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["n_rows"], a["ROWS"]),),
    reference=lambda args: {"y_ptr": torch.softmax(args["x_ptr"].float(), -1)},
    tolerance=lambda problem: (2e-2, 1e-3),
)
