"""The programs behind recorded landscapes and winners: kernels of the same algorithms, written anew.

    autotune-rlm bench kernels inductor_mm.csv.gz --programs benchmarks/programs/recorded.py

``PROGRAMS`` maps a landscape's kernel name to a function of a problem and a configuration, which
returns the kernel, its arguments and its grid. An argument is a type such as ``"*fp16"`` for a
pointer aligned to 16 bytes, a number for a scalar, or a constexpr's value.
"""

from __future__ import annotations

import math
import re
from typing import Any

import triton
import triton.language as tl

Program = dict[str, Any]
_GROUP = 8  # the order of the programs: it changes no fact, and one IR serves all values of it


@triton.jit
def _grouped(pid, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    width = GROUP_M * tiles_n
    group = pid // width
    rows = min(tiles_m - group * GROUP_M, GROUP_M)
    return group * GROUP_M + (pid % rows), (pid % width) // rows


@triton.jit
def matrix_product(
    a_ptr,
    b_ptr,
    c_ptr,
    M,
    N,
    K,
    stride_am,
    stride_ak,
    stride_bk,
    stride_bn,
    ALLOW_TF32: tl.constexpr,
    EVEN_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """C = A B, where B may have a narrower type, as TorchInductor's templates compute it."""
    pid_m, pid_n = _grouped(tl.program_id(0), M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rm = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    rn = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    ram = tl.max_contiguous(tl.multiple_of(rm % M, BLOCK_M), BLOCK_M)
    rbn = tl.max_contiguous(tl.multiple_of(rn % N, BLOCK_N), BLOCK_N)
    rk = tl.arange(0, BLOCK_K)
    a_at = a_ptr + ram[:, None] * stride_am + rk[None, :] * stride_ak
    b_at = b_ptr + rk[:, None] * stride_bk + rbn[None, :] * stride_bn
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in range(0, tl.cdiv(K, BLOCK_K)):
        if EVEN_K:
            a = tl.load(a_at)
            b = tl.load(b_at)
        else:
            left = K - step * BLOCK_K
            a = tl.load(a_at, mask=rk[None, :] < left, other=0.0)
            b = tl.load(b_at, mask=rk[:, None] < left, other=0.0)
        if ALLOW_TF32:
            acc = tl.dot(a, b.to(a.dtype), acc, input_precision="tf32")
        else:
            acc = tl.dot(a, b.to(a.dtype), acc, input_precision="ieee")
        a_at += BLOCK_K * stride_ak
        b_at += BLOCK_K * stride_bk
    rm = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    rn = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (rm[:, None] < M) & (rn[None, :] < N)
    c_at = c_ptr + rm[:, None] * N + rn[None, :]
    tl.store(c_at, acc.to(c_ptr.dtype.element_ty), mask=inside)


@triton.jit
def block_scaled_product(
    a_ptr,
    b_ptr,
    c_ptr,
    a_scale_ptr,
    b_scale_ptr,
    M,
    N,
    K,
    GROUP_N: tl.constexpr,
    GROUP_K: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr,
    BLOCK_SIZE_N: tl.constexpr,
    BLOCK_SIZE_K: tl.constexpr,
    GROUP_SIZE_M: tl.constexpr,
):
    """C = A B^T of eight-bit operands with a scale for each row and group of K, and block of B."""
    pid_m, pid_n = _grouped(tl.program_id(0), M, N, BLOCK_SIZE_M, BLOCK_SIZE_N, GROUP_SIZE_M)
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
    a_ptr,
    b_ptr,
    c_ptr,
    a_scale_ptr,
    b_scale_ptr,
    row_ptr,
    expert_ptr,
    padded_ptr,
    N,
    K,
    EM,
    valid,
    TOP_K: tl.constexpr,
    SCALES: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr,
    BLOCK_SIZE_N: tl.constexpr,
    BLOCK_SIZE_K: tl.constexpr,
    GROUP_SIZE_M: tl.constexpr,
):
    """Rows gathered by expert, each block times its expert's weights (a mixture of experts)."""
    pid_m, pid_n = _grouped(tl.program_id(0), EM, N, BLOCK_SIZE_M, BLOCK_SIZE_N, GROUP_SIZE_M)
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
            acc += tl.dot(a, b).to(tl.float32) * scale
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


@triton.jit
def gated_product(
    x_ptr,
    w_ptr,
    out_ptr,
    M,
    N,
    K,
    SILU: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """activation(X W) * (X V), with W and V beside each other (a gated linear unit)."""
    pid_m = tl.program_id(0)
    pid_n = tl.program_id(1)
    rm = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    rn = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    rk = tl.arange(0, BLOCK_K)
    x_at = x_ptr + (rm % M)[:, None] * K + rk[None, :]
    w_at = w_ptr + rk[:, None] * (2 * N) + (rn % N)[None, :]
    gate = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    value = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in range(0, tl.cdiv(K, BLOCK_K)):
        left = K - step * BLOCK_K
        x = tl.load(x_at, mask=rk[None, :] < left, other=0.0)
        w = tl.load(w_at, mask=rk[:, None] < left, other=0.0)
        v = tl.load(w_at + N, mask=rk[:, None] < left, other=0.0)
        gate = tl.dot(x, w, gate)
        value = tl.dot(x, v, value)
        x_at += BLOCK_K
        w_at += BLOCK_K * 2 * N
    gate = gate * tl.sigmoid(gate) if SILU else tl.sigmoid(gate)
    out = (gate * value).to(out_ptr.dtype.element_ty)
    inside = (rm[:, None] < M) & (rn[None, :] < N)
    tl.store(out_ptr + rm[:, None] * N + rn[None, :], out, mask=inside)


@triton.jit
def silu_and_multiply(
    x_ptr, out_ptr, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr
):
    """silu(gate) * up of rows that hold both, some rows a program."""
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = columns < N
    first = tl.program_id(1) * BLOCK_M
    for row in tl.range(first, min(first + BLOCK_M, M), num_stages=STAGES):
        at = x_ptr + row.to(tl.int64) * 2 * N + columns
        gate = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(at + N, mask=inside, other=0.0)
        gate = (gate / (1.0 + tl.exp(-gate))).to(up.dtype)
        tl.store(out_ptr + row.to(tl.int64) * N + columns, gate * up, mask=inside)


_DTYPES = {
    "float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "int8": "i8", "uint8": "u8",
    "f32": "fp32", "f16": "fp16", "fp16": "fp16", "bf16": "bf16", "fp32": "fp32",
}  # fmt: skip


def _pointer(dtype: object) -> str:
    name = str(dtype).removeprefix("torch.")
    return "*" + _DTYPES[name]


def _tiles(problem: dict[str, int], config: dict[str, Any], m: str, n: str) -> tuple[int]:
    return (math.ceil(problem["m"] / config[m]) * math.ceil(problem["n"] / config[n]),)


def product(problem: dict[str, Any], config: dict[str, Any]) -> Program:
    """``mm`` and ``mixed_mm`` of TorchInductor, and the Triton tutorial's matmul."""
    p = {name.lower(): value for name, value in problem.items()}
    m, n, k = p["m"], p["n"], p["k"]
    left = _pointer(p.get("mat1_dtype", p.get("dtype", "float16")))
    right = _pointer(p.get("mat2_dtype", left[1:]))
    blocks = {name: config[name] for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K")}
    return {
        "kernel": matrix_product,
        "arguments": {
            "a_ptr": left,
            "b_ptr": right,
            "c_ptr": left,
            "M": m,
            "N": n,
            "K": k,
            "stride_am": p.get("mat1_stride_0", k),
            "stride_ak": p.get("mat1_stride_1", 1),
            "stride_bk": p.get("mat2_stride_0", n),
            "stride_bn": p.get("mat2_stride_1", 1),
            "ALLOW_TF32": str(p.get("using_tf32", "True")) == "True",
            "EVEN_K": k % config["BLOCK_K"] == 0,
            "GROUP_M": _GROUP,
            **blocks,
        },
        "grid": _tiles({"m": m, "n": n}, config, "BLOCK_M", "BLOCK_N"),
    }


def block_scaled(problem: dict[str, Any], config: dict[str, Any]) -> Program:
    """``w8a8_block_fp8_matmul`` and ``w8a8_block_int8_matmul`` of vLLM and SGLang."""
    p = {"m": int(problem.get("M", problem.get("key0", 1))), "n": problem["N"], "k": problem["K"]}
    group_n, group_k = problem.get("block_shape") or problem.get("block_size") or (128, 128)
    value = "*i8" if "int8" in str(problem.get("dtype")) else "*fp8e4nv"
    c = {
        name.replace("BLOCK_SIZE", "BLOCK").replace("GROUP_SIZE", "GROUP"): v
        for name, v in config.items()
    }
    return {
        "kernel": block_scaled_product,
        "arguments": {
            "a_ptr": value,
            "b_ptr": value,
            "c_ptr": "*bf16",
            "a_scale_ptr": "*fp32",
            "b_scale_ptr": "*fp32",
            "M": p["m"],
            "N": p["n"],
            "K": p["k"],
            "GROUP_N": group_n,
            "GROUP_K": group_k,
            "BLOCK_SIZE_M": c["BLOCK_M"],
            "BLOCK_SIZE_N": c["BLOCK_N"],
            "BLOCK_SIZE_K": c["BLOCK_K"],
            "GROUP_SIZE_M": _GROUP,
        },
        "grid": _tiles(p, c, "BLOCK_M", "BLOCK_N"),
    }


def _experts(problem: dict[str, Any]) -> tuple[int, int]:
    """Hidden size and experts a token, which the records leave out: those of models of this size."""
    experts = problem["E"]
    hidden = 7168 if experts >= 250 else 5120 if experts in (16, 160, 161) else 4096
    if experts in (60, 64):
        hidden = 2048
    top_k = 1 if experts == 1 else 2 if experts <= 16 else 8
    return hidden, top_k


def mixture_of_experts(problem: dict[str, Any], config: dict[str, Any]) -> Program:
    """``fused_moe`` of vLLM and SGLang: its first, larger product."""
    hidden, top_k = _experts(problem)
    experts, tokens = problem["E"], problem["M"]
    n, k = 2 * problem["N"], hidden
    if problem.get("gemm") == "down":
        n, k = hidden, problem["N"]
    dtype = problem.get("dtype") or "bf16"
    fp8 = "float8" in dtype or "fp8" in dtype
    a = "*fp8e4nv" if fp8 else "*i8" if dtype == "int8_w8a8" else "*bf16"
    b = "*i8" if dtype.startswith("int") else a
    scales = 128 if problem.get("block_shape") else 1 if a != "*bf16" else 2 if b == "*i8" else 0
    block = config["BLOCK_SIZE_M"]
    pairs = tokens * top_k
    used = experts * (1 - (1 - 1 / experts) ** pairs)
    padded = int(max(pairs / block, used, 1) + min(used, pairs / block) / 2) * block
    return {
        "kernel": expert_product,
        "arguments": {
            "a_ptr": a,
            "b_ptr": b,
            "c_ptr": "*bf16",
            "a_scale_ptr": "*fp32",
            "b_scale_ptr": "*fp32",
            "row_ptr": "*i32",
            "expert_ptr": "*i32",
            "padded_ptr": "*i32",
            "N": n,
            "K": k,
            "EM": padded,
            "valid": pairs,
            "TOP_K": top_k,
            "SCALES": scales,
            "BLOCK_SIZE_M": block,
            "BLOCK_SIZE_N": config["BLOCK_SIZE_N"],
            "BLOCK_SIZE_K": config["BLOCK_SIZE_K"],
            "GROUP_SIZE_M": _GROUP,
        },
        "grid": (padded // block * math.ceil(n / config["BLOCK_SIZE_N"]),),
    }


def gated(problem: dict[str, Any], config: dict[str, Any]) -> Program:
    """``gated_linear_unit`` of tokamax."""
    dtype, *x = re.findall(r"[a-z]+\d+|\d+", str(problem["x"]))
    k, n = x[-1], re.findall(r"\d+", str(problem["weights"]))[-1]
    m = math.prod(map(int, x[:-1]))
    blocks = {name.upper(): config[name] for name in ("block_m", "block_n", "block_k")}
    return {
        "kernel": gated_product,
        "arguments": {
            "x_ptr": _pointer(dtype),
            "w_ptr": _pointer(dtype),
            "out_ptr": _pointer(dtype),
            "M": m,
            "N": int(n),
            "K": int(k),
            "SILU": "silu" in str(problem.get("activation")),
            **blocks,
        },
        "grid": (math.ceil(m / config["block_m"]), math.ceil(int(n) / config["block_n"])),
    }


def silu(problem: dict[str, Any], config: dict[str, Any]) -> Program:
    """``moe_silu_and_mul_kernel`` of LightLLM."""
    m, n = int(problem["key0"]), problem["N"]
    return {
        "kernel": silu_and_multiply,
        "arguments": {
            "x_ptr": "*bf16",
            "out_ptr": "*bf16",
            "M": m,
            "N": n,
            "BLOCK_M": config["BLOCK_M"],
            "BLOCK_N": config["BLOCK_N"],
            "STAGES": config.get("NUM_STAGES", 1),
        },
        "grid": (math.ceil(n / config["BLOCK_N"]), math.ceil(m / config["BLOCK_M"])),
    }


PROGRAMS = {
    "inductor_mm": product,
    "inductor_mixed_mm": product,
    "triton_matmul": product,
    "w8a8_block_fp8_matmul": block_scaled,
    "w8a8_block_int8_matmul": block_scaled,
    "lightllm_fp8_block_mm": block_scaled,
    "fused_moe": mixture_of_experts,
    "tokamax_pallas_triton_gated_linear_unit": gated,
    "lightllm_moe_silu_and_mul_kernel": silu,
}
