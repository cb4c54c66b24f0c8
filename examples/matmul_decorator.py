"""A Triton matrix product tuned by ``@rlm_autotune``.

    python examples/matmul_decorator.py            # on a GPU
    TRITON_INTERPRET=1 python examples/matmul_decorator.py   # without one, in Triton's interpreter

Run it twice: the second run measures nothing, because the first one's measurements are in the store.
"""

from __future__ import annotations

import time

import torch
import triton
import triton.language as tl

from autotune_rlm import ConfigSpace, rlm_autotune


@rlm_autotune(
    configs=ConfigSpace(
        BLOCK_M=[16, 32, 64, 128],
        BLOCK_N=[16, 32, 64, 128],
        BLOCK_K=[16, 32, 64],
        num_warps=[4, 8],
        num_stages=[2, 3, 4],
        constraint=lambda c: c["BLOCK_M"] * c["BLOCK_N"] >= 512,
    ),
    key=["M", "N", "K"],
)
@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, c_ptr, M, N, K, stride_am, stride_ak, stride_bk, stride_bn, stride_cm, stride_cn,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
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


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``a @ b`` in fp32."""
    (m, k), n = a.shape, b.shape[1]
    c = torch.empty(m, n, device=a.device, dtype=torch.float32)

    def grid(meta):
        return triton.cdiv(m, meta["BLOCK_M"]), triton.cdiv(n, meta["BLOCK_N"])

    matmul_kernel[grid](a, b, c, m, n, k, *a.stride(), *b.stride(), *c.stride())
    return c


def main() -> None:
    device, size = ("cuda", 2048) if torch.cuda.is_available() else ("cpu", 64)
    a = torch.randn(size, size, device=device, dtype=torch.float16)
    b = torch.randn(size, size, device=device, dtype=torch.float16)
    begin = time.perf_counter()
    c = matmul(a, b)
    print(f"first launch: {time.perf_counter() - begin:.1f} s")
    print(f"chosen of {len(matmul_kernel.configs)}: {matmul_kernel.best_config}")
    print(f"largest error: {(c - a.float() @ b.float()).abs().max():.2g}")


if __name__ == "__main__":
    main()
