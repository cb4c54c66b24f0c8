"""Grouped matrix product: many products of different heights in one launch."""

import itertools

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def grouped_gemm(
    x_ptr,
    w_ptr,
    y_ptr,
    group_ends_ptr,
    num_groups,
    N,
    K,
    NUM_PROGRAMS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # rows of x up to group_ends[g] belong to group g, whose weights are w[g] of shape (K, N)
    tile = tl.program_id(0)
    tiles_before = 0
    row_begin = 0
    tiles_n = tl.cdiv(N, BLOCK_N)
    for g in range(num_groups):
        row_end = tl.load(group_ends_ptr + g)
        tiles = tl.cdiv(row_end - row_begin, BLOCK_M) * tiles_n
        while tile >= tiles_before and tile < tiles_before + tiles:
            local = tile - tiles_before
            rows = row_begin + (local // tiles_n) * BLOCK_M + tl.arange(0, BLOCK_M)
            cols = (local % tiles_n) * BLOCK_N + tl.arange(0, BLOCK_N)
            ks = tl.arange(0, BLOCK_K)
            x = x_ptr + rows[:, None].to(tl.int64) * K + ks[None, :]
            w = w_ptr + tl.cast(g, tl.int64) * K * N + ks[:, None] * N + cols[None, :]
            acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
            for k in range(0, K, BLOCK_K):
                in_x = (rows[:, None] < row_end) & (ks[None, :] + k < K)
                in_w = (ks[:, None] + k < K) & (cols[None, :] < N)
                acc += tl.dot(tl.load(x, in_x, other=0.0), tl.load(w, in_w, other=0.0))
                x += BLOCK_K
                w += BLOCK_K * N
            inside = (rows[:, None] < row_end) & (cols[None, :] < N)
            tl.store(
                y_ptr + rows[:, None].to(tl.int64) * N + cols[None, :],
                acc.to(y_ptr.dtype.element_ty),
                inside,
            )
            tile += NUM_PROGRAMS
        tiles_before += tiles
        row_begin = row_end


def group_sizes(problem):
    """Heights that differ by up to a factor of four and sum to the problem's rows."""
    groups = problem["groups"]
    weights = [1.0 + 3.0 * ((g * 0.6180339887) % 1.0) for g in range(groups)]
    sizes = [int(problem["rows"] * w / sum(weights)) for w in weights]
    sizes[-1] += problem["rows"] - sum(sizes)
    return sizes


def make_args(problem, device, generator):
    groups, rows, n, k = (problem[name] for name in ("groups", "rows", "N", "K"))
    x = random_normal((rows, k), problem["dtype"], device, generator)
    ends = torch.tensor(group_sizes(problem), dtype=torch.int32).cumsum(0).to(torch.int32)
    return {
        "x_ptr": x,
        "w_ptr": random_normal((groups, k, n), problem["dtype"], device, generator, scale=k**-0.5),
        "y_ptr": torch.empty((rows, n), device=device, dtype=x.dtype),
        "group_ends_ptr": ends.to(device),
        "num_groups": groups,
        "N": n,
        "K": k,
    }


def reference(args):
    ends = [0, *args["group_ends_ptr"].tolist()]
    parts = [
        args["x_ptr"][begin:end].float() @ args["w_ptr"][g].float()
        for g, (begin, end) in enumerate(itertools.pairwise(ends))
    ]
    return {"y_ptr": torch.cat(parts)}


KERNEL = SuiteKernel(
    fn=grouped_gemm,
    space=ConfigSpace(
        BLOCK_M=[16, 32, 64, 128],
        BLOCK_N=[32, 64, 128, 256],
        BLOCK_K=[32, 64, 128],
        NUM_PROGRAMS=[66, 132, 264, 528],
        num_warps=[2, 4, 8],
        num_stages=[1, 2, 3, 4],
        constraint=lambda c: c["BLOCK_M"] * c["BLOCK_N"] <= 16384,
    ),
    problems=resized(
        (
            {"groups": 4, "rows": 1024, "N": 1024, "K": 1024, "dtype": "fp16"},
            {"groups": 8, "rows": 512, "N": 4096, "K": 2048, "dtype": "fp16"},
            {"groups": 8, "rows": 4096, "N": 4096, "K": 1024, "dtype": "bf16"},
            {"groups": 16, "rows": 8192, "N": 1408, "K": 2048, "dtype": "fp16"},
            {"groups": 32, "rows": 2048, "N": 2048, "K": 768, "dtype": "fp16"},
            {"groups": 64, "rows": 4096, "N": 1408, "K": 2048, "dtype": "bf16"},
            {"groups": 64, "rows": 16384, "N": 768, "K": 2048, "dtype": "fp16"},
            {"groups": 128, "rows": 8192, "N": 512, "K": 512, "dtype": "fp16"},
        ),
        "rows",
        2,
    ),
    small=({"groups": 3, "rows": 50, "N": 40, "K": 48, "dtype": "fp16"},),
    make_args=make_args,
    grid=lambda a: (a["NUM_PROGRAMS"],),
    reference=reference,
)
