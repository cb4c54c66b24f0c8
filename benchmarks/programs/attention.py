"""The forward pass of an attention: how a kernel is ranked that no model has seen, and its times.

    autotune-rlm record --program benchmarks/programs/attention.py --out attention.jsonl.gz  # on a GPU
    autotune-rlm rank benchmarks/programs/attention.py:attention --device "NVIDIA H100" \\
        --problem "Z=4,H=32,N=4096,HEAD=128,CAUSAL=0,dtype=fp16"

Online softmax after Dao, "FlashAttention-2" (arXiv 2307.08691), written for this project.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
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


def shapes(device: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Launches with heads of 64 and 128, with and without a causal mask."""
    for heads, n, head, causal in itertools.product((32,), (1024, 4096, 16384), (64, 128), (0, 1)):
        batch = max(1, 4096 // n)

        def launch(batch=batch, heads=heads, n=n, head=head, causal=causal) -> None:
            half = {"device": device, "dtype": torch.float16}
            q, k, v = (torch.randn(batch, heads, n, head, **half) for _ in range(3))
            out = torch.empty_like(q)
            scale = 1.4426950408889634 * head**-0.5
            attention[lambda meta: (triton.cdiv(n, meta["BLOCK_M"]), batch * heads)](
                q, k, v, out, scale, batch, heads, n, HEAD=head, CAUSAL=causal
            )

        yield f"attention of {n} by {head}, causal {causal}", launch


if __name__ == "__main__":
    import _cases

    given = _cases.arguments("triton")
    _cases.run(shapes(given.device), given)
