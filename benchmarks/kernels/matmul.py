"""Dense matrix product with grouped program order and a fused activation."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def leaky_relu(x):
    return tl.where(x >= 0, x, 0.01 * x)


@triton.jit
def matmul_kernel(
    a_ptr,
    b_ptr,
    c_ptr,
    M,
    N,
    K,
    stride_am,
    stride_ak,
    stride_bk,
    stride_bn,
    stride_cm,
    stride_cn,
    ACTIVATION: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr,
    BLOCK_SIZE_N: tl.constexpr,
    BLOCK_SIZE_K: tl.constexpr,
    GROUP_SIZE_M: tl.constexpr,
):
    pid = tl.program_id(axis=0)
    tiles_m = tl.cdiv(M, BLOCK_SIZE_M)
    tiles_n = tl.cdiv(N, BLOCK_SIZE_N)
    tiles_in_group = GROUP_SIZE_M * tiles_n
    first_m = (pid // tiles_in_group) * GROUP_SIZE_M
    rows_in_group = min(tiles_m - first_m, GROUP_SIZE_M)
    pid_m = first_m + (pid % tiles_in_group) % rows_in_group
    pid_n = (pid % tiles_in_group) // rows_in_group

    rows = pid_m * BLOCK_SIZE_M + tl.arange(0, BLOCK_SIZE_M)
    cols = pid_n * BLOCK_SIZE_N + tl.arange(0, BLOCK_SIZE_N)
    ks = tl.arange(0, BLOCK_SIZE_K)
    a_ptrs = a_ptr + (rows % M)[:, None] * stride_am + ks[None, :] * stride_ak
    b_ptrs = b_ptr + ks[:, None] * stride_bk + (cols % N)[None, :] * stride_bn

    acc = tl.zeros((BLOCK_SIZE_M, BLOCK_SIZE_N), dtype=tl.float32)
    for k in range(0, tl.cdiv(K, BLOCK_SIZE_K)):
        left = K - k * BLOCK_SIZE_K
        a = tl.load(a_ptrs, mask=ks[None, :] < left, other=0.0)
        b = tl.load(b_ptrs, mask=ks[:, None] < left, other=0.0)
        acc = tl.dot(a, b, acc)
        a_ptrs += BLOCK_SIZE_K * stride_ak
        b_ptrs += BLOCK_SIZE_K * stride_bk
    if ACTIVATION == "leaky_relu":
        acc = leaky_relu(acc)

    c_ptrs = c_ptr + stride_cm * rows[:, None] + stride_cn * cols[None, :]
    inside = (rows[:, None] < M) & (cols[None, :] < N)
    tl.store(c_ptrs, acc.to(c_ptr.dtype.element_ty), mask=inside)


def make_args(problem, device, generator):
    m, n, k, dtype = (problem[name] for name in ("M", "N", "K", "dtype"))
    a = random_normal((m, k), dtype, device, generator)
    if problem.get("b_transposed"):
        b = random_normal((n, k), dtype, device, generator, scale=k**-0.5).T
    else:
        b = random_normal((k, n), dtype, device, generator, scale=k**-0.5)
    c = torch.empty((m, n), device=device, dtype=a.dtype)
    return {
        "a_ptr": a,
        "b_ptr": b,
        "c_ptr": c,
        "M": m,
        "N": n,
        "K": k,
        "stride_am": a.stride(0),
        "stride_ak": a.stride(1),
        "stride_bk": b.stride(0),
        "stride_bn": b.stride(1),
        "stride_cm": c.stride(0),
        "stride_cn": c.stride(1),
        "ACTIVATION": problem.get("activation", ""),
    }


def reference(args):
    product = args["a_ptr"].float() @ args["b_ptr"].float()
    if args["ACTIVATION"] == "leaky_relu":
        product = torch.nn.functional.leaky_relu(product, 0.01)
    return {"c_ptr": product}


KERNEL = SuiteKernel(
    fn=matmul_kernel,
    space=ConfigSpace(
        BLOCK_SIZE_M=[16, 32, 64, 128, 256],
        BLOCK_SIZE_N=[16, 32, 64, 128, 256],
        BLOCK_SIZE_K=[16, 32, 64, 128],
        GROUP_SIZE_M=[1, 4, 8],
        num_warps=[2, 4, 8],
        num_stages=[1, 2, 3, 4, 5],
        constraint=lambda c: (
            c["BLOCK_SIZE_M"] * c["BLOCK_SIZE_N"] <= 32768 * min(c["num_warps"], 4) // 4
        ),
    ),
    problems=resized(
        (
            {"M": 16, "N": 4096, "K": 4096, "dtype": "fp16", "b_transposed": True},
            {"M": 128, "N": 2048, "K": 2048, "dtype": "fp16"},
            {"M": 512, "N": 512, "K": 512, "dtype": "fp16"},
            {"M": 1024, "N": 1024, "K": 1024, "dtype": "fp16"},
            {"M": 1536, "N": 768, "K": 3072, "dtype": "fp16", "activation": "leaky_relu"},
            {"M": 2048, "N": 2048, "K": 2048, "dtype": "fp16"},
            {"M": 4096, "N": 4096, "K": 1024, "dtype": "fp16"},
            {"M": 4096, "N": 4096, "K": 4096, "dtype": "fp16"},
            {"M": 8192, "N": 1280, "K": 5120, "dtype": "bf16", "b_transposed": True},
            {"M": 999, "N": 1001, "K": 1003, "dtype": "fp16"},
            {"M": 1024, "N": 1024, "K": 1024, "dtype": "fp32"},
            {"M": 3072, "N": 3072, "K": 768, "dtype": "fp32"},
        ),
        "K",
        0.5,
    ),
    small=(
        {"M": 40, "N": 24, "K": 36, "dtype": "fp16", "activation": "leaky_relu"},
        {"M": 17, "N": 33, "K": 16, "dtype": "fp32", "b_transposed": True},
    ),
    make_args=make_args,
    grid=lambda a: (
        triton.cdiv(a["M"], a["BLOCK_SIZE_M"]) * triton.cdiv(a["N"], a["BLOCK_SIZE_N"]),
    ),
    reference=reference,
)
