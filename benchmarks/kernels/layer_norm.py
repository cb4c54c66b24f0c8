"""Layer normalisation, forward and backward."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized

_EPS = 1e-5


@triton.jit
def layer_norm_forward(X, Y, W, B, Mean, Rstd, stride, N, eps, BLOCK_SIZE: tl.constexpr):
    row = tl.program_id(0)
    X += row.to(tl.int64) * stride
    Y += row.to(tl.int64) * stride
    total = tl.zeros([BLOCK_SIZE], dtype=tl.float32)
    square = tl.zeros([BLOCK_SIZE], dtype=tl.float32)
    for off in range(0, N, BLOCK_SIZE):
        cols = off + tl.arange(0, BLOCK_SIZE)
        x = tl.load(X + cols, mask=cols < N, other=0.0).to(tl.float32)
        total += x
        square += x * x
    mean = tl.sum(total, axis=0) / N
    var = tl.sum(square, axis=0) / N - mean * mean
    rstd = 1 / tl.sqrt(tl.maximum(var, 0.0) + eps)
    tl.store(Mean + row, mean)
    tl.store(Rstd + row, rstd)
    for off in range(0, N, BLOCK_SIZE):
        cols = off + tl.arange(0, BLOCK_SIZE)
        mask = cols < N
        w = tl.load(W + cols, mask=mask).to(tl.float32)
        b = tl.load(B + cols, mask=mask).to(tl.float32)
        x = tl.load(X + cols, mask=mask, other=0.0).to(tl.float32)
        y = (x - mean) * rstd * w + b
        tl.store(Y + cols, y.to(Y.dtype.element_ty), mask=mask)


@triton.jit
def layer_norm_backward(
    DX,
    DY,
    DW,
    DB,
    X,
    W,
    Mean,
    Rstd,
    M,
    N,
    ROWS_PER_PROGRAM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    # each program writes dx of its rows and adds its share to the gradients of weight and bias
    first = tl.program_id(0) * ROWS_PER_PROGRAM
    for m0 in range(first, min(first + ROWS_PER_PROGRAM, M), BLOCK_M):
        rows = m0 + tl.arange(0, BLOCK_M)
        live = rows < M
        mean = tl.load(Mean + rows, mask=live, other=0.0)
        rstd = tl.load(Rstd + rows, mask=live, other=0.0)
        c1 = tl.zeros([BLOCK_M], dtype=tl.float32)
        c2 = tl.zeros([BLOCK_M], dtype=tl.float32)
        for n0 in range(0, N, BLOCK_N):
            cols = n0 + tl.arange(0, BLOCK_N)
            mask = live[:, None] & (cols < N)[None, :]
            offsets = rows[:, None].to(tl.int64) * N + cols[None, :]
            x = tl.load(X + offsets, mask=mask, other=0.0).to(tl.float32)
            dy = tl.load(DY + offsets, mask=mask, other=0.0).to(tl.float32)
            w = tl.load(W + cols, mask=cols < N, other=0.0).to(tl.float32)
            xhat = tl.where(mask, (x - mean[:, None]) * rstd[:, None], 0.0)
            wdy = dy * w[None, :]
            c1 += tl.sum(xhat * wdy, axis=1)
            c2 += tl.sum(wdy, axis=1)
        c1 = c1 / N
        c2 = c2 / N
        for n0 in range(0, N, BLOCK_N):
            cols = n0 + tl.arange(0, BLOCK_N)
            mask = live[:, None] & (cols < N)[None, :]
            offsets = rows[:, None].to(tl.int64) * N + cols[None, :]
            x = tl.load(X + offsets, mask=mask, other=0.0).to(tl.float32)
            dy = tl.load(DY + offsets, mask=mask, other=0.0).to(tl.float32)
            w = tl.load(W + cols, mask=cols < N, other=0.0).to(tl.float32)
            xhat = tl.where(mask, (x - mean[:, None]) * rstd[:, None], 0.0)
            dx = (dy * w[None, :] - (xhat * c1[:, None] + c2[:, None])) * rstd[:, None]
            tl.store(DX + offsets, dx.to(DX.dtype.element_ty), mask=mask)
            tl.atomic_add(DW + cols, tl.sum(dy * xhat, axis=0), mask=cols < N)
            tl.atomic_add(DB + cols, tl.sum(dy, axis=0), mask=cols < N)


def make_forward_args(problem, device, generator):
    m, n, dtype = problem["M"], problem["N"], problem["dtype"]
    x = random_normal((m, n), dtype, device, generator)
    return {
        "X": x,
        "Y": torch.empty_like(x),
        "W": random_normal((n,), dtype, device, generator),
        "B": random_normal((n,), dtype, device, generator),
        "Mean": torch.empty((m,), device=device),
        "Rstd": torch.empty((m,), device=device),
        "stride": n,
        "N": n,
        "eps": _EPS,
    }


def forward_reference(args):
    x = args["X"].float()
    y = torch.nn.functional.layer_norm(
        x, (args["N"],), args["W"].float(), args["B"].float(), args["eps"]
    )
    return {"Y": y, "Mean": x.mean(-1)}


def make_backward_args(problem, device, generator):
    m, n, dtype = problem["M"], problem["N"], problem["dtype"]
    x = random_normal((m, n), dtype, device, generator)
    mean = x.float().mean(-1)
    return {
        "DX": torch.empty_like(x),
        "DY": random_normal((m, n), dtype, device, generator, scale=m**-0.5),
        "DW": torch.zeros((n,), device=device),
        "DB": torch.zeros((n,), device=device),
        "X": x,
        "W": random_normal((n,), dtype, device, generator),
        "Mean": mean,
        "Rstd": torch.rsqrt(x.float().var(-1, unbiased=False) + _EPS),
        "M": m,
        "N": n,
    }


def backward_reference(args):
    x, dy, w = (args[name].float() for name in ("X", "DY", "W"))
    xhat = (x - args["Mean"][:, None]) * args["Rstd"][:, None]
    wdy = dy * w
    c1, c2 = (xhat * wdy).mean(-1, keepdim=True), wdy.mean(-1, keepdim=True)
    dx = (wdy - xhat * c1 - c2) * args["Rstd"][:, None]
    return {"DX": dx, "DW": (dy * xhat).sum(0), "DB": dy.sum(0)}


def _problem(m, n, dtype="fp16"):
    return {"M": m, "N": n, "dtype": dtype}


_PROBLEMS = resized(
    (
        _problem(64, 1024),
        _problem(512, 768, "fp32"),
        _problem(1024, 8192),
        _problem(4096, 1024),
        _problem(8192, 768, "bf16"),
        _problem(4096, 4096, "bf16"),
        _problem(16384, 320),
        _problem(2048, 12288, "fp32"),
        _problem(25216, 1000),
    ),
    "M",
    0.5,
)

KERNELS = (
    SuiteKernel(
        fn=layer_norm_forward,
        space=ConfigSpace(
            BLOCK_SIZE=[64, 128, 256, 512, 1024, 2048, 4096, 8192],
            num_warps=[1, 2, 4, 8, 16],
            num_stages=[1, 2, 3, 4],
        ),
        problems=_PROBLEMS,
        small=(_problem(4, 100, "fp32"), _problem(3, 300)),
        make_args=make_forward_args,
        grid=lambda a: (a["X"].shape[0],),
        reference=forward_reference,
    ),
    SuiteKernel(
        fn=layer_norm_backward,
        space=ConfigSpace(
            ROWS_PER_PROGRAM=[16, 32, 64, 128],
            BLOCK_M=[1, 2, 4, 8, 16],
            BLOCK_N=[64, 128, 256, 512, 1024, 2048],
            num_warps=[2, 4, 8, 16],
            num_stages=[1, 2],
            constraint=lambda c: 1 <= c["BLOCK_M"] * c["BLOCK_N"] // (32 * c["num_warps"]) <= 64,
        ),
        problems=_PROBLEMS,
        small=(_problem(20, 70, "fp32"),),
        make_args=make_backward_args,
        grid=lambda a: (triton.cdiv(a["M"], a["ROWS_PER_PROGRAM"]),),
        reference=backward_reference,
        reset=("DW", "DB"),
    ),
)
