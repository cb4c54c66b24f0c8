"""Group normalisation with SiLU, channels last, as in diffusion models."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def group_norm_silu(
    x_ptr,
    w_ptr,
    b_ptr,
    y_ptr,
    pixels,
    channels,
    groups,
    eps,
    GROUP_C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    # x and y are (batch, pixels, channels) with GROUP_C = channels / groups
    batch = tl.program_id(0) // groups
    group = tl.program_id(0) % groups
    c = tl.arange(0, BLOCK_C)
    base = batch.to(tl.int64) * pixels * channels + group * GROUP_C
    mean = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    square = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for p0 in range(0, pixels, BLOCK_P):
        p = p0 + tl.arange(0, BLOCK_P)
        mask = (p < pixels)[:, None] & (c < GROUP_C)[None, :]
        x = tl.load(x_ptr + base + p[:, None] * channels + c[None, :], mask=mask, other=0.0)
        x = x.to(tl.float32)
        mean += x
        square += x * x
    count = pixels * GROUP_C
    mu = tl.sum(mean) / count
    var = tl.maximum(tl.sum(square) / count - mu * mu, 0.0)
    rstd = 1.0 / tl.sqrt(var + eps)
    w = tl.load(w_ptr + group * GROUP_C + c, mask=c < GROUP_C, other=0.0).to(tl.float32)
    b = tl.load(b_ptr + group * GROUP_C + c, mask=c < GROUP_C, other=0.0).to(tl.float32)
    for p0 in range(0, pixels, BLOCK_P):
        p = p0 + tl.arange(0, BLOCK_P)
        mask = (p < pixels)[:, None] & (c < GROUP_C)[None, :]
        at = base + p[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
        y = (x - mu) * rstd * w[None, :] + b[None, :]
        tl.store(y_ptr + at, (y * tl.sigmoid(y)).to(y_ptr.dtype.element_ty), mask=mask)


def make_args(problem, device, generator):
    n, p, c, g = (problem[name] for name in ("N", "pixels", "C", "groups"))
    x = random_normal((n, p, c), problem["dtype"], device, generator)
    return {
        "x_ptr": x,
        "w_ptr": random_normal((c,), problem["dtype"], device, generator),
        "b_ptr": random_normal((c,), problem["dtype"], device, generator),
        "y_ptr": torch.empty_like(x),
        "pixels": p,
        "channels": c,
        "groups": g,
        "eps": 1e-5,
        "GROUP_C": c // g,
        "BLOCK_C": triton.next_power_of_2(c // g),
    }


def reference(args):
    x = args["x_ptr"].float().transpose(1, 2)
    y = torch.nn.functional.group_norm(
        x, args["groups"], args["w_ptr"].float(), args["b_ptr"].float(), args["eps"]
    )
    return {"y_ptr": torch.nn.functional.silu(y).transpose(1, 2)}


def _problem(n, side, c, groups=32, dtype="fp16"):
    return {"N": n, "pixels": side * side, "C": c, "groups": groups, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=group_norm_silu,
    space=ConfigSpace(
        BLOCK_P=[8, 16, 32, 64, 128, 256, 512],
        num_warps=[1, 2, 4, 8, 16],
        num_stages=[1, 2, 3, 4],
    ),
    problems=resized(
        (
            _problem(1, 32, 1280),
            _problem(2, 64, 320),
            _problem(2, 64, 640, 32, "bf16"),
            _problem(4, 16, 2560),
            _problem(8, 32, 640, 32, "fp32"),
            _problem(1, 128, 512, 32, "bf16"),
            _problem(16, 8, 1280),
            _problem(2, 128, 320),
        ),
        "N",
        2,
    ),
    small=(_problem(1, 4, 24, 4, "fp32"), _problem(2, 3, 12, 3)),
    make_args=make_args,
    grid=lambda a: (a["x_ptr"].shape[0] * a["groups"],),
    reference=reference,
)
