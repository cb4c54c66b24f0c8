"""The forward pass of an attention, for looking at how a kernel is ranked that was never timed.

    autotune-rlm rank benchmarks/programs/attention.py:attention --device "NVIDIA H100" \\
        --problem "Z=4,H=32,N=4096,HEAD=128,CAUSAL=0,dtype=fp16"

Online softmax after Dao, "FlashAttention-2" (arXiv 2307.08691), written for this project.
"""

from __future__ import annotations

import triton
import triton.language as tl

CONFIGS = [
    triton.Config({"BLOCK_M": m, "BLOCK_N": n}, num_warps=warps, num_stages=stages)
    for m in (64, 128)
    for n in (32, 64, 128)
    for warps in (4, 8)
    for stages in (2, 3, 4)
]


@triton.autotune(CONFIGS, key=["Z", "H", "N", "HEAD", "CAUSAL"])
@triton.jit
def attention(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    scale,
    Z,
    H,
    N,
    HEAD: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """softmax(Q K^T * scale) V, for tensors (Z, H, N, HEAD) without gaps; ``scale`` includes log2(e)."""
    first = tl.program_id(0) * BLOCK_M
    rows = first + tl.arange(0, BLOCK_M)
    base = tl.program_id(1).to(tl.int64) * N * HEAD
    head = tl.arange(0, HEAD)
    at = base + rows[:, None] * HEAD + head[None, :]
    q = tl.load(q_ptr + at, mask=rows[:, None] < N, other=0.0)
    highest = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD], tl.float32)
    end = tl.minimum(first + BLOCK_M, N) if CAUSAL else N
    for start in range(0, end, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        inside = columns < N
        k = tl.load(
            k_ptr + base + columns[None, :] * HEAD + head[:, None], mask=inside[None, :], other=0.0
        )
        scores = tl.dot(q, k) * scale
        if CAUSAL:
            scores = tl.where(rows[:, None] >= columns[None, :], scores, float("-inf"))
        else:
            scores = tl.where(inside[None, :], scores, float("-inf"))
        now = tl.maximum(highest, tl.max(scores, 1))
        p = tl.exp2(scores - now[:, None])
        less = tl.exp2(highest - now)
        total = total * less + tl.sum(p, 1)
        v = tl.load(
            v_ptr + base + columns[:, None] * HEAD + head[None, :], mask=inside[:, None], other=0.0
        )
        acc = tl.dot(p.to(v.dtype), v, acc * less[:, None])
        highest = now
    acc = acc / total[:, None]
    tl.store(out_ptr + at, acc.to(out_ptr.dtype.element_ty), mask=rows[:, None] < N)
