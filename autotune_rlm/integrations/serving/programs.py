"""The kernels behind the servers' files: the same algorithms, written anew, for the compiler's facts."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import triton
import triton.language as tl

Program = dict[str, Any]
GROUP = 8
"""The order of the programs: it changes no fact, and one IR serves all values of it."""


@triton.jit
def grouped(pid, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    """Row and column of the tile of a program, rows in groups that share columns in the cache."""
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    width = GROUP_M * tiles_n
    group = pid // width
    rows = min(tiles_m - group * GROUP_M, GROUP_M)
    return group * GROUP_M + (pid % rows), (pid % width) // rows


@triton.jit
def block_scaled_product(
    a_ptr, b_ptr, c_ptr, a_scale_ptr, b_scale_ptr, M, N, K,
    GROUP_N: tl.constexpr, GROUP_K: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr, BLOCK_SIZE_N: tl.constexpr, BLOCK_SIZE_K: tl.constexpr,
    GROUP_SIZE_M: tl.constexpr,
):  # fmt: skip
    """C = A B^T of eight-bit operands with a scale for each row and group of K, and block of B."""
    pid_m, pid_n = grouped(tl.program_id(0), M, N, BLOCK_SIZE_M, BLOCK_SIZE_N, GROUP_SIZE_M)
    rm = (pid_m * BLOCK_SIZE_M + tl.arange(0, BLOCK_SIZE_M)) % M
    rn = (pid_n * BLOCK_SIZE_N + tl.arange(0, BLOCK_SIZE_N)) % N
    rk = tl.arange(0, BLOCK_SIZE_K)
    groups = tl.cdiv(K, GROUP_K)
    a_at = a_ptr + rm[:, None] * K + rk[None, :]
    b_at = b_ptr + rn[None, :] * K + rk[:, None]
    a_scale_at = a_scale_ptr + rm * groups
    b_scale_at = b_scale_ptr + (rn // GROUP_N) * groups
    acc = tl.zeros((BLOCK_SIZE_M, BLOCK_SIZE_N), dtype=tl.float32)
    for step in range(0, tl.cdiv(K, BLOCK_SIZE_K)):
        left = K - step * BLOCK_SIZE_K
        a = tl.load(a_at, mask=rk[None, :] < left, other=0.0)
        b = tl.load(b_at, mask=rk[:, None] < left, other=0.0)
        at = step * BLOCK_SIZE_K // GROUP_K
        scale = tl.load(a_scale_at + at)[:, None] * tl.load(b_scale_at + at)[None, :]
        acc += tl.dot(a, b).to(tl.float32) * scale
        a_at += BLOCK_SIZE_K
        b_at += BLOCK_SIZE_K
    rm = pid_m * BLOCK_SIZE_M + tl.arange(0, BLOCK_SIZE_M)
    rn = pid_n * BLOCK_SIZE_N + tl.arange(0, BLOCK_SIZE_N)
    inside = (rm[:, None] < M) & (rn[None, :] < N)
    tl.store(c_ptr + rm[:, None] * N + rn[None, :], acc.to(tl.bfloat16), mask=inside)


@triton.jit
def expert_product(
    a_ptr, b_ptr, c_ptr, a_scale_ptr, b_scale_ptr, row_ptr, expert_ptr, padded_ptr,
    N, K, EM, valid, TOP_K: tl.constexpr, SCALES: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr, BLOCK_SIZE_N: tl.constexpr, BLOCK_SIZE_K: tl.constexpr,
    GROUP_SIZE_M: tl.constexpr,
):  # fmt: skip
    """Rows gathered by expert, each block times its expert's weights (a mixture of experts)."""
    pid_m, pid_n = grouped(tl.program_id(0), EM, N, BLOCK_SIZE_M, BLOCK_SIZE_N, GROUP_SIZE_M)
    if pid_m * BLOCK_SIZE_M >= tl.load(padded_ptr):
        return
    rows = tl.load(row_ptr + pid_m * BLOCK_SIZE_M + tl.arange(0, BLOCK_SIZE_M))
    mask = rows < valid
    expert = tl.load(expert_ptr + pid_m).to(tl.int64)
    rn = (pid_n * BLOCK_SIZE_N + tl.arange(0, BLOCK_SIZE_N)) % N
    rk = tl.arange(0, BLOCK_SIZE_K)
    a_at = a_ptr + (rows // TOP_K)[:, None] * K + rk[None, :]
    b_at = b_ptr + expert * N * K + rn[None, :] * K + rk[:, None]
    acc = tl.zeros((BLOCK_SIZE_M, BLOCK_SIZE_N), dtype=tl.float32)
    if SCALES == 128:
        a_scale_at = a_scale_ptr + (rows // TOP_K) * tl.cdiv(K, 128)
        b_scale_at = b_scale_ptr + (expert * tl.cdiv(N, 128) + rn // 128) * tl.cdiv(K, 128)
    if SCALES == 2:
        b_scale = tl.load(b_scale_ptr + expert * N + rn)
    for step in range(0, tl.cdiv(K, BLOCK_SIZE_K)):
        left = K - step * BLOCK_SIZE_K
        a = tl.load(a_at, mask=mask[:, None] & (rk[None, :] < left), other=0.0)
        b = tl.load(b_at, mask=rk[:, None] < left, other=0.0)
        if SCALES == 128:
            at = step * BLOCK_SIZE_K // 128
            a_scale = tl.load(a_scale_at + at, mask=mask, other=0.0)
            scale = a_scale[:, None] * tl.load(b_scale_at + at)[None, :]
            acc += tl.dot(a, b.to(a.dtype)).to(tl.float32) * scale
        elif SCALES == 2:
            acc = tl.dot(a, b.to(a.dtype), acc)
        else:
            acc += tl.dot(a, b).to(tl.float32)
        a_at += BLOCK_SIZE_K
        b_at += BLOCK_SIZE_K
    if SCALES == 1:
        acc = acc * tl.load(a_scale_ptr) * tl.load(b_scale_ptr + expert)
    if SCALES == 2:
        acc = acc * b_scale[None, :]
    rn = pid_n * BLOCK_SIZE_N + tl.arange(0, BLOCK_SIZE_N)
    c_at = c_ptr + rows[:, None] * N + rn[None, :]
    tl.store(c_at, acc.to(tl.bfloat16), mask=mask[:, None] & (rn[None, :] < N))


def tiles(problem: dict[str, int], config: dict[str, Any], m: str, n: str) -> tuple[int]:
    """The grid of one program a tile, where ``m`` and ``n`` name the tile's sides."""
    return (math.ceil(problem["m"] / config[m]) * math.ceil(problem["n"] / config[n]),)


def _pointers(a: str, b: str) -> dict[str, str]:
    scales = dict.fromkeys(("a_scale_ptr", "b_scale_ptr"), "*fp32")
    return {"a_ptr": a, "b_ptr": b, "c_ptr": "*bf16", **scales}


def block_scaled(problem: dict[str, Any], config: dict[str, Any]) -> Program:
    """``w8a8_block_fp8_matmul`` and ``w8a8_block_int8_matmul`` of vLLM and SGLang."""
    m, n, k = int(problem.get("M", problem.get("key0", 1))), problem["N"], problem["K"]
    group_n, group_k = problem.get("block_shape") or problem.get("block_size") or (128, 128)
    value = "*i8" if "int8" in str(problem.get("dtype")) else "*fp8e4nv"
    tile = {
        f"BLOCK_SIZE_{x}": config.get(f"BLOCK_SIZE_{x}", config.get(f"BLOCK_{x}")) for x in "MNK"
    }
    return {
        "kernel": block_scaled_product,
        "arguments": {
            **_pointers(value, value),
            **{"M": m, "N": n, "K": k, "GROUP_N": group_n, "GROUP_K": group_k},
            **tile,
            "GROUP_SIZE_M": GROUP,
        },
        "grid": tiles({"m": m, "n": n}, tile, "BLOCK_SIZE_M", "BLOCK_SIZE_N"),
    }


def experts_of(problem: dict[str, Any]) -> tuple[int, int]:
    """Hidden size and experts a token; where a problem does not tell, those of models of this size."""
    experts = problem["E"]
    hidden = 7168 if experts >= 250 else 5120 if experts in (16, 160, 161) else 4096
    if experts in (60, 64):
        hidden = 2048
    top_k = 1 if experts == 1 else 2 if experts <= 16 else 8
    return problem.get("hidden_size", hidden), problem.get("top_k", min(top_k, experts))


def mixture_of_experts(problem: dict[str, Any], config: dict[str, Any]) -> Program:
    """``fused_moe`` of vLLM and SGLang: its first, larger product."""
    hidden, top_k = experts_of(problem)
    experts, tokens = problem["E"], problem["M"]
    n, k = 2 * problem["N"], hidden
    if problem.get("gemm") == "down":
        n, k = hidden, problem["N"]
    dtype = problem.get("dtype") or "bf16"
    fp8 = "float8" in dtype or "fp8" in dtype
    a = "*bf16" if "a16" in dtype else "*fp8e4nv" if fp8 else "*i8" if "int8" in dtype else "*bf16"
    b = "*i8" if dtype.startswith("int") else "*fp8e4nv" if fp8 else a
    scales = 128 if problem.get("block_shape") else 1 if a != "*bf16" else 2 if b != "*bf16" else 0
    block = config["BLOCK_SIZE_M"]
    pairs = tokens * top_k
    used = experts * (1 - (1 - 1 / experts) ** pairs)
    padded = int(max(pairs / block, used, 1) + min(used, pairs / block) / 2) * block
    return {
        "kernel": expert_product,
        "arguments": {
            **_pointers(a, b),
            **dict.fromkeys(("row_ptr", "expert_ptr", "padded_ptr"), "*i32"),
            **{"N": n, "K": k, "EM": padded, "valid": pairs, "TOP_K": top_k, "SCALES": scales},
            **{name: config[name] for name in ("BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K")},
            "GROUP_SIZE_M": GROUP,
        },
        "grid": (padded // block * math.ceil(n / config["BLOCK_SIZE_N"]),),
    }


PROGRAMS = {
    "w8a8_block_fp8_matmul": block_scaled,
    "w8a8_block_int8_matmul": block_scaled,
    "fused_moe": mixture_of_experts,
}
