"""RMS normalisation with a fused residual, forward; and backward over several rows a program."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def fused_add_rms_norm(
    x_ptr,
    residual_ptr,
    weight_ptr,
    out_ptr,
    new_residual_ptr,
    n_rows,
    hidden,
    eps,
    ROWS_PER_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS_PER_BLOCK + tl.arange(0, ROWS_PER_BLOCK)[:, None]
    cols = tl.arange(0, BLOCK)[None, :]
    row_start = rows.to(tl.int64) * hidden
    acc = tl.zeros([ROWS_PER_BLOCK, BLOCK], tl.float32)
    for start in tl.range(0, hidden, BLOCK):
        mask = (rows < n_rows) & (start + cols < hidden)
        offsets = row_start + start + cols
        h = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        h += tl.load(residual_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        tl.store(new_residual_ptr + offsets, h.to(new_residual_ptr.dtype.element_ty), mask=mask)
        acc += h * h
    inv = tl.rsqrt(tl.sum(acc, 1) / hidden + eps)[:, None]
    for start in tl.range(0, hidden, BLOCK):
        mask = (rows < n_rows) & (start + cols < hidden)
        offsets = row_start + start + cols
        h = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        h += tl.load(residual_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        w = tl.load(weight_ptr + start + cols, mask=start + cols < hidden, other=0.0)
        y = h * inv * w.to(tl.float32)
        tl.store(out_ptr + offsets, y.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def rms_norm_backward(
    dy_ptr,
    x_ptr,
    w_ptr,
    rstd_ptr,
    dx_ptr,
    dw_partial_ptr,
    n_rows,
    n_cols,
    WIDTH: tl.constexpr,
    PROGRAMS: tl.constexpr,
    UNROLL: tl.constexpr,
):
    # programs stride over the rows; each keeps its part of dw in registers
    pid = tl.program_id(0)
    cols = tl.arange(0, WIDTH)
    mask = cols < n_cols
    w = tl.load(w_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    dw = tl.zeros([WIDTH], dtype=tl.float32)
    for row in tl.range(pid, n_rows, PROGRAMS, loop_unroll_factor=UNROLL):
        base = tl.cast(row, tl.int64) * n_cols
        x = tl.load(x_ptr + base + cols, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + base + cols, mask=mask, other=0.0).to(tl.float32)
        rstd = tl.load(rstd_ptr + row)
        xhat = x * rstd
        wdy = w * dy
        mean = tl.sum(xhat * wdy, axis=0) / n_cols
        dx = (wdy - xhat * mean) * rstd
        tl.store(dx_ptr + base + cols, dx.to(dx_ptr.dtype.element_ty), mask=mask)
        dw += dy * xhat
    tl.atomic_add(dw_partial_ptr + cols, dw, mask=mask)


def make_forward_args(problem, device, generator):
    m, n, dtype = problem["M"], problem["N"], problem["dtype"]
    x = random_normal((m, n), dtype, device, generator)
    return {
        "x_ptr": x,
        "residual_ptr": random_normal((m, n), dtype, device, generator),
        "weight_ptr": random_normal((n,), dtype, device, generator),
        "out_ptr": torch.empty_like(x),
        "new_residual_ptr": torch.empty_like(x),
        "n_rows": m,
        "hidden": n,
        "eps": 1e-6,
    }


def forward_reference(args):
    h = args["x_ptr"].float() + args["residual_ptr"].float()
    y = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + args["eps"])
    return {"out_ptr": y * args["weight_ptr"].float(), "new_residual_ptr": h}


def make_backward_args(problem, device, generator):
    m, n, dtype = problem["M"], problem["N"], problem["dtype"]
    x = random_normal((m, n), dtype, device, generator)
    return {
        "dy_ptr": random_normal((m, n), dtype, device, generator, scale=m**-0.5),
        "x_ptr": x,
        "w_ptr": random_normal((n,), dtype, device, generator),
        "rstd_ptr": torch.rsqrt(x.float().square().mean(-1) + 1e-6),
        "dx_ptr": torch.empty_like(x),
        "dw_partial_ptr": torch.zeros((n,), device=device),
        "n_rows": m,
        "n_cols": n,
        "WIDTH": triton.next_power_of_2(n),
    }


def backward_reference(args):
    dy, x, w = (args[name].float() for name in ("dy_ptr", "x_ptr", "w_ptr"))
    rstd = args["rstd_ptr"][:, None]
    xhat = x * rstd
    dx = (w * dy - xhat * (xhat * w * dy).mean(-1, keepdim=True)) * rstd
    return {"dx_ptr": dx, "dw_partial_ptr": (dy * xhat).sum(0)}


def _problem(m, n, dtype="bf16"):
    return {"M": m, "N": n, "dtype": dtype}


KERNELS = (
    SuiteKernel(
        fn=fused_add_rms_norm,
        space=ConfigSpace(
            ROWS_PER_BLOCK=[1, 2, 4, 8],
            BLOCK=[128, 256, 512, 1024, 2048, 4096, 8192],
            num_warps=[1, 2, 4, 8, 16],
            num_stages=[1, 2, 3],
            constraint=lambda c: (
                1 <= c["ROWS_PER_BLOCK"] * c["BLOCK"] // (32 * c["num_warps"]) <= 64
            ),
        ),
        problems=resized(
            (
                _problem(1, 4096),
                _problem(16, 8192),
                _problem(256, 2048),
                _problem(512, 5120, "fp16"),
                _problem(4096, 768, "fp32"),
                _problem(8192, 128),
                _problem(2048, 4096),
                _problem(8192, 4096, "fp16"),
                _problem(16384, 2880),
            ),
            "M",
            2,
        ),
        small=(_problem(3, 200, "fp32"), _problem(2, 130, "fp16")),
        make_args=make_forward_args,
        grid=lambda a: (triton.cdiv(a["n_rows"], a["ROWS_PER_BLOCK"]),),
        reference=forward_reference,
    ),
    SuiteKernel(
        fn=rms_norm_backward,
        space=ConfigSpace(
            PROGRAMS=[33, 66, 132, 264, 528, 1056, 2112],
            UNROLL=[1, 2, 4],
            num_warps=[1, 2, 4, 8, 16],
            num_stages=[1, 2, 3],
        ),
        problems=resized(
            (
                _problem(64, 1024),
                _problem(512, 2048, "fp16"),
                _problem(1024, 4096),
                _problem(4096, 768, "fp32"),
                _problem(4096, 4096),
                _problem(8192, 2048),
                _problem(16384, 1024, "fp16"),
                _problem(2048, 8192),
            ),
            "M",
            2,
        ),
        small=(_problem(7, 40, "fp32"),),
        make_args=make_backward_args,
        grid=lambda a: (a["PROGRAMS"],),
        reference=backward_reference,
        reset=("dw_partial_ptr",),
    ),
)
