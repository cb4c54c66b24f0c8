"""int8 matrix product with a scale per row and per column (W8A8)."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import (
    SuiteKernel,
    random_ints,
    random_normal,
    resized,
    torch_dtype,
)


@triton.jit
def scaled_int8_matmul(
    a_ptr,
    b_ptr,
    out_ptr,
    row_scale_ptr,
    col_scale_ptr,
    M,
    N,
    K,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SWIZZLE: tl.constexpr,
):
    pid_m, pid_n = tl.program_id(0), tl.program_id(1)
    if SWIZZLE > 1:
        pid_m, pid_n = tl.swizzle2d(pid_m, pid_n, tl.num_programs(0), tl.num_programs(1), SWIZZLE)
    m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    a_base = a_ptr + (m % M)[:, None] * K
    b_base = b_ptr + (n % N)[None, :] * K  # b is stored as (N, K)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    for start in range(0, K, BLOCK_K):
        a = tl.load(a_base + (start + k)[None, :], mask=(start + k)[None, :] < K, other=0)
        b = tl.load(b_base + (start + k)[:, None], mask=(start + k)[:, None] < K, other=0)
        acc += tl.dot(a, b, out_dtype=tl.int32)
    row_scale = tl.load(row_scale_ptr + m, mask=m < M, other=0.0)
    col_scale = tl.load(col_scale_ptr + n, mask=n < N, other=0.0)
    out = acc.to(tl.float32) * row_scale[:, None] * col_scale[None, :]
    keep = (m < M)[:, None] & (n < N)[None, :]
    tl.store(out_ptr + m[:, None] * N + n[None, :], out.to(out_ptr.dtype.element_ty), mask=keep)


def make_args(problem, device, generator):
    m, n, k = (problem[name] for name in "MNK")
    return {
        "a_ptr": random_ints(-127, 128, (m, k), "i8", device, generator),
        "b_ptr": random_ints(-127, 128, (n, k), "i8", device, generator),
        "out_ptr": torch.empty((m, n), device=device, dtype=torch_dtype(problem["dtype"])),
        "row_scale_ptr": random_normal((m,), "fp32", device, generator).abs() / 5000,
        "col_scale_ptr": random_normal((n,), "fp32", device, generator).abs() / k**0.5,
        "M": m,
        "N": n,
        "K": k,
    }


def reference(args):
    product = (args["a_ptr"].double() @ args["b_ptr"].double().T).float()
    return {"out_ptr": product * args["row_scale_ptr"][:, None] * args["col_scale_ptr"][None, :]}


KERNEL = SuiteKernel(
    fn=scaled_int8_matmul,
    space=ConfigSpace(
        BLOCK_M=[16, 32, 64, 128, 256],
        BLOCK_N=[32, 64, 128, 256],
        BLOCK_K=[32, 64, 128, 256],
        SWIZZLE=[1, 4, 8],
        num_warps=[2, 4, 8],
        num_stages=[1, 2, 3, 4],
        constraint=lambda c: c["BLOCK_M"] * c["BLOCK_N"] <= 32768,
    ),
    problems=resized(
        (
            {"M": 16, "N": 4096, "K": 4096, "dtype": "fp16"},
            {"M": 64, "N": 11008, "K": 4096, "dtype": "bf16"},
            {"M": 256, "N": 1024, "K": 1024, "dtype": "fp16"},
            {"M": 512, "N": 4096, "K": 11008, "dtype": "bf16"},
            {"M": 1024, "N": 1024, "K": 4096, "dtype": "fp16"},
            {"M": 2048, "N": 2048, "K": 2048, "dtype": "fp16"},
            {"M": 4096, "N": 768, "K": 3072, "dtype": "fp16"},
            {"M": 4096, "N": 4096, "K": 4096, "dtype": "bf16"},
        ),
        "N",
        0.5,
    ),
    small=({"M": 20, "N": 40, "K": 70, "dtype": "fp16"},),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["M"], a["BLOCK_M"]), triton.cdiv(a["N"], a["BLOCK_N"])),
    reference=reference,
)
