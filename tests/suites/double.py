"""A suite of one kernel, which tests record."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal


@triton.jit
def double(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, 2 * tl.load(x + at, at < n), at < n)


def make_args(problem, device, generator):
    x = random_normal((problem["n"],), "fp32", device, generator)
    return {"x": x, "y": torch.empty_like(x), "n": problem["n"]}


KERNEL = SuiteKernel(
    fn=double,
    space=ConfigSpace(BLOCK=[32, 64, 128], num_warps=[1, 2]),
    problems=({"n": 1024}, {"n": 4096}, {"n": 8192}),
    small=({"n": 100}, {"n": 33}),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["n"], a["BLOCK"]),),
    reference=lambda args: {"y": 2 * args["x"]},
)
