"""The kernels of ``autotune-rlm demo``: a matrix product and a softmax, as people write them."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def matmul(
    a_ptr, b_ptr, c_ptr, M, N, K, stride_am, stride_ak, stride_bk, stride_bn, stride_cm, stride_cn,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """``c = a @ b`` with one block of ``c`` per program, accumulated in fp32."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    a_at = a_ptr + rows[:, None] * stride_am + inner[None, :] * stride_ak
    b_at = b_ptr + inner[:, None] * stride_bk + columns[None, :] * stride_bn
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, tl.cdiv(K, BLOCK_K)):
        left = K - k * BLOCK_K
        a = tl.load(a_at, mask=(rows[:, None] < M) & (inner[None, :] < left), other=0.0)
        b = tl.load(b_at, mask=(inner[:, None] < left) & (columns[None, :] < N), other=0.0)
        total += tl.dot(a, b)
        a_at += BLOCK_K * stride_ak
        b_at += BLOCK_K * stride_bk
    c_at = c_ptr + rows[:, None] * stride_cm + columns[None, :] * stride_cn
    tl.store(c_at, total, mask=(rows[:, None] < M) & (columns[None, :] < N))


@triton.jit
def softmax(
    x_ptr, y_ptr, n_rows, n_columns, stride_x, stride_y,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Softmax of each row in two passes over it; bound by memory."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(0, n_columns, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        mask = (rows[:, None] < n_rows) & (columns[None, :] < n_columns)
        x_at = x_ptr + rows[:, None] * stride_x + columns[None, :]
        x = tl.load(x_at, mask=mask, other=-1e30).to(tl.float32)
        higher = tl.maximum(top, tl.max(x, axis=1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(x - higher[:, None]), axis=1)
        top = higher
    for start in range(0, n_columns, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        mask = (rows[:, None] < n_rows) & (columns[None, :] < n_columns)
        x_at = x_ptr + rows[:, None] * stride_x + columns[None, :]
        x = tl.load(x_at, mask=mask, other=-1e30).to(tl.float32)
        y = tl.exp(x - top[:, None]) / total[:, None]
        y_at = y_ptr + rows[:, None] * stride_y + columns[None, :]
        tl.store(y_at, y.to(y_ptr.dtype.element_ty), mask=mask)
