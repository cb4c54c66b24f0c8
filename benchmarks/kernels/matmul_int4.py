"""Weight-only int4 matrix product: two weights to a byte, a scale and a zero point per group."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_ints, random_normal, resized


@triton.jit
def w4a16_matmul(
    act,
    packed,
    scales,
    zeros,
    out,
    M,
    N,
    K,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # packed[(k // 2), n] holds weight k in its low half where k is even, else in its high half
    offs_m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_m = offs_m[:, None] < M
    mask_n = offs_n[None, :] < N
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k0 in range(0, K, BLOCK_K):
        offs_k = k0 + tl.arange(0, BLOCK_K)
        x = tl.load(
            act + offs_m[:, None] * K + offs_k[None, :], mask_m & (offs_k[None, :] < K), 0.0
        )
        inside = (offs_k[:, None] < K) & mask_n
        byte = tl.load(packed + (offs_k[:, None] // 2) * N + offs_n[None, :], inside, 0)
        nibble = (byte >> ((offs_k[:, None] % 2) * 4).to(tl.uint8)) & 0xF
        group = k0 // GROUP
        scale = tl.load(scales + group * N + offs_n, offs_n < N, 0.0)
        zero = tl.load(zeros + group * N + offs_n, offs_n < N, 0.0)
        w = (nibble.to(tl.float32) - zero[None, :]) * scale[None, :]
        acc = tl.dot(x, tl.where(inside, w, 0.0).to(x.dtype), acc)
    tl.store(
        out + offs_m[:, None] * N + offs_n[None, :], acc.to(out.dtype.element_ty), mask_m & mask_n
    )


def make_args(problem, device, generator):
    m, n, k, group = (problem[name] for name in ("M", "N", "K", "group"))
    x = random_normal((m, k), problem["dtype"], device, generator)
    scales = random_normal((k // group, n), "fp32", device, generator).abs() / (6 * k**0.5)
    return {
        "act": x,
        "packed": random_ints(0, 256, (k // 2, n), "u8", device, generator),
        "scales": scales,
        "zeros": random_ints(6, 10, (k // group, n), "fp32", device, generator),
        "out": torch.empty((m, n), device=device, dtype=x.dtype),
        "M": m,
        "N": n,
        "K": k,
        "GROUP": group,
    }


def reference(args):
    packed, group = args["packed"], args["GROUP"]
    nibbles = torch.stack([packed & 0xF, packed >> 4], dim=1).reshape(args["K"], args["N"]).float()
    zeros = args["zeros"].repeat_interleave(group, 0)
    scales = args["scales"].repeat_interleave(group, 0)
    return {"out": args["act"].float() @ ((nibbles - zeros) * scales)}


KERNEL = SuiteKernel(
    fn=w4a16_matmul,
    space=ConfigSpace(
        BLOCK_M=[16, 32, 64, 128],
        BLOCK_N=[16, 32, 64, 128, 256],
        BLOCK_K=[16, 32, 64, 128],
        num_warps=[1, 2, 4, 8],
        num_stages=[1, 2, 3, 4],
        constraint=lambda c: 8 <= c["BLOCK_M"] * c["BLOCK_N"] // (32 * c["num_warps"]) <= 256,
    ),
    problems=resized(
        (
            {"M": 1, "N": 4096, "K": 4096, "group": 128, "dtype": "fp16"},
            {"M": 1, "N": 11008, "K": 4096, "group": 128, "dtype": "fp16"},
            {"M": 16, "N": 4096, "K": 11008, "group": 128, "dtype": "fp16"},
            {"M": 32, "N": 12288, "K": 4096, "group": 128, "dtype": "bf16"},
            {"M": 64, "N": 1024, "K": 8192, "group": 128, "dtype": "fp16"},
            {"M": 128, "N": 4096, "K": 4096, "group": 128, "dtype": "bf16"},
            {"M": 512, "N": 2048, "K": 2048, "group": 128, "dtype": "fp16"},
            {"M": 2048, "N": 4096, "K": 4096, "group": 128, "dtype": "fp16"},
        ),
        "N",
        0.5,
    ),
    small=({"M": 5, "N": 36, "K": 256, "group": 128, "dtype": "fp16"},),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["N"], a["BLOCK_N"]), triton.cdiv(a["M"], a["BLOCK_M"])),
    reference=reference,
)
