"""Attention forward with online softmax, causal or not, grouped key/value heads."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def attention_step(
    acc,
    m_i,
    l_i,
    q,
    k_ptrs,
    v_ptrs,
    lo,
    hi,
    offs_m,
    offs_n,
    seq_len,
    scale,
    stride,
    CAUSAL: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    for start in range(lo, hi, BLOCK_N):
        cols = start + offs_n
        k = tl.load(k_ptrs + cols[None, :] * stride, mask=cols[None, :] < seq_len, other=0.0)
        s = tl.dot(q, k) * scale
        keep = cols[None, :] < seq_len
        if CAUSAL:
            keep = keep & (offs_m[:, None] >= cols[None, :])
        s = tl.where(keep, s, -1.0e6)
        m_new = tl.maximum(m_i, tl.max(s, 1))
        p = tl.exp2(s - m_new[:, None])
        fix = tl.exp2(m_i - m_new)
        l_i = l_i * fix + tl.sum(p, 1)
        v = tl.load(v_ptrs + cols[:, None] * stride, mask=cols[:, None] < seq_len, other=0.0)
        acc = tl.dot(p.to(v.dtype), v, acc * fix[:, None])
        m_i = m_new
    return acc, m_i, l_i


@triton.jit
def attention_forward(
    Q,
    K,
    V,
    Out,
    Lse,
    sm_scale,
    heads,
    kv_heads,
    seq_len,
    HEAD_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    # all tensors are (batch, heads, sequence, HEAD_DIM) and contiguous
    start_m = tl.program_id(0) * BLOCK_M
    batch = tl.program_id(1) // heads
    head = tl.program_id(1) % heads
    kv_head = head // (heads // kv_heads)
    q_base = (batch * heads + head).to(tl.int64) * seq_len * HEAD_DIM
    kv_base = (batch * kv_heads + kv_head).to(tl.int64) * seq_len * HEAD_DIM
    offs_m = start_m + tl.arange(0, BLOCK_M)
    offs_n = tl.arange(0, BLOCK_N)
    offs_d = tl.arange(0, HEAD_DIM)
    rows = offs_m[:, None] < seq_len
    q = tl.load(Q + q_base + offs_m[:, None] * HEAD_DIM + offs_d[None, :], mask=rows, other=0.0)
    k_ptrs = K + kv_base + offs_d[:, None]
    v_ptrs = V + kv_base + offs_d[None, :]
    m_i = tl.full([BLOCK_M], -1.0e6, dtype=tl.float32)
    l_i = tl.zeros([BLOCK_M], dtype=tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD_DIM], dtype=tl.float32)
    scale = sm_scale * 1.44269504
    if CAUSAL:
        # whole blocks below the diagonal need no mask
        middle = (start_m // BLOCK_N) * BLOCK_N
        acc, m_i, l_i = attention_step(
            acc,
            m_i,
            l_i,
            q,
            k_ptrs,
            v_ptrs,
            0,
            middle,
            offs_m,
            offs_n,
            seq_len,
            scale,
            HEAD_DIM,
            False,
            BLOCK_N,
        )
        last = min(start_m + BLOCK_M, seq_len)
        acc, m_i, l_i = attention_step(
            acc,
            m_i,
            l_i,
            q,
            k_ptrs,
            v_ptrs,
            middle,
            last,
            offs_m,
            offs_n,
            seq_len,
            scale,
            HEAD_DIM,
            True,
            BLOCK_N,
        )
    else:
        acc, m_i, l_i = attention_step(
            acc,
            m_i,
            l_i,
            q,
            k_ptrs,
            v_ptrs,
            0,
            seq_len,
            offs_m,
            offs_n,
            seq_len,
            scale,
            HEAD_DIM,
            False,
            BLOCK_N,
        )
    acc = acc / l_i[:, None]
    lse_ptrs = Lse + tl.program_id(1) * seq_len + offs_m
    tl.store(lse_ptrs, m_i + tl.log2(l_i), mask=offs_m < seq_len)
    o_ptrs = Out + q_base + offs_m[:, None] * HEAD_DIM + offs_d[None, :]
    tl.store(o_ptrs, acc.to(Out.dtype.element_ty), mask=rows)


def make_args(problem, device, generator):
    batch, heads, kv_heads, seq, dim = (problem[x] for x in ("B", "H", "KVH", "S", "D"))
    q = random_normal((batch, heads, seq, dim), problem["dtype"], device, generator)
    return {
        "Q": q,
        "K": random_normal((batch, kv_heads, seq, dim), problem["dtype"], device, generator),
        "V": random_normal((batch, kv_heads, seq, dim), problem["dtype"], device, generator),
        "Out": torch.empty_like(q),
        "Lse": torch.empty((batch, heads, seq), device=device, dtype=torch.float32),
        "sm_scale": dim**-0.5,
        "heads": heads,
        "kv_heads": kv_heads,
        "seq_len": seq,
        "HEAD_DIM": dim,
        "CAUSAL": problem["causal"],
    }


def reference(args):
    repeat = args["heads"] // args["kv_heads"]
    k, v = (args[name].repeat_interleave(repeat, 1) for name in "KV")
    out = torch.nn.functional.scaled_dot_product_attention(
        args["Q"].float(), k.float(), v.float(), is_causal=args["CAUSAL"]
    )
    return {"Out": out}


def _problem(b, h, kvh, s, d, causal, dtype="fp16"):
    return {"B": b, "H": h, "KVH": kvh, "S": s, "D": d, "causal": causal, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=attention_forward,
    space=ConfigSpace(
        BLOCK_M=[16, 32, 64, 128, 256],
        BLOCK_N=[16, 32, 64, 128],
        num_warps=[1, 2, 4, 8, 16],
        num_stages=[1, 2, 3, 4],
        constraint=lambda c: 2 <= c["BLOCK_M"] * c["BLOCK_N"] // (32 * c["num_warps"]) <= 256,
    ),
    problems=resized(
        (
            _problem(1, 8, 8, 256, 64, True),
            _problem(8, 12, 12, 197, 64, False),
            _problem(4, 16, 16, 1024, 64, True),
            _problem(2, 32, 8, 1024, 128, True, "bf16"),
            _problem(16, 8, 8, 512, 32, False),
            _problem(1, 32, 8, 2048, 128, True, "bf16"),
            _problem(4, 16, 16, 2048, 64, False),
            _problem(1, 16, 4, 4096, 128, True, "bf16"),
            _problem(2, 8, 8, 4096, 64, True),
            _problem(1, 8, 2, 8192, 128, True, "bf16"),
        ),
        "B",
        2,
    ),
    small=(_problem(1, 2, 1, 40, 16, True), _problem(1, 2, 2, 24, 16, False)),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["seq_len"], a["BLOCK_M"]), a["Q"].shape[0] * a["heads"]),
    reference=reference,
)
