"""Transpose of the last two axes."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def transpose_2d(
    src, dst, rows, cols, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, COLUMN_MAJOR: tl.constexpr
):
    blocks_r = tl.cdiv(rows, BLOCK_R)
    blocks_c = tl.cdiv(cols, BLOCK_C)
    pid = tl.program_id(0)
    if COLUMN_MAJOR:
        pid_r, pid_c = pid % blocks_r, pid // blocks_r
    else:
        pid_r, pid_c = pid // blocks_c, pid % blocks_c
    base = tl.program_id(1).to(tl.int64) * rows * cols
    r = pid_r * BLOCK_R + tl.arange(0, BLOCK_R)
    c = pid_c * BLOCK_C + tl.arange(0, BLOCK_C)
    tile = tl.load(
        src + base + r[:, None] * cols + c[None, :], mask=(r[:, None] < rows) & (c[None, :] < cols)
    )
    tl.store(
        dst + base + c[:, None] * rows + r[None, :],
        tl.trans(tile),
        mask=(c[:, None] < cols) & (r[None, :] < rows),
    )


def make_args(problem, device, generator):
    b, m, n = (problem[name] for name in "BMN")
    x = random_normal((b, m, n), problem["dtype"], device, generator)
    return {
        "src": x,
        "dst": torch.empty((b, n, m), device=device, dtype=x.dtype),
        "rows": m,
        "cols": n,
    }


def _problem(b, m, n, dtype="fp16"):
    return {"B": b, "M": m, "N": n, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=transpose_2d,
    space=ConfigSpace(
        BLOCK_R=[8, 16, 32, 64, 128, 256],
        BLOCK_C=[8, 16, 32, 64, 128, 256],
        COLUMN_MAJOR=[False, True],
        num_warps=[1, 2, 4, 8],
        constraint=lambda c: 2 <= c["BLOCK_R"] * c["BLOCK_C"] // (32 * c["num_warps"]) <= 128,
    ),
    problems=resized(
        (
            _problem(1, 512, 512),
            _problem(1, 1000, 3000, "fp32"),
            _problem(64, 128, 64),
            _problem(1, 4096, 4096),
            _problem(16, 512, 768, "fp32"),
            _problem(1, 8192, 8192, "bf16"),
            _problem(256, 197, 64),
            _problem(1, 65536, 256, "fp32"),
        ),
        "B",
        2,
    ),
    small=(_problem(2, 20, 34, "fp32"),),
    make_args=make_args,
    grid=lambda a: (
        triton.cdiv(a["rows"], a["BLOCK_R"]) * triton.cdiv(a["cols"], a["BLOCK_C"]),
        a["src"].shape[0],
    ),
    reference=lambda args: {"dst": args["src"].transpose(1, 2)},
    tolerance=lambda problem: (0.0, 0.0),
)
