"""Kernels that the tests compile; importing the whole file is an error on purpose."""

import triton
import triton.language as tl

SCALE = tl.constexpr(2.0)


@triton.jit
def twice(x):
    return x * SCALE


@triton.heuristics({"EVEN": lambda args: args["n"] % args["BLOCK"] == 0})
@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr, EVEN: tl.constexpr, UNUSED: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    value = tl.load(x + at, mask=mask) + twice(tl.load(y + at, mask=mask))
    if UNUSED == 666:
        value += 1
    tl.store(out + at, value, mask=mask)


@triton.jit
def endless(x, n: tl.constexpr):
    for i in tl.static_range(n):
        tl.store(x + i, tl.load(x + i * 3) + i)


def _refuse():
    import sys

    if "pytest" not in sys.modules:
        raise RuntimeError("the whole file was run")


_refuse()
