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

from autotune_rlm.integrations.serving import programs as serving
from autotune_rlm.integrations.serving.programs import (
    GROUP,
    Program,
    grouped,
    tiles,
)


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
    pid_m, pid_n = grouped(tl.program_id(0), M, N, BLOCK_M, BLOCK_N, GROUP_M)
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
def gated_product(
    x_ptr,
    w_ptr,
    out_ptr,
    M,
    N,
    K,
    SILU: tl.constexpr,
    NARROW: tl.constexpr,
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
        if NARROW:  # JAX's dot algorithm BF16_BF16_F32 rounds the factors
            x, w, v = x.to(tl.bfloat16), w.to(tl.bfloat16), v.to(tl.bfloat16)
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


def grouped_experts(problem: dict[str, Any], config: dict[str, Any]) -> Program:
    """One product of LightLLM's mixture of experts, whose sizes are exact."""
    known = {"E": problem["expert_num"], "M": int(problem["key0"]), "top_k": problem["topk_num"]}
    known |= {"gemm": "down", "hidden_size": problem["N"], "N": problem["K"]}
    if problem["use_fp8_w8a8"] == "true":
        known |= {"dtype": "fp8_w8a8", "block_shape": (128, 128)}
    return serving.mixture_of_experts(known, config)


_DTYPES = {
    "float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "int8": "i8", "uint8": "u8",
    "f32": "fp32", "f16": "fp16", "fp16": "fp16", "bf16": "bf16", "fp32": "fp32",
}  # fmt: skip


def _pointer(dtype: object) -> str:
    name = str(dtype).removeprefix("torch.")
    return "*" + _DTYPES[name]


def product(problem: dict[str, Any], config: dict[str, Any]) -> Program:
    """``mm`` and ``mixed_mm`` of TorchInductor, and the Triton tutorial's matmul."""
    p = {name.lower(): value for name, value in problem.items()}
    if "sizes" in p:  # as TorchInductor's log has it: "12x64, 64x32", "[64, 1], [1, 64]"
        names = (
            "m",
            "k",
            "k",
            "n",
            "mat1_stride_0",
            "mat1_stride_1",
            "mat2_stride_0",
            "mat2_stride_1",
        )
        numbers = map(int, re.findall(r"\d+", f"{p['sizes']} {p['strides']}"))
        p |= dict(zip(names, numbers, strict=True))
        p |= dict(zip(("mat1_dtype", "mat2_dtype"), p["dtypes"].split(", "), strict=True))
    m, n, k = p["m"], p["n"], p["k"]
    left = _pointer(p.get("mat1_dtype", p.get("dtype", "float16")))
    right = _pointer(p.get("mat2_dtype", left[1:]))
    tile = {name.replace("_SIZE", ""): value for name, value in config.items()}
    blocks = {name: tile[name] for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K")}
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
            "EVEN_K": k % tile["BLOCK_K"] == 0,
            "GROUP_M": GROUP,
            **blocks,
        },
        "grid": tiles({"m": m, "n": n}, tile, "BLOCK_M", "BLOCK_N"),
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
            "NARROW": dtype == "f32" and problem.get("precision") == "BF16_BF16_F32",
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
    **serving.PROGRAMS,
    "lightllm_grouped_moe_gemm_kernel": grouped_experts,
    "tokamax_pallas_triton_gated_linear_unit": gated,
    "lightllm_moe_silu_and_mul_kernel": silu,
}
