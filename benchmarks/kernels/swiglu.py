"""SwiGLU: the activation alone, and fused with both matrix products in front of it."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def swiglu_forward(
    gate_ptr,
    up_ptr,
    out_ptr,
    n_elements,
    BLOCK: tl.constexpr,
    PER_PROGRAM: tl.constexpr,
    CACHE: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * BLOCK * PER_PROGRAM
    for i in tl.static_range(PER_PROGRAM):
        offs = start + i * BLOCK + tl.arange(0, BLOCK)
        mask = offs < n_elements
        gate = tl.load(gate_ptr + offs, mask=mask, other=0.0).to(tl.float32)
        up = tl.load(up_ptr + offs, mask=mask, other=0.0)
        y = (gate * tl.sigmoid(gate)).to(up.dtype) * up
        tl.store(out_ptr + offs, y, mask=mask, cache_modifier=CACHE)


@triton.jit
def fused_gate_up(
    x_ptr,
    w_gate_ptr,
    w_up_ptr,
    h_ptr,
    M,
    N,
    K,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    pid = tl.program_id(0)
    num_m, num_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    first = (pid // (GROUP_M * num_n)) * GROUP_M
    size = min(num_m - first, GROUP_M)
    rows = (first + (pid % (GROUP_M * num_n)) % size) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = ((pid % (GROUP_M * num_n)) // size) * BLOCK_N + tl.arange(0, BLOCK_N)
    ks = tl.arange(0, BLOCK_K)
    gate = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    up = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k in range(0, K, BLOCK_K):
        x_at = rows[:, None] * K + (k + ks)[None, :]
        w_at = (k + ks)[:, None] * N + cols[None, :]
        w_mask = ((k + ks) < K)[:, None] & (cols < N)[None, :]
        x = tl.load(x_ptr + x_at, (rows < M)[:, None] & ((k + ks) < K)[None, :], other=0.0)
        gate = tl.dot(x, tl.load(w_gate_ptr + w_at, w_mask, other=0.0), gate)
        up = tl.dot(x, tl.load(w_up_ptr + w_at, w_mask, other=0.0), up)
    h = gate * tl.sigmoid(gate) * up
    mask = (rows < M)[:, None] & (cols < N)[None, :]
    tl.store(h_ptr + rows[:, None] * N + cols[None, :], h.to(h_ptr.dtype.element_ty), mask)


def make_elementwise_args(problem, device, generator):
    shape = (problem["tokens"], problem["hidden"])
    gate = random_normal(shape, problem["dtype"], device, generator)
    return {
        "gate_ptr": gate,
        "up_ptr": random_normal(shape, problem["dtype"], device, generator),
        "out_ptr": torch.empty_like(gate),
        "n_elements": gate.numel(),
    }


def make_fused_args(problem, device, generator):
    m, n, k, dtype = (problem[name] for name in ("M", "N", "K", "dtype"))
    x = random_normal((m, k), dtype, device, generator)
    return {
        "x_ptr": x,
        "w_gate_ptr": random_normal((k, n), dtype, device, generator, scale=k**-0.5),
        "w_up_ptr": random_normal((k, n), dtype, device, generator, scale=k**-0.5),
        "h_ptr": torch.empty((m, n), device=device, dtype=x.dtype),
        "M": m,
        "N": n,
        "K": k,
    }


def fused_reference(args):
    x = args["x_ptr"].float()
    gate, up = x @ args["w_gate_ptr"].float(), x @ args["w_up_ptr"].float()
    return {"h_ptr": torch.nn.functional.silu(gate) * up}


def elementwise_reference(args):
    gate, up = args["gate_ptr"].float(), args["up_ptr"].float()
    return {"out_ptr": torch.nn.functional.silu(gate) * up}


def _elementwise(tokens, hidden, dtype="bf16"):
    return {"tokens": tokens, "hidden": hidden, "dtype": dtype}


def _fused(m, n, k, dtype="fp16"):
    return {"M": m, "N": n, "K": k, "dtype": dtype}


KERNELS = (
    SuiteKernel(
        fn=swiglu_forward,
        space=ConfigSpace(
            BLOCK=[128, 256, 512, 1024, 2048, 4096, 8192],
            PER_PROGRAM=[1, 2, 4, 8],
            CACHE=["", ".cs"],
            num_warps=[1, 2, 4, 8, 16],
            constraint=lambda c: 1 <= c["BLOCK"] // (32 * c["num_warps"]) <= 32,
        ),
        problems=resized(
            (
                _elementwise(1, 11008),
                _elementwise(16, 14336),
                _elementwise(128, 4096, "fp16"),
                _elementwise(512, 11008),
                _elementwise(1000, 1001, "fp32"),
                _elementwise(2048, 8192, "fp16"),
                _elementwise(4096, 14336),
                _elementwise(16384, 2048, "fp32"),
            ),
            "tokens",
            2,
        ),
        small=(_elementwise(3, 500, "fp32"), _elementwise(2, 300, "fp16")),
        make_args=make_elementwise_args,
        grid=lambda a: (triton.cdiv(a["n_elements"], a["BLOCK"] * a["PER_PROGRAM"]),),
        reference=elementwise_reference,
    ),
    SuiteKernel(
        fn=fused_gate_up,
        space=ConfigSpace(
            BLOCK_M=[16, 32, 64, 128],
            BLOCK_N=[16, 32, 64, 128, 256],
            BLOCK_K=[16, 32, 64, 128],
            GROUP_M=[1, 8],
            num_warps=[2, 4, 8],
            num_stages=[1, 2, 3, 4],
            constraint=lambda c: c["BLOCK_M"] * c["BLOCK_N"] <= 16384,
        ),
        problems=resized(
            (
                _fused(16, 11008, 4096),
                _fused(64, 14336, 4096, "bf16"),
                _fused(128, 1024, 1024),
                _fused(512, 5504, 2048, "bf16"),
                _fused(1024, 3072, 768),
                _fused(2048, 2048, 2048),
                _fused(2048, 11008, 4096, "bf16"),
                _fused(4096, 4096, 1024),
            ),
            "M",
            2,
        ),
        small=(_fused(20, 40, 48),),
        make_args=make_fused_args,
        grid=lambda a: (triton.cdiv(a["M"], a["BLOCK_M"]) * triton.cdiv(a["N"], a["BLOCK_N"]),),
        reference=fused_reference,
    ),
)
