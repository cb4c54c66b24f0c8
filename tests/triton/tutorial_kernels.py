"""Triton's tutorials 03 (matmul), 06 (attention) and 09 (persistent matmul), in miniature."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

__all__ = ["TUTORIALS"]


@triton.jit
def matmul(a, b, c, M, N, K, stride_a, stride_b, stride_c,
           BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr):  # fmt: skip
    """Tutorial 03: blocks in groups of rows, so that they meet in the cache."""
    program = tl.program_id(0)
    rows, columns = tl.cdiv(M, BM), tl.cdiv(N, BN)
    group = program // (GROUP * columns)
    size = min(rows - group * GROUP, GROUP)
    row = group * GROUP + (program % (GROUP * columns)) % size
    column = (program % (GROUP * columns)) // size
    at_m = (row * BM + tl.arange(0, BM)) % M
    at_n = (column * BN + tl.arange(0, BN)) % N
    at_k = tl.arange(0, BK)
    left = a + at_m[:, None] * stride_a + at_k[None, :]
    right = b + at_k[:, None] * stride_b + at_n[None, :]
    total = tl.zeros((BM, BN), tl.float32)
    for k in range(0, tl.cdiv(K, BK)):
        x = tl.load(left, mask=at_k[None, :] < K - k * BK, other=0.0)
        y = tl.load(right, mask=at_k[:, None] < K - k * BK, other=0.0)
        total = tl.dot(x, y, total)
        left += BK
        right += BK * stride_b
    inside = ((row * BM + tl.arange(0, BM)) < M)[:, None] & ((column * BN + tl.arange(0, BN)) < N)
    tl.store(c + at_m[:, None] * stride_c + at_n[None, :], total.to(tl.float16), mask=inside)


@triton.jit
def attention(q, k, v, o, N_CTX, HEAD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Tutorial 06: the forward pass over host descriptors."""
    row = tl.program_id(0) * BM
    query = q.load([row, 0])
    top = tl.full([BM], float("-inf"), tl.float32)
    norm = tl.zeros([BM], tl.float32)
    total = tl.zeros([BM, HEAD], tl.float32)
    for start in range(0, N_CTX, BN):
        scores = tl.dot(query, k.load([start, 0]).T)
        peak = tl.maximum(top, tl.max(scores, 1))
        weights = tl.math.exp2(scores - peak[:, None])
        shrink = tl.math.exp2(top - peak)
        norm = norm * shrink + tl.sum(weights, 1)
        total = total * shrink[:, None]
        total = tl.dot(weights.to(tl.float16), v.load([start, 0]), total)
        top = peak
    o.store([row, 0], (total / norm[:, None]).to(tl.float16))


@triton.jit
def persistent(a, b, c, M, N, K, PROGRAMS: tl.constexpr,
               BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):  # fmt: skip
    """Tutorial 09: as many programs as the device has processors, over host descriptors."""
    columns = tl.cdiv(N, BN)
    for tile in tl.range(tl.program_id(0), tl.cdiv(M, BM) * columns, PROGRAMS, flatten=True):
        row, column = (tile // columns) * BM, (tile % columns) * BN
        total = tl.zeros((BM, BN), tl.float32)
        for k in range(0, tl.cdiv(K, BK)):
            total = tl.dot(a.load([row, k * BK]), b.load([column, k * BK]).T, total)
        c.store([row, column], total.to(tl.float16))


def _attention_blocks(given):
    given["q"].block_shape = [given["BM"], given["HEAD"]]
    given["k"].block_shape = [given["BN"], given["HEAD"]]
    given["v"].block_shape = [given["BN"], given["HEAD"]]
    given["o"].block_shape = [given["BM"], given["HEAD"]]


def _matmul_blocks(given):
    given["a"].block_shape = [given["BM"], given["BK"]]
    given["b"].block_shape = [given["BN"], given["BK"]]
    given["c"].block_shape = [given["BM"], given["BN"]]


def _no_short_rows(configs, named, **kwargs):
    return [c for c in configs if named["N_CTX"] >= c.kwargs["BM"]]


def _half(*shape):
    return torch.ones(shape, dtype=torch.float16)


def _described(*shape):
    return TensorDescriptor.from_tensor(_half(*shape), [1, 1])


_BLOCKS = [(16, 32, 32), (32, 16, 32), (32, 32, 32), (64, 32, 32)]

TUTORIALS = {
    "matmul": (
        matmul,
        {
            "configs": [
                triton.Config({"BM": m, "BN": n, "BK": k, "GROUP": 8}, num_stages=3, num_warps=4)
                for m, n, k in _BLOCKS
            ],
            "key": ["M", "N", "K"],
        },
        lambda: (_half(64, 64), _half(64, 64), _half(64, 64), 64, 64, 64, 64, 64, 64),
        lambda m: (triton.cdiv(64, m["BM"]) * triton.cdiv(64, m["BN"]),),
    ),
    "attention": (
        attention,
        {
            "configs": [
                triton.Config({"BM": m, "BN": n}, num_warps=4, pre_hook=_attention_blocks)
                for m, n in ((64, 32), (64, 64), (128, 32), (1024, 32))
            ],
            "key": ["N_CTX", "HEAD"],
            "prune_configs_by": {"early_config_prune": _no_short_rows},
        },
        lambda: (*[_described(256, 64) for _ in range(4)], 256, 64),
        lambda m: (triton.cdiv(256, m["BM"]),),
    ),
    "persistent": (
        persistent,
        {
            "configs": [
                triton.Config({"BM": m, "BN": n, "BK": k}, num_warps=4, pre_hook=_matmul_blocks)
                for m, n, k in ((64, 32, 32), (64, 64, 32), (128, 32, 32))
            ],
            "key": ["M", "N", "K"],
        },
        lambda: (*[_described(128, 128) for _ in range(3)], 128, 128, 128, 8),
        lambda m: (8,),
    ),
}
"""Kernel, arguments of its autotuner, arguments of a launch, and grid by name."""
