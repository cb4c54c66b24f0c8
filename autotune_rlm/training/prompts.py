"""Recorded matrix multiplications in the words of a live Triton kernel.

Recorded landscapes name their kernel and sizes but hold no program text. A live kernel comes with its
source, its tensors and its strides. So that what is learned from the one serves the other, each
recorded Triton matmul is also shown as the decorator would show it, with the source of a matmul
written for this project.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from autotune_rlm.surrogate.text import normalise_name
from autotune_rlm.types import Task

__all__ = ["live_renderings"]

_POINTERS = """
def matmul_kernel(a_ptr, b_ptr, c_ptr, M, N, K, stride_am, stride_ak, stride_bk, stride_bn,
                  stride_cm, stride_cn, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                  BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr):
    pid = tl.program_id(axis=0)
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    group_size = GROUP_M * tiles_n
    group = pid // group_size
    first_m = group * GROUP_M
    rows = min(tiles_m - first_m, GROUP_M)
    pid_m = first_m + pid % group_size % rows
    pid_n = pid % group_size // rows
    rm = (pid_m * BLOCK_M + tl.arange(0, BLOCK_M)) % M
    rn = (pid_n * BLOCK_N + tl.arange(0, BLOCK_N)) % N
    rk = tl.arange(0, BLOCK_K)
    a_at = a_ptr + (rm[:, None] * stride_am + rk[None, :] * stride_ak)
    b_at = b_ptr + (rk[:, None] * stride_bk + rn[None, :] * stride_bn)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, tl.cdiv(K, BLOCK_K)):
        a = tl.load(a_at, mask=rk[None, :] < K - k * BLOCK_K, other=0.0)
        b = tl.load(b_at, mask=rk[:, None] < K - k * BLOCK_K, other=0.0)
        acc = tl.dot(a, b, acc)
        a_at += BLOCK_K * stride_ak
        b_at += BLOCK_K * stride_bk
    cm = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    cn = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    c_at = c_ptr + stride_cm * cm[:, None] + stride_cn * cn[None, :]
    tl.store(c_at, acc.to(c_ptr.dtype.element_ty), mask=(cm[:, None] < M) & (cn[None, :] < N))
"""
_PLAIN = """
def gemm(x, w, out, M, N, K, sxm, sxk, swk, swn, som, son, BLOCK_SIZE_M: tl.constexpr,
         BLOCK_SIZE_N: tl.constexpr, BLOCK_SIZE_K: tl.constexpr):
    i = tl.program_id(0)
    j = tl.program_id(1)
    m = i * BLOCK_SIZE_M + tl.arange(0, BLOCK_SIZE_M)
    n = j * BLOCK_SIZE_N + tl.arange(0, BLOCK_SIZE_N)
    total = tl.zeros([BLOCK_SIZE_M, BLOCK_SIZE_N], tl.float32)
    for start in range(0, K, BLOCK_SIZE_K):
        k = start + tl.arange(0, BLOCK_SIZE_K)
        left = tl.load(x + m[:, None] * sxm + k[None, :] * sxk,
                       mask=(m[:, None] < M) & (k[None, :] < K), other=0.0)
        right = tl.load(w + k[:, None] * swk + n[None, :] * swn,
                        mask=(k[:, None] < K) & (n[None, :] < N), other=0.0)
        total += tl.dot(left, right)
    tl.store(out + m[:, None] * som + n[None, :] * son, total.to(out.dtype.element_ty),
             mask=(m[:, None] < M) & (n[None, :] < N))
"""
_TENSORS = (("a_ptr", "b_ptr", "c_ptr"), ("x", "w", "out"))


@cache
def _sources() -> tuple[str, str]:
    return ast.unparse(ast.parse(_POINTERS)), ast.unparse(ast.parse(_PLAIN))


def live_renderings(task: Task) -> tuple[Task, ...]:
    """The task of a recorded Triton matmul in the words of two live kernels; empty for any other."""
    problem = {normalise_name(k): v for k, v in task.problem.items()}
    if task.language != "triton" or not {"m", "n", "k"} <= set(problem):
        return ()
    return tuple(
        replace(task, kernel=name, source=source, problem=_live_problem(problem, tensors))
        for name, source, tensors in zip(
            ("matmul_kernel", "gemm"), _sources(), _TENSORS, strict=True
        )
    )


def _live_problem(problem: Mapping[str, Any], tensors: tuple[str, str, str]) -> dict[str, Any]:
    m, n, k = int(problem["m"]), int(problem["n"]), int(problem["k"])
    left = str(problem.get("a.dtype", "fp16"))
    right = str(problem.get("b.dtype", left))
    a_strides = [int(problem.get("mat1_stride_0", k)), int(problem.get("mat1_stride_1", 1))]
    b_strides = [int(problem.get("mat2_stride_0", n)), int(problem.get("mat2_stride_1", 1))]
    shapes = ([m, k], [k, n], [m, n])
    dtypes = (left, right, left)
    strides = (a_strides, b_strides, [n, 1])
    described: dict[str, Any] = {
        name: {"dtype": dtype, "shape": shape, "strides": stride, "align": 16}
        for name, dtype, shape, stride in zip(tensors, dtypes, shapes, strides, strict=True)
    }
    return {**described, "M": m, "N": n, "K": k}
