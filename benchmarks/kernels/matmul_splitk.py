"""Split-K matrix product for few rows: partial sums meet by atomic addition."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def splitk_matmul(
    A,
    B,
    C,
    M,
    N,
    K,
    lda,
    ldb,
    ldc,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    SPLIT_K: tl.constexpr,
):
    pid = tl.program_id(0)
    pid_z = tl.program_id(1)
    grid_n = tl.cdiv(N, BN)
    rm = (pid // grid_n) * BM + tl.arange(0, BM)
    rn = (pid % grid_n) * BN + tl.arange(0, BN)
    rk = pid_z * BK + tl.arange(0, BK)
    mask_m = rm < M
    mask_n = rn < N
    pa = A + rm[:, None] * lda + rk[None, :]
    pb = B + rk[:, None] * ldb + rn[None, :]
    acc = tl.zeros([BM, BN], dtype=tl.float32)
    for k in range(pid_z * BK, K, BK * SPLIT_K):
        mask_k = k + tl.arange(0, BK) < K
        a = tl.load(pa, mask=mask_m[:, None] & mask_k[None, :], other=0.0)
        b = tl.load(pb, mask=mask_k[:, None] & mask_n[None, :], other=0.0)
        acc += tl.dot(a, b)
        pa += BK * SPLIT_K
        pb += BK * SPLIT_K * ldb
    pc = C + rm[:, None] * ldc + rn[None, :]
    mask_c = mask_m[:, None] & mask_n[None, :]
    if SPLIT_K == 1:
        tl.store(pc, acc, mask=mask_c)
    else:
        tl.atomic_add(pc, acc, mask=mask_c, sem="relaxed")


def make_args(problem, device, generator):
    m, n, k, dtype = (problem[name] for name in ("M", "N", "K", "dtype"))
    return {
        "A": random_normal((m, k), dtype, device, generator),
        "B": random_normal((k, n), dtype, device, generator, scale=k**-0.5),
        "C": torch.zeros((m, n), device=device, dtype=torch.float32),
        "M": m,
        "N": n,
        "K": k,
        "lda": k,
        "ldb": n,
        "ldc": n,
    }


KERNEL = SuiteKernel(
    fn=splitk_matmul,
    space=ConfigSpace(
        BM=[16, 32, 64, 128],
        BN=[32, 64, 128, 256],
        BK=[32, 64, 128, 256],
        SPLIT_K=[1, 2, 4, 8, 16],
        num_warps=[2, 4, 8],
        num_stages=[1, 2, 3, 4, 5],
        constraint=lambda c: c["BM"] * c["BN"] <= 16384 and c["BK"] * (c["BM"] + c["BN"]) <= 65536,
    ),
    problems=resized(
        (
            {"M": 1, "N": 4096, "K": 4096, "dtype": "fp16"},
            {"M": 8, "N": 1024, "K": 8192, "dtype": "fp16"},
            {"M": 16, "N": 4096, "K": 11008, "dtype": "fp16"},
            {"M": 16, "N": 12288, "K": 4096, "dtype": "bf16"},
            {"M": 32, "N": 5120, "K": 13824, "dtype": "fp16"},
            {"M": 64, "N": 512, "K": 32768, "dtype": "fp16"},
            {"M": 64, "N": 8192, "K": 8192, "dtype": "bf16"},
            {"M": 128, "N": 128, "K": 65536, "dtype": "fp16"},
            {"M": 256, "N": 1024, "K": 16384, "dtype": "bf16"},
        ),
        "K",
        0.5,
    ),
    small=({"M": 5, "N": 40, "K": 200, "dtype": "fp16"},),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["M"], a["BM"]) * triton.cdiv(a["N"], a["BN"]), a["SPLIT_K"]),
    reference=lambda args: {"C": args["A"].float() @ args["B"].float()},
    reset=("C",),
)
