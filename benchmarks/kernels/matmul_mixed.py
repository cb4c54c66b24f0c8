"""Matrix product whose weights may have a narrower type than the activations, converted in the loop."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_ints, random_normal, resized


@triton.jit
def mixed_matmul(
    x_ptr,
    w_ptr,
    out_ptr,
    M,
    N,
    K,
    stride_wk,
    stride_wn,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    pid = tl.program_id(0)
    in_group = GROUP_M * tiles_n
    first = pid // in_group * GROUP_M
    height = min(tiles_m - first, GROUP_M)
    pid_m, pid_n = first + pid % height, pid % in_group // height

    m = (pid_m * BLOCK_M + tl.arange(0, BLOCK_M)) % M
    n = (pid_n * BLOCK_N + tl.arange(0, BLOCK_N)) % N
    m = tl.max_contiguous(tl.multiple_of(m, BLOCK_M), BLOCK_M)
    n = tl.max_contiguous(tl.multiple_of(n, BLOCK_N), BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    x_at = x_ptr + m[:, None] * K + k[None, :]
    w_at = w_ptr + k[:, None] * stride_wk + n[None, :] * stride_wn
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for left in range(K, 0, -BLOCK_K):
        if EVEN_K:
            x, w = tl.load(x_at), tl.load(w_at)
        else:
            x = tl.load(x_at, mask=k[None, :] < left, other=0.0)
            w = tl.load(w_at, mask=k[:, None] < left, other=0)
        acc = tl.dot(x, w.to(x.dtype), acc)
        x_at += BLOCK_K
        w_at += BLOCK_K * stride_wk

    m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    keep = (m < M)[:, None] & (n < N)[None, :]
    tl.store(out_ptr + m[:, None] * N + n[None, :], acc.to(out_ptr.dtype.element_ty), mask=keep)


def make_args(problem, device, generator):
    m, n, k = (problem[name] for name in "MNK")
    x = random_normal((m, k), problem["dtype"], device, generator)
    shape = (n, k) if problem.get("transposed") else (k, n)
    if problem["weights"] == "i8":
        w = random_ints(-8, 8, shape, "i8", device, generator)
    else:
        w = random_normal(shape, problem["weights"], device, generator)
    w = w.T if problem.get("transposed") else w
    return {
        "x_ptr": x / k**0.5,
        "w_ptr": w,
        "out_ptr": torch.empty((m, n), device=device, dtype=x.dtype),
        "M": m,
        "N": n,
        "K": k,
        "stride_wk": w.stride(0),
        "stride_wn": w.stride(1),
        "EVEN_K": k % 256 == 0,
    }


KERNEL = SuiteKernel(
    fn=mixed_matmul,
    space=ConfigSpace(
        BLOCK_M=[16, 32, 64, 128],
        BLOCK_N=[16, 32, 64, 128, 256],
        BLOCK_K=[16, 32, 64, 128, 256],
        GROUP_M=[1, 8],
        num_warps=[1, 2, 4, 8],
        num_stages=[1, 2, 3, 4, 5],
        constraint=lambda c: (
            8 <= c["BLOCK_M"] * c["BLOCK_N"] // (32 * c["num_warps"]) <= 256
            and c["BLOCK_K"] * (c["BLOCK_M"] + c["BLOCK_N"]) <= 49152
        ),
    ),
    problems=resized(
        (
            {"M": 1, "N": 4096, "K": 4096, "dtype": "bf16", "weights": "i8", "transposed": True},
            {"M": 16, "N": 4096, "K": 4096, "dtype": "fp16", "weights": "i8", "transposed": True},
            {"M": 64, "N": 11008, "K": 4096, "dtype": "bf16", "weights": "i8"},
            {"M": 128, "N": 4096, "K": 11008, "dtype": "fp16", "weights": "i8", "transposed": True},
            {"M": 512, "N": 2048, "K": 2048, "dtype": "bf16", "weights": "i8"},
            {"M": 2048, "N": 4096, "K": 4096, "dtype": "fp16", "weights": "i8", "transposed": True},
            {"M": 32, "N": 4096, "K": 4096, "dtype": "fp16", "weights": "fp16", "transposed": True},
            {"M": 1024, "N": 3072, "K": 768, "dtype": "bf16", "weights": "bf16"},
            {"M": 4096, "N": 4096, "K": 4096, "dtype": "fp16", "weights": "fp16"},
            {"M": 500, "N": 1000, "K": 700, "dtype": "fp16", "weights": "fp16"},
        ),
        "N",
        0.5,
    ),
    small=(
        {"M": 17, "N": 40, "K": 72, "dtype": "fp16", "weights": "i8"},
        {"M": 20, "N": 48, "K": 256, "dtype": "fp16", "weights": "fp16", "transposed": True},
    ),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["M"], a["BLOCK_M"]) * triton.cdiv(a["N"], a["BLOCK_N"]),),
    reference=lambda a: {"out_ptr": a["x_ptr"].float() @ a["w_ptr"].float()},
)
