"""Kernels of the tests, at the top level of a file as compile workers need them."""

import triton
import triton.language as tl

FACTOR = tl.constexpr(2)


@triton.jit
def twice(value):
    """A device function."""
    return value * FACTOR


@triton.jit
def scale(x, y, n, BLOCK: tl.constexpr):
    """Doubles a vector."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, twice(tl.load(x + at, mask=at < n)), mask=at < n)


@triton.jit
def picky(x, y, n, BLOCK: tl.constexpr):
    """Does not compile with a block of 32."""
    tl.static_assert(BLOCK != 32, "a block of 32 is too small")
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < n), mask=at < n)


@triton.jit
def product(a, b, c, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """One block of a matrix product, which needs shared memory."""
    m, n, k = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    left = tl.load(a + m[:, None] * BLOCK_K + k[None, :])
    right = tl.load(b + k[:, None] * BLOCK_N + n[None, :])
    tl.store(c + m[:, None] * BLOCK_N + n[None, :], tl.dot(left, right))


@triton.jit
def masked(x, y, n, EVEN: tl.constexpr, BLOCK: tl.constexpr):
    """Needs no mask where the size is a multiple of the block."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if EVEN:
        tl.store(y + at, tl.load(x + at))
    else:
        tl.store(y + at, tl.load(x + at, mask=at < n), mask=at < n)
