"""Batched matrix product with arbitrary strides, one batch entry per third grid axis."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def bmm_kernel(
    a,
    b,
    o,
    M,
    N,
    K,
    sab,
    sam,
    sak,
    sbb,
    sbk,
    sbn,
    sob,
    som,
    son,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
):
    batch = tl.program_id(2).to(tl.int64)
    m = tl.program_id(0) * TILE_M + tl.arange(0, TILE_M)
    n = tl.program_id(1) * TILE_N + tl.arange(0, TILE_N)
    k = tl.arange(0, TILE_K)
    a_tile = a + batch * sab + (m[:, None] * sam + k[None, :] * sak)
    b_tile = b + batch * sbb + (k[:, None] * sbk + n[None, :] * sbn)
    acc = tl.zeros((TILE_M, TILE_N), tl.float32)
    for start in range(0, K, TILE_K):
        in_k = k < K - start
        x = tl.load(a_tile, mask=(m < M)[:, None] & in_k[None, :], other=0.0)
        y = tl.load(b_tile, mask=in_k[:, None] & (n < N)[None, :], other=0.0)
        acc += tl.dot(x, y)
        a_tile += TILE_K * sak
        b_tile += TILE_K * sbk
    o_tile = o + batch * sob + (m[:, None] * som + n[None, :] * son)
    tl.store(o_tile, acc.to(o.dtype.element_ty), mask=(m < M)[:, None] & (n < N)[None, :])


def make_args(problem, device, generator):
    batch, m, n, k = (problem[name] for name in "BMNK")
    a = random_normal((batch, m, k), problem["dtype"], device, generator)
    b = random_normal((batch, k, n), problem["dtype"], device, generator, scale=k**-0.5)
    o = torch.empty((batch, m, n), device=device, dtype=a.dtype)
    args = {"a": a, "b": b, "o": o, "M": m, "N": n, "K": k}
    for names, tensor in ((("sab", "sam", "sak"), a), (("sbb", "sbk", "sbn"), b)):
        args.update(zip(names, tensor.stride(), strict=True))
    return args | dict(zip(("sob", "som", "son"), o.stride(), strict=True))


KERNEL = SuiteKernel(
    fn=bmm_kernel,
    space=ConfigSpace(
        TILE_M=[16, 32, 64, 128],
        TILE_N=[16, 32, 64, 128, 256],
        TILE_K=[16, 32, 64, 128],
        num_warps=[1, 2, 4, 8],
        num_stages=[1, 2, 3, 4],
        constraint=lambda c: 4 <= c["TILE_M"] * c["TILE_N"] // (c["num_warps"] * 32) <= 256,
    ),
    problems=resized(
        (
            {"B": 16, "M": 128, "N": 128, "K": 64, "dtype": "fp16"},
            {"B": 64, "M": 197, "N": 197, "K": 64, "dtype": "fp16"},
            {"B": 96, "M": 512, "N": 64, "K": 512, "dtype": "fp16"},
            {"B": 192, "M": 512, "N": 512, "K": 64, "dtype": "bf16"},
            {"B": 32, "M": 1024, "N": 1024, "K": 128, "dtype": "fp16"},
            {"B": 512, "M": 32, "N": 256, "K": 32, "dtype": "fp16"},
            {"B": 8, "M": 2048, "N": 2048, "K": 1024, "dtype": "fp16"},
            {"B": 1024, "M": 64, "N": 64, "K": 64, "dtype": "bf16"},
            {"B": 24, "M": 384, "N": 384, "K": 384, "dtype": "fp32"},
        ),
        "B",
        0.5,
    ),
    small=({"B": 2, "M": 20, "N": 36, "K": 40, "dtype": "fp16"},),
    make_args=make_args,
    grid=lambda a: (
        triton.cdiv(a["M"], a["TILE_M"]),
        triton.cdiv(a["N"], a["TILE_N"]),
        a["a"].shape[0],
    ),
    reference=lambda args: {"o": args["a"].float() @ args["b"].float()},
)
