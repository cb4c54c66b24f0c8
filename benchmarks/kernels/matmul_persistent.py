"""Persistent matrix product: a fixed number of programs walks over all tiles."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def tile_position(tile, tiles_m, tiles_n, GROUP_M: tl.constexpr):
    width = GROUP_M * tiles_n
    group = tile // width
    height = min(tiles_m - group * GROUP_M, GROUP_M)
    return group * GROUP_M + (tile % width) % height, (tile % width) // height


@triton.jit
def persistent_matmul(
    x_ptr,
    w_ptr,
    bias_ptr,
    y_ptr,
    M,
    N,
    K,
    NUM_PROGRAMS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    FLATTEN: tl.constexpr,
):
    # y = x @ w.T + bias with w of shape (N, K), as in a linear layer
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    steps = tl.cdiv(K, BLOCK_K)
    offs_k = tl.arange(0, BLOCK_K)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, NUM_PROGRAMS, flatten=FLATTEN):
        pid_m, pid_n = tile_position(tile, tiles_m, tiles_n, GROUP_M)
        offs_m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
        offs_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
        x_rows = tl.where(offs_m < M, offs_m, 0)
        w_rows = tl.where(offs_n < N, offs_n, 0)
        x_rows = tl.max_contiguous(tl.multiple_of(x_rows, BLOCK_M), BLOCK_M)
        w_rows = tl.max_contiguous(tl.multiple_of(w_rows, BLOCK_N), BLOCK_N)
        acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for step in range(steps):
            k = step * BLOCK_K + offs_k
            x = tl.load(x_ptr + x_rows[:, None] * K + k[None, :], mask=k[None, :] < K, other=0.0)
            w = tl.load(w_ptr + w_rows[:, None] * K + k[None, :], mask=k[None, :] < K, other=0.0)
            acc = tl.dot(x, w.T, acc)
        bias = tl.load(bias_ptr + offs_n, mask=offs_n < N, other=0.0).to(tl.float32)
        y = (acc + bias[None, :]).to(y_ptr.dtype.element_ty)
        keep = (offs_m[:, None] < M) & (offs_n[None, :] < N)
        tl.store(y_ptr + offs_m[:, None] * N + offs_n[None, :], y, mask=keep)


def make_args(problem, device, generator):
    m, n, k, dtype = (problem[name] for name in ("M", "N", "K", "dtype"))
    x = random_normal((m, k), dtype, device, generator)
    return {
        "x_ptr": x,
        "w_ptr": random_normal((n, k), dtype, device, generator, scale=k**-0.5),
        "bias_ptr": random_normal((n,), dtype, device, generator),
        "y_ptr": torch.empty((m, n), device=device, dtype=x.dtype),
        "M": m,
        "N": n,
        "K": k,
    }


def reference(args):
    product = args["x_ptr"].float() @ args["w_ptr"].float().T
    return {"y_ptr": product + args["bias_ptr"].float()}


KERNEL = SuiteKernel(
    fn=persistent_matmul,
    space=ConfigSpace(
        BLOCK_M=[32, 64, 128, 256],
        BLOCK_N=[32, 64, 128, 256],
        BLOCK_K=[32, 64, 128],
        GROUP_M=[4, 8],
        NUM_PROGRAMS=[66, 132, 264],
        FLATTEN=[False, True],
        num_warps=[4, 8],
        num_stages=[2, 3, 4],
        constraint=lambda c: c["BLOCK_M"] * c["BLOCK_N"] <= 32768,
    ),
    problems=resized(
        (
            {"M": 256, "N": 3072, "K": 768, "dtype": "fp16"},
            {"M": 1024, "N": 4096, "K": 1024, "dtype": "fp16"},
            {"M": 2048, "N": 2304, "K": 768, "dtype": "bf16"},
            {"M": 2048, "N": 8192, "K": 2048, "dtype": "fp16"},
            {"M": 4096, "N": 4096, "K": 4096, "dtype": "fp16"},
            {"M": 4096, "N": 14336, "K": 4096, "dtype": "bf16"},
            {"M": 8192, "N": 8192, "K": 2048, "dtype": "fp16"},
            {"M": 16384, "N": 1024, "K": 1024, "dtype": "bf16"},
            {"M": 5000, "N": 3000, "K": 1000, "dtype": "fp16"},
        ),
        "M",
        0.5,
    ),
    small=({"M": 40, "N": 70, "K": 50, "dtype": "fp16"},),
    make_args=make_args,
    grid=lambda a: (a["NUM_PROGRAMS"],),
    reference=reference,
)
