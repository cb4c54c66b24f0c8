"""Histogram of integers: every program counts its blocks, then adds to the bins."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_ints, resized


@triton.jit
def histogram_kernel(
    values,
    bins,
    n,
    NUM_BINS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS_PER_PROGRAM: tl.constexpr,
):
    counts = tl.zeros([NUM_BINS], dtype=tl.int32)
    start = tl.program_id(0).to(tl.int64) * BLOCK * BLOCKS_PER_PROGRAM
    padding = 0
    for i in range(BLOCKS_PER_PROGRAM):
        at = start + i * BLOCK + tl.arange(0, BLOCK)
        inside = at < n
        # what lies outside is counted in bin 0 and taken off again at the end
        counts += tl.histogram(tl.load(values + at, mask=inside, other=0), NUM_BINS)
        padding += tl.sum(tl.where(inside, 0, 1), axis=0)
    index = tl.arange(0, NUM_BINS)
    counts -= tl.where(index == 0, padding, 0)
    tl.atomic_add(bins + index, counts, mask=counts != 0, sem="relaxed")


def make_args(problem, device, generator):
    n, bins = problem["n"], problem["bins"]
    return {
        "values": random_ints(0, bins, (n,), "i32", device, generator),
        "bins": torch.zeros((bins,), device=device, dtype=torch.int32),
        "n": n,
        "NUM_BINS": bins,
    }


KERNEL = SuiteKernel(
    fn=histogram_kernel,
    space=ConfigSpace(
        BLOCK=[128, 256, 512, 1024, 2048, 4096, 8192],
        BLOCKS_PER_PROGRAM=[1, 2, 4, 8, 16, 32],
        num_warps=[1, 2, 4, 8, 16],
        constraint=lambda c: 1 <= c["BLOCK"] // (32 * c["num_warps"]) <= 64,
    ),
    problems=resized(
        (
            {"n": 65536, "bins": 256},
            {"n": 100000, "bins": 128},
            {"n": 1048576, "bins": 64},
            {"n": 1048576, "bins": 256},
            {"n": 4194304, "bins": 1024},
            {"n": 10000000, "bins": 512},
            {"n": 33554432, "bins": 256},
            {"n": 67108864, "bins": 128},
        ),
        "n",
        0.5,
    ),
    small=({"n": 1000, "bins": 16},),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["n"], a["BLOCK"] * a["BLOCKS_PER_PROGRAM"]),),
    reference=lambda args: {
        "bins": torch.bincount(args["values"].long(), minlength=args["NUM_BINS"])
    },
    reset=("bins",),
    tolerance=lambda problem: (0.0, 0.0),
)
