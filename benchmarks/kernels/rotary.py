"""Rotary position embedding of queries and keys, half-split layout."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def rotary_embedding(
    q_ptr,
    k_ptr,
    cos_ptr,
    sin_ptr,
    q_out_ptr,
    k_out_ptr,
    tokens,
    seq_len,
    Q_HEADS: tl.constexpr,
    K_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    # q is (tokens, Q_HEADS, 2 * HALF), k is (tokens, K_HEADS, 2 * HALF)
    token = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    half = tl.arange(0, HALF)
    position = token % seq_len
    angle = position[:, None] * HALF + half[None, :]
    live = token < tokens
    cos = tl.load(cos_ptr + angle, mask=live[:, None], other=1.0).to(tl.float32)[:, None, :]
    sin = tl.load(sin_ptr + angle, mask=live[:, None], other=0.0).to(tl.float32)[:, None, :]

    q_at = (token[:, None] * Q_HEADS + head[None, :])[:, :, None] * (2 * HALF) + half[None, None, :]
    q_mask = (live[:, None] & (head < Q_HEADS)[None, :])[:, :, None]
    a = tl.load(q_ptr + q_at, mask=q_mask, other=0.0).to(tl.float32)
    b = tl.load(q_ptr + q_at + HALF, mask=q_mask, other=0.0).to(tl.float32)
    tl.store(q_out_ptr + q_at, (a * cos - b * sin).to(q_out_ptr.dtype.element_ty), mask=q_mask)
    tl.store(
        q_out_ptr + q_at + HALF, (b * cos + a * sin).to(q_out_ptr.dtype.element_ty), mask=q_mask
    )

    if tl.program_id(1) * BLOCK_H < K_HEADS:
        k_at = (token[:, None] * K_HEADS + head[None, :])[:, :, None] * (2 * HALF)
        k_at = k_at + half[None, None, :]
        k_mask = (live[:, None] & (head < K_HEADS)[None, :])[:, :, None]
        a = tl.load(k_ptr + k_at, mask=k_mask, other=0.0).to(tl.float32)
        b = tl.load(k_ptr + k_at + HALF, mask=k_mask, other=0.0).to(tl.float32)
        tl.store(k_out_ptr + k_at, (a * cos - b * sin).to(k_out_ptr.dtype.element_ty), mask=k_mask)
        tl.store(
            k_out_ptr + k_at + HALF, (b * cos + a * sin).to(k_out_ptr.dtype.element_ty), mask=k_mask
        )


def make_args(problem, device, generator):
    b, s, h, kvh, d = (problem[name] for name in ("B", "S", "H", "KVH", "D"))
    frequency = 10000.0 ** (-torch.arange(0, d, 2) / d)
    angle = torch.arange(s)[:, None] * frequency[None, :]
    q = random_normal((b * s, h, d), problem["dtype"], device, generator)
    k = random_normal((b * s, kvh, d), problem["dtype"], device, generator)
    return {
        "q_ptr": q,
        "k_ptr": k,
        "cos_ptr": angle.cos().to(device),
        "sin_ptr": angle.sin().to(device),
        "q_out_ptr": torch.empty_like(q),
        "k_out_ptr": torch.empty_like(k),
        "tokens": b * s,
        "seq_len": s,
        "Q_HEADS": h,
        "K_HEADS": kvh,
        "HALF": d // 2,
    }


def reference(args):
    repeats = args["tokens"] // args["seq_len"]
    cos = args["cos_ptr"].repeat(repeats, 1)[:, None, :]
    sin = args["sin_ptr"].repeat(repeats, 1)[:, None, :]
    out = {}
    for name in "qk":
        a, b = args[f"{name}_ptr"].float().chunk(2, -1)
        out[f"{name}_out_ptr"] = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
    return out


def _problem(b, s, h, kvh, d, dtype="bf16"):
    return {"B": b, "S": s, "H": h, "KVH": kvh, "D": d, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=rotary_embedding,
    space=ConfigSpace(
        BLOCK_T=[1, 2, 4, 8, 16, 32],
        BLOCK_H=[1, 2, 4, 8, 16, 32],
        num_warps=[1, 2, 4, 8],
        constraint=lambda c: c["BLOCK_T"] * c["BLOCK_H"] <= 64 * c["num_warps"],
    ),
    problems=resized(
        (
            _problem(1, 1, 32, 8, 128),
            _problem(64, 1, 32, 8, 128),
            _problem(1, 512, 16, 16, 64, "fp16"),
            _problem(4, 1024, 12, 12, 64, "fp32"),
            _problem(2, 2048, 32, 8, 128),
            _problem(1, 8192, 64, 8, 128),
            _problem(8, 2048, 16, 2, 128, "fp16"),
            _problem(16, 512, 8, 8, 256),
        ),
        "B",
        2,
    ),
    small=(_problem(2, 3, 4, 2, 16, "fp32"), _problem(1, 5, 3, 3, 8, "fp16")),
    make_args=make_args,
    grid=lambda a: (
        triton.cdiv(a["tokens"], a["BLOCK_T"]),
        triton.cdiv(max(a["Q_HEADS"], a["K_HEADS"]), a["BLOCK_H"]),
    ),
    reference=reference,
)
