"""Quantisation of activations: int8 per row, and fp8 per group of columns."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_ints, random_normal, resized


@triton.jit
def quantize_rows_int8(x_ptr, q_ptr, scale_ptr, M, N, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    peak = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, N, BLOCK):
        cols = start + tl.arange(0, BLOCK)[None, :]
        mask = (rows < M) & (cols < N)
        x = tl.load(x_ptr + rows.to(tl.int64) * N + cols, mask=mask, other=0.0).to(tl.float32)
        peak = tl.maximum(peak, tl.abs(x))
    scale = tl.maximum(tl.max(peak, axis=1), 1e-8)[:, None] / 127.0
    tl.store(scale_ptr + rows, scale, mask=rows < M)
    for start in range(0, N, BLOCK):
        cols = start + tl.arange(0, BLOCK)[None, :]
        mask = (rows < M) & (cols < N)
        at = rows.to(tl.int64) * N + cols
        x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32) / scale
        rounded = tl.where(x >= 0, x + 0.5, x - 0.5)
        q = tl.minimum(tl.maximum(rounded, -127.0), 127.0).to(tl.int8)
        tl.store(q_ptr + at, q, mask=mask)


@triton.jit
def quantize_groups_fp8(
    x_ptr,
    q_ptr,
    s_ptr,
    n_groups,
    GROUP: tl.constexpr,
    FP8_MAX: tl.constexpr,
    GROUPS_PER_BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    for i in range(BLOCKS):
        first = (tl.program_id(0) * BLOCKS + i) * GROUPS_PER_BLOCK
        group = first + tl.arange(0, GROUPS_PER_BLOCK)
        live = group < n_groups
        at = group[:, None].to(tl.int64) * GROUP + tl.arange(0, GROUP)[None, :]
        x = tl.load(x_ptr + at, mask=live[:, None], other=0.0).to(tl.float32)
        scale = tl.maximum(tl.max(tl.abs(x), axis=1), 1e-6) / FP8_MAX
        q = tl.clamp(x / scale[:, None], -FP8_MAX, FP8_MAX).to(q_ptr.dtype.element_ty)
        tl.store(q_ptr + at, q, mask=live[:, None])
        tl.store(s_ptr + group, scale, mask=live)


def make_row_args(problem, device, generator):
    m, n = problem["M"], problem["N"]
    x = random_normal((m, n), problem["dtype"], device, generator)
    return {
        "x_ptr": x,
        "q_ptr": torch.empty((m, n), device=device, dtype=torch.int8),
        "scale_ptr": torch.empty((m,), device=device),
        "M": m,
        "N": n,
    }


def row_reference(args):
    x = args["x_ptr"].float()
    scale = x.abs().amax(1).clamp(min=1e-8) / 127
    return {"q_ptr": (x / scale[:, None]).round(), "scale_ptr": scale}


def make_group_args(problem, device, generator):
    m, n, group = problem["M"], problem["N"], problem["group"]
    if problem.get("exact"):
        # values that fp8 holds exactly: Triton's interpreter rounds others wrongly
        x = 64.0 * random_ints(-7, 8, (m, n), problem["dtype"], device, generator)
        x[:, ::group] = 448.0
    else:
        x = random_normal((m, n), problem["dtype"], device, generator)
    return {
        "x_ptr": x,
        "q_ptr": torch.empty((m, n), device=device, dtype=torch.float8_e4m3fn),
        "s_ptr": torch.empty((m, n // group), device=device),
        "n_groups": m * (n // group),
        "GROUP": group,
        "FP8_MAX": 448.0,
    }


def group_reference(args):
    x = args["x_ptr"].float().unflatten(-1, (-1, args["GROUP"]))
    scale = x.abs().amax(-1).clamp(min=1e-6) / args["FP8_MAX"]
    return {"s_ptr": scale, "q_ptr": (x / scale[..., None]).flatten(-2)}


def _rows(m, n, dtype="bf16"):
    return {"M": m, "N": n, "dtype": dtype}


def _groups(m, n, group=128, dtype="bf16"):
    return {"M": m, "N": n, "group": group, "dtype": dtype}


KERNELS = (
    SuiteKernel(
        fn=quantize_rows_int8,
        space=ConfigSpace(
            ROWS=[1, 2, 4, 8],
            BLOCK=[128, 256, 512, 1024, 2048, 4096, 8192],
            num_warps=[1, 2, 4, 8, 16],
            num_stages=[1, 2, 3],
            constraint=lambda c: 1 <= c["ROWS"] * c["BLOCK"] // (32 * c["num_warps"]) <= 64,
        ),
        problems=resized(
            (
                _rows(1, 4096),
                _rows(16, 11008),
                _rows(128, 1024, "fp16"),
                _rows(512, 4096, "fp32"),
                _rows(2048, 2048, "fp16"),
                _rows(4096, 14336),
                _rows(8192, 4096),
                _rows(20000, 768, "fp16"),
            ),
            "M",
            2,
        ),
        small=(_rows(3, 200, "fp32"), _rows(2, 100, "fp16")),
        make_args=make_row_args,
        grid=lambda a: (triton.cdiv(a["M"], a["ROWS"]),),
        reference=row_reference,
        tolerance=lambda problem: (2e-2, 1.01),  # a half may round either way
    ),
    SuiteKernel(
        fn=quantize_groups_fp8,
        space=ConfigSpace(
            GROUPS_PER_BLOCK=[1, 2, 4, 8, 16, 32, 64, 128],
            BLOCKS=[1, 2, 4, 8],
            num_warps=[1, 2, 4, 8],
            num_stages=[1, 2],
        ),
        problems=resized(
            (
                _groups(1, 7168),
                _groups(64, 2048),
                _groups(256, 7168, 128, "fp16"),
                _groups(1024, 4096, 64),
                _groups(4096, 2048),
                _groups(4096, 7168),
                _groups(8192, 4096, 128, "fp32"),
                _groups(16384, 1536, 32),
            ),
            "M",
            2,
        ),
        small=(_groups(3, 256, 128, "fp32") | {"exact": True},),
        make_args=make_group_args,
        grid=lambda a: (triton.cdiv(a["n_groups"], a["GROUPS_PER_BLOCK"] * a["BLOCKS"]),),
        reference=group_reference,
        tolerance=lambda problem: (8e-2, 1e-2),
        min_cuda=89,
    ),
)
