"""Cumulative sum along rows, with a carry from block to block; forward or reverse."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def row_cumsum(s, o, T, D, REVERSE: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr):
    # s and o are (batch, T, D); the sum runs along T
    i_d, i_b = tl.program_id(0), tl.program_id(1)
    base = i_b.to(tl.int64) * T * D
    d = i_d * BD + tl.arange(0, BD)
    carry = tl.zeros([BD], dtype=tl.float32)
    for i_t in range(tl.cdiv(T, BT)):
        block = tl.cdiv(T, BT) - 1 - i_t if REVERSE else i_t
        t = block * BT + tl.arange(0, BT)
        mask = (t < T)[:, None] & (d < D)[None, :]
        at = base + t[:, None] * D + d[None, :]
        x = tl.load(s + at, mask=mask, other=0.0).to(tl.float32)
        c = tl.cumsum(x, axis=0, reverse=REVERSE) + carry[None, :]
        tl.store(o + at, c.to(o.dtype.element_ty), mask=mask)
        carry += tl.sum(x, axis=0)


def make_args(problem, device, generator):
    shape = (problem["B"], problem["T"], problem["D"])
    x = random_normal(shape, problem["dtype"], device, generator, scale=shape[1] ** -0.5)
    return {
        "s": x,
        "o": torch.empty(shape, device=device, dtype=torch.float32),
        "T": shape[1],
        "D": shape[2],
        "REVERSE": problem["reverse"],
    }


def reference(args):
    x = args["s"].float()
    if args["REVERSE"]:
        return {"o": x.flip(1).cumsum(1).flip(1)}
    return {"o": x.cumsum(1)}


def _problem(b, t, d, reverse=False, dtype="fp32"):
    return {"B": b, "T": t, "D": d, "reverse": reverse, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=row_cumsum,
    space=ConfigSpace(
        BT=[16, 32, 64, 128, 256],
        BD=[1, 4, 8, 16, 32, 64],
        num_warps=[1, 2, 4, 8],
        num_stages=[1, 2, 3],
        constraint=lambda c: 1 <= c["BT"] * c["BD"] // (32 * c["num_warps"]) <= 32,
    ),
    problems=resized(
        (
            _problem(1, 4096, 32),
            _problem(8, 1024, 64),
            _problem(16, 2048, 16, True),
            _problem(4, 8192, 64, dtype="bf16"),
            _problem(64, 512, 128, True),
            _problem(2048, 1000, 1),
            _problem(32, 2048, 256, dtype="fp16"),
            _problem(2, 32768, 128),
        ),
        "B",
        2,
    ),
    small=(_problem(2, 50, 6), _problem(1, 40, 5, True)),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["D"], a["BD"]), a["s"].shape[0]),
    reference=reference,
)
