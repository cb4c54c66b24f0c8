"""A small library of two kernels that share a store and pick their mode by setting.

    TRITON_INTERPRET=1 python examples/library_of_kernels.py

In development the kernels tune themselves. In production ``AUTOTUNE_RLM_MODE=predict`` takes the best
known configuration, or the model's choice where nothing was measured, and never waits.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl

from autotune_rlm import rlm_autotune

tuned = functools.partial(
    rlm_autotune,
    configs=[
        triton.Config({"BLOCK": block}, num_warps=warps)
        for block in (256, 512, 1024, 2048)
        for warps in (2, 4, 8)
    ],
    budget=6,
)


@tuned(key=["n"])
@triton.jit
def swiglu_kernel(gate, up, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(gate + at, mask=at < n).to(tl.float32)
    u = tl.load(up + at, mask=at < n).to(tl.float32)
    tl.store(out + at, g * tl.sigmoid(g) * u, mask=at < n)


@tuned(key=["n"], restore_value=["weights"])
@triton.jit
def decay_kernel(weights, n, rate, BLOCK: tl.constexpr):
    """Changes its argument: ``restore_value`` undoes what the search did to it."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    w = tl.load(weights + at, mask=at < n)
    tl.store(weights + at, w * (1.0 - rate), mask=at < n)


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up``."""
    out = torch.empty_like(gate)
    n = gate.numel()
    swiglu_kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](gate, up, out, n)
    return out


def decay_(weights: torch.Tensor, rate: float) -> None:
    """``weights *= 1 - rate`` in place."""
    n = weights.numel()
    decay_kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](weights, n, rate)


def main() -> None:
    device, n = ("cuda", 1 << 22) if torch.cuda.is_available() else ("cpu", 1 << 12)
    gate, up = torch.randn(n, device=device), torch.randn(n, device=device)
    error = swiglu(gate, up) - torch.nn.functional.silu(gate) * up
    print(f"swiglu: {swiglu_kernel.best_config}, largest error {error.abs().max():.2g}")
    before = gate.clone()
    decay_(gate, 0.1)
    error = gate - 0.9 * before
    print(f"decay:  {decay_kernel.best_config}, largest error {error.abs().max():.2g}")


if __name__ == "__main__":
    main()
