"""Dropout with a seed in place of a stored mask, fused with bias and GELU."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def bias_gelu_dropout(
    x_ptr,
    bias_ptr,
    y_ptr,
    keep_ptr,
    n_elements,
    n_cols,
    p,
    seed,
    BLOCK_SIZE: tl.constexpr,
    ITEMS: tl.constexpr,
):
    for item in range(ITEMS):
        block = tl.program_id(0) * ITEMS + item
        offsets = block * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
        mask = offsets < n_elements
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        x += tl.load(bias_ptr + offsets % n_cols, mask=mask, other=0.0).to(tl.float32)
        y = x * 0.5 * (1.0 + tl.erf(x * 0.70710678118))
        keep = tl.rand(seed, offsets) > p
        y = tl.where(keep, y / (1 - p), 0.0)
        tl.store(keep_ptr + offsets, keep.to(tl.int8), mask=mask)
        tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)


def make_args(problem, device, generator):
    rows, cols = problem["rows"], problem["cols"]
    x = random_normal((rows, cols), problem["dtype"], device, generator)
    return {
        "x_ptr": x,
        "bias_ptr": random_normal((cols,), problem["dtype"], device, generator),
        "y_ptr": torch.empty_like(x),
        "keep_ptr": torch.empty(x.shape, device=device, dtype=torch.int8),
        "n_elements": x.numel(),
        "n_cols": cols,
        "p": problem["p"],
        "seed": 1234,
    }


def philox_uniform(seed, n, device):
    """What ``tl.rand(seed, arange(n))`` draws: ten rounds of Philox 4x32 (Salmon et al., 2011)."""
    word = 0xFFFFFFFF
    c0 = torch.arange(n, device=device)
    c1 = c2 = c3 = torch.zeros_like(c0)
    k0, k1 = seed & word, (seed >> 32) & word
    for _ in range(10):
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c2 = ((b >> 32) & word) ^ c1 ^ k0, ((a >> 32) & word) ^ c3 ^ k1
        c1, c3 = b & word, a & word
        k0, k1 = (k0 + 0x9E3779B9) & word, (k1 + 0xBB67AE85) & word
    signed = torch.where(c0 >= 2**31, c0 - 2**32, c0)
    return torch.where(signed < 0, -signed - 1, signed).float() * 4.6566127342e-10


def reference(args):
    x = args["x_ptr"].float() + args["bias_ptr"].float()
    keep = philox_uniform(args["seed"], x.numel(), x.device).reshape(x.shape) > args["p"]
    y = torch.nn.functional.gelu(x) / (1 - args["p"])
    return {"keep_ptr": keep, "y_ptr": torch.where(keep, y, 0.0)}


def _problem(rows, cols, p, dtype="fp16"):
    return {"rows": rows, "cols": cols, "p": p, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=bias_gelu_dropout,
    space=ConfigSpace(
        BLOCK_SIZE=[64, 128, 256, 512, 1024, 2048, 4096],
        ITEMS=[1, 2, 4, 8],
        num_warps=[1, 2, 4, 8, 16],
        num_stages=[1, 2, 3],
        constraint=lambda c: 1 <= c["BLOCK_SIZE"] // (32 * c["num_warps"]) <= 32,
    ),
    problems=resized(
        (
            _problem(8, 4096, 0.1),
            _problem(128, 3072, 0.1),
            _problem(512, 1000, 0.5, "fp32"),
            _problem(1024, 4096, 0.1, "bf16"),
            _problem(2048, 2048, 0.2, "fp32"),
            _problem(4096, 3072, 0.1),
            _problem(8192, 4096, 0.1, "bf16"),
            _problem(20000, 768, 0.3),
        ),
        "rows",
        0.5,
    ),
    small=(_problem(4, 70, 0.3, "fp32"), _problem(3, 40, 0.1)),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["n_elements"], a["BLOCK_SIZE"] * a["ITEMS"]),),
    reference=reference,
)
