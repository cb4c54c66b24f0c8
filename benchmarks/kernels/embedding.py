"""Embedding lookup summed over bags of tokens."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_ints, random_normal, resized


@triton.jit
def embedding_bag(
    ids_ptr,
    table_ptr,
    out_ptr,
    n_bags,
    dim,
    BAG: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    bags = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    cols = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    mask = (bags < n_bags)[:, None] & (cols < dim)[None, :]
    acc = tl.zeros([BLOCK_B, BLOCK_D], dtype=tl.float32)
    for i in range(BAG):
        ids = tl.load(ids_ptr + bags * BAG + i, mask=bags < n_bags, other=0)
        acc += tl.load(table_ptr + ids[:, None] * dim + cols[None, :], mask=mask, other=0.0)
    out_at = bags[:, None].to(tl.int64) * dim + cols[None, :]
    tl.store(out_ptr + out_at, acc.to(out_ptr.dtype.element_ty), mask=mask)


def make_args(problem, device, generator):
    bags, bag, vocab, dim = (problem[name] for name in ("bags", "bag", "vocab", "dim"))
    table = random_normal((vocab, dim), problem["dtype"], device, generator, scale=bag**-0.5)
    return {
        "ids_ptr": random_ints(0, vocab, (bags, bag), "i64", device, generator),
        "table_ptr": table,
        "out_ptr": torch.empty((bags, dim), device=device, dtype=table.dtype),
        "n_bags": bags,
        "dim": dim,
        "BAG": bag,
    }


def _problem(bags, bag, vocab, dim, dtype="fp16"):
    return {"bags": bags, "bag": bag, "vocab": vocab, "dim": dim, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=embedding_bag,
    space=ConfigSpace(
        BLOCK_B=[1, 2, 4, 8, 16, 32, 64],
        BLOCK_D=[32, 64, 128, 256, 512, 1024],
        num_warps=[1, 2, 4, 8],
        num_stages=[1, 2, 3],
        constraint=lambda c: 1 <= c["BLOCK_B"] * c["BLOCK_D"] // (32 * c["num_warps"]) <= 64,
    ),
    problems=resized(
        (
            _problem(128, 1, 32000, 4096),
            _problem(4096, 1, 50257, 768, "fp32"),
            _problem(8192, 1, 128256, 2048, "bf16"),
            _problem(1024, 8, 100000, 128, "fp32"),
            _problem(16384, 4, 100000, 64),
            _problem(4096, 20, 200000, 128),
            _problem(32768, 2, 50000, 256, "bf16"),
            _problem(2048, 64, 100000, 96, "fp32"),
        ),
        "bags",
        0.5,
    ),
    small=(_problem(5, 3, 20, 40, "fp32"), _problem(4, 1, 10, 33)),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["n_bags"], a["BLOCK_B"]), triton.cdiv(a["dim"], a["BLOCK_D"])),
    reference=lambda args: {"out_ptr": args["table_ptr"][args["ids_ptr"]].float().sum(1)},
)
