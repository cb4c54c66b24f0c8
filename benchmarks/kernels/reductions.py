"""Reductions: sums down the columns, the largest of every row with its place, and a norm."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def column_sum(
    x_ptr,
    out_ptr,
    M,
    N,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLITS: tl.constexpr,
):
    cols = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for m in range(tl.program_id(1) * BLOCK_M, M, BLOCK_M * SPLITS):
        rows = m + tl.arange(0, BLOCK_M)
        mask = (rows < M)[:, None] & (cols < N)[None, :]
        at = rows[:, None].to(tl.int64) * N + cols[None, :]
        acc += tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    total = tl.sum(acc, axis=0)
    if SPLITS == 1:
        tl.store(out_ptr + cols, total, mask=cols < N)
    else:
        tl.atomic_add(out_ptr + cols, total, mask=cols < N)


@triton.jit
def row_argmax(x_ptr, value_ptr, index_ptr, M, N, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    where = tl.zeros([ROWS], tl.int32)
    for n in range(0, N, BLOCK):
        cols = n + tl.arange(0, BLOCK)
        mask = (rows < M)[:, None] & (cols < N)[None, :]
        at = rows[:, None].to(tl.int64) * N + cols[None, :]
        x = tl.load(x_ptr + at, mask=mask, other=float("-inf")).to(tl.float32)
        value, index = tl.max(x, axis=1, return_indices=True)
        where = tl.where(value > best, index + n, where)
        best = tl.maximum(best, value)
    tl.store(value_ptr + rows, best, mask=rows < M)
    tl.store(index_ptr + rows, where, mask=rows < M)


@triton.jit
def squared_norm(x_ptr, out_ptr, n, BLOCK: tl.constexpr, PROGRAMS: tl.constexpr):
    acc = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(tl.program_id(0) * BLOCK, n, PROGRAMS * BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(tl.float32)
        acc += x * x
    tl.atomic_add(out_ptr, tl.sum(acc, axis=0))


def make_column_args(problem, device, generator):
    m, n = problem["M"], problem["N"]
    return {
        "x_ptr": random_normal((m, n), problem["dtype"], device, generator, scale=m**-0.5),
        "out_ptr": torch.zeros((n,), device=device),
        "M": m,
        "N": n,
    }


def make_argmax_args(problem, device, generator):
    m, n = problem["M"], problem["N"]
    return {
        "x_ptr": random_normal((m, n), problem["dtype"], device, generator),
        "value_ptr": torch.empty((m,), device=device),
        "index_ptr": torch.empty((m,), device=device, dtype=torch.int32),
        "M": m,
        "N": n,
    }


def make_norm_args(problem, device, generator):
    n = problem["n"]
    return {
        "x_ptr": random_normal((n,), problem["dtype"], device, generator, scale=n**-0.5),
        "out_ptr": torch.zeros((1,), device=device),
        "n": n,
    }


def _problem(m, n, dtype="fp32"):
    return {"M": m, "N": n, "dtype": dtype}


_PROBLEMS = resized(
    (
        _problem(128, 4096),
        _problem(1024, 1024, "fp16"),
        _problem(4096, 768),
        _problem(64, 65536, "bf16"),
        _problem(16384, 1000),
        _problem(8192, 8192, "bf16"),
        _problem(131072, 64, "fp16"),
        _problem(2048, 32000, "bf16"),
    ),
    "M",
    0.5,
)

KERNELS = (
    SuiteKernel(
        fn=column_sum,
        space=ConfigSpace(
            BLOCK_M=[1, 4, 8, 16, 32, 64],
            BLOCK_N=[16, 32, 64, 128, 256, 512],
            SPLITS=[1, 4, 16, 64],
            num_warps=[1, 2, 4, 8],
            constraint=lambda c: 1 <= c["BLOCK_M"] * c["BLOCK_N"] // (32 * c["num_warps"]) <= 64,
        ),
        problems=_PROBLEMS,
        small=(_problem(50, 40), _problem(30, 20, "fp16")),
        make_args=make_column_args,
        grid=lambda a: (triton.cdiv(a["N"], a["BLOCK_N"]), a["SPLITS"]),
        reference=lambda args: {"out_ptr": args["x_ptr"].float().sum(0)},
        reset=("out_ptr",),
    ),
    SuiteKernel(
        fn=row_argmax,
        space=ConfigSpace(
            ROWS=[1, 2, 4, 8, 16, 32],
            BLOCK=[64, 128, 256, 512, 1024, 2048, 4096],
            num_warps=[1, 2, 4, 8],
            num_stages=[1, 2, 3],
            constraint=lambda c: 1 <= c["ROWS"] * c["BLOCK"] // (32 * c["num_warps"]) <= 64,
        ),
        problems=_PROBLEMS,
        small=(_problem(5, 150),),
        make_args=make_argmax_args,
        grid=lambda a: (triton.cdiv(a["M"], a["ROWS"]),),
        reference=lambda args: {"value_ptr": args["x_ptr"].float().amax(1)},
    ),
    SuiteKernel(
        fn=squared_norm,
        space=ConfigSpace(
            BLOCK=[256, 512, 1024, 2048, 4096, 8192],
            PROGRAMS=[66, 132, 264, 528, 1056],
            num_warps=[1, 2, 4, 8, 16],
            num_stages=[1, 2, 3],
            constraint=lambda c: 1 <= c["BLOCK"] // (32 * c["num_warps"]) <= 64,
        ),
        problems=resized(
            (
                {"n": 100000, "dtype": "fp32"},
                {"n": 1048576, "dtype": "fp16"},
                {"n": 3000001, "dtype": "fp32"},
                {"n": 16777216, "dtype": "bf16"},
                {"n": 38597376, "dtype": "fp32"},
                {"n": 67108864, "dtype": "fp16"},
                {"n": 134217728, "dtype": "bf16"},
                {"n": 124439808, "dtype": "fp32"},
            ),
            "n",
            0.5,
        ),
        small=({"n": 3000, "dtype": "fp32"},),
        make_args=make_norm_args,
        grid=lambda a: (a["PROGRAMS"],),
        reference=lambda args: {"out_ptr": args["x_ptr"].float().square().sum().reshape(1)},
        reset=("out_ptr",),
    ),
)
