"""fp8 matrix product with scales per 128 x 128 block of weights and 1 x 128 of activations."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized, torch_dtype


@triton.jit
def block_scaled_fp8_matmul(
    x_ptr,
    w_ptr,
    y_ptr,
    x_scale_ptr,
    w_scale_ptr,
    M,
    N,
    K,
    SCALE_BLOCK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    pid = tl.program_id(0)
    grid_m = tl.cdiv(M, BLOCK_M)
    grid_n = tl.cdiv(N, BLOCK_N)
    group = pid // (GROUP_M * grid_n)
    height = min(grid_m - group * GROUP_M, GROUP_M)
    pid_m = group * GROUP_M + (pid % (GROUP_M * grid_n)) % height
    pid_n = (pid % (GROUP_M * grid_n)) // height
    rm = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    rn = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    rk = tl.arange(0, BLOCK_K)
    scale_cols = tl.cdiv(K, SCALE_BLOCK)
    x_ptrs = x_ptr + (rm % M)[:, None] * K + rk[None, :]
    w_ptrs = w_ptr + (rn % N)[None, :] * K + rk[:, None]
    x_scale = x_scale_ptr + (rm % M) * scale_cols
    w_scale = w_scale_ptr + ((rn % N) // SCALE_BLOCK) * scale_cols
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        x = tl.load(x_ptrs, mask=rk[None, :] < K - k, other=0.0)
        w = tl.load(w_ptrs, mask=rk[:, None] < K - k, other=0.0)
        scale_k = k // SCALE_BLOCK
        sx = tl.load(x_scale + scale_k)
        sw = tl.load(w_scale + scale_k)
        acc += tl.dot(x, w) * sx[:, None] * sw[None, :]
        x_ptrs += BLOCK_K
        w_ptrs += BLOCK_K
    mask = (rm[:, None] < M) & (rn[None, :] < N)
    tl.store(y_ptr + rm[:, None] * N + rn[None, :], acc.to(y_ptr.dtype.element_ty), mask=mask)


def make_args(problem, device, generator):
    m, n, k = (problem[name] for name in "MNK")
    cols, rows = -(-k // 128), -(-n // 128)
    return {
        "x_ptr": random_normal((m, k), "fp8e4nv", device, generator),
        "w_ptr": random_normal((n, k), "fp8e4nv", device, generator),
        "y_ptr": torch.empty((m, n), device=device, dtype=torch_dtype(problem["dtype"])),
        "x_scale_ptr": random_normal((m, cols), "fp32", device, generator).abs() / k**0.5,
        "w_scale_ptr": random_normal((rows, cols), "fp32", device, generator).abs(),
        "M": m,
        "N": n,
        "K": k,
        "SCALE_BLOCK": 128,
    }


def reference(args):
    k, n = args["K"], args["N"]
    x_scale = args["x_scale_ptr"].repeat_interleave(128, 1)[:, :k]
    w_scale = args["w_scale_ptr"].repeat_interleave(128, 0)[:n].repeat_interleave(128, 1)[:, :k]
    return {"y_ptr": (args["x_ptr"].float() * x_scale) @ (args["w_ptr"].float() * w_scale).T}


KERNEL = SuiteKernel(
    fn=block_scaled_fp8_matmul,
    space=ConfigSpace(
        BLOCK_M=[16, 32, 64, 128],
        BLOCK_N=[32, 64, 128, 256],
        BLOCK_K=[32, 64, 128],
        GROUP_M=[1, 8, 32],
        num_warps=[2, 4, 8],
        num_stages=[2, 3, 4, 5],
        constraint=lambda c: c["BLOCK_M"] * c["BLOCK_N"] <= 16384,
    ),
    problems=resized(
        (
            {"M": 16, "N": 2048, "K": 7168, "dtype": "bf16"},
            {"M": 64, "N": 7168, "K": 2048, "dtype": "bf16"},
            {"M": 128, "N": 4096, "K": 4096, "dtype": "bf16"},
            {"M": 512, "N": 1536, "K": 7168, "dtype": "bf16"},
            {"M": 1024, "N": 1024, "K": 1024, "dtype": "bf16"},
            {"M": 2048, "N": 4096, "K": 512, "dtype": "fp16"},
            {"M": 4096, "N": 4096, "K": 4096, "dtype": "bf16"},
            {"M": 8192, "N": 2112, "K": 7168, "dtype": "bf16"},
        ),
        "N",
        0.5,
    ),
    small=({"M": 20, "N": 40, "K": 140, "dtype": "fp16"},),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["M"], a["BLOCK_M"]) * triton.cdiv(a["N"], a["BLOCK_N"]),),
    reference=reference,
    min_cuda=89,
)
