"""Two-dimensional convolution as an implicit matrix product, channels last."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def conv2d_nhwc(
    x_ptr,
    w_ptr,
    bias_ptr,
    y_ptr,
    BATCH,
    H,
    W,
    C,
    OUT_H,
    OUT_W,
    OUT_C,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    BLOCK_NHW: tl.constexpr,
    BLOCK_CO: tl.constexpr,
    BLOCK_CI: tl.constexpr,
):
    # x is (BATCH, H, W, C), w is (KERNEL_H, KERNEL_W, C, OUT_C), y is (BATCH, OUT_H, OUT_W, OUT_C)
    pixel = tl.program_id(0) * BLOCK_NHW + tl.arange(0, BLOCK_NHW)
    co = tl.program_id(1) * BLOCK_CO + tl.arange(0, BLOCK_CO)
    n = pixel // (OUT_H * OUT_W)
    oh = (pixel // OUT_W) % OUT_H
    ow = pixel % OUT_W
    acc = tl.zeros((BLOCK_NHW, BLOCK_CO), dtype=tl.float32)
    blocks_ci = tl.cdiv(C, BLOCK_CI)
    for step in range(KERNEL_H * KERNEL_W * blocks_ci):
        ci = (step % blocks_ci) * BLOCK_CI + tl.arange(0, BLOCK_CI)
        tap = step // blocks_ci
        kh = tap // KERNEL_W
        kw = tap % KERNEL_W
        ih = oh * STRIDE - PADDING + kh
        iw = ow * STRIDE - PADDING + kw
        inside = (n < BATCH) & (ih >= 0) & (ih < H) & (iw >= 0) & (iw < W)
        x_at = ((n * H + ih) * W + iw)[:, None] * C + ci[None, :]
        w_at = (tap * C + ci)[:, None] * OUT_C + co[None, :]
        x = tl.load(x_ptr + x_at, mask=inside[:, None] & (ci < C)[None, :], other=0.0)
        w = tl.load(w_ptr + w_at, mask=(ci < C)[:, None] & (co < OUT_C)[None, :], other=0.0)
        acc = tl.dot(x, w, acc)
    acc += tl.load(bias_ptr + co, mask=co < OUT_C, other=0.0).to(tl.float32)[None, :]
    y = tl.maximum(acc, 0.0)
    keep = (n < BATCH)[:, None] & (co < OUT_C)[None, :]
    y_at = pixel[:, None] * OUT_C + co[None, :]
    tl.store(y_ptr + y_at, y.to(y_ptr.dtype.element_ty), mask=keep)


def make_args(problem, device, generator):
    n, hw, c, co, k, stride = (problem[x] for x in ("N", "HW", "C", "CO", "K", "stride"))
    pad, dtype = k // 2, problem["dtype"]
    out = (hw + 2 * pad - k) // stride + 1
    x = random_normal((n, hw, hw, c), dtype, device, generator)
    fan_in = k * k * c
    return {
        "x_ptr": x,
        "w_ptr": random_normal((k, k, c, co), dtype, device, generator, scale=fan_in**-0.5),
        "bias_ptr": random_normal((co,), dtype, device, generator),
        "y_ptr": torch.empty((n, out, out, co), device=device, dtype=x.dtype),
        "BATCH": n,
        "H": hw,
        "W": hw,
        "C": c,
        "OUT_H": out,
        "OUT_W": out,
        "OUT_C": co,
        "KERNEL_H": k,
        "KERNEL_W": k,
        "STRIDE": stride,
        "PADDING": pad,
    }


def reference(args):
    y = torch.nn.functional.conv2d(
        args["x_ptr"].float().permute(0, 3, 1, 2),
        args["w_ptr"].float().permute(3, 2, 0, 1),
        args["bias_ptr"].float(),
        stride=args["STRIDE"],
        padding=args["PADDING"],
    )
    return {"y_ptr": torch.relu(y).permute(0, 2, 3, 1)}


def _problem(n, hw, c, co, k, stride=1, dtype="fp16"):
    return {"N": n, "HW": hw, "C": c, "CO": co, "K": k, "stride": stride, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=conv2d_nhwc,
    space=ConfigSpace(
        BLOCK_NHW=[16, 32, 64, 128, 256],
        BLOCK_CO=[16, 32, 64, 128, 256],
        BLOCK_CI=[16, 32, 64],
        num_warps=[2, 4, 8],
        num_stages=[1, 2, 3, 4],
        constraint=lambda c: c["BLOCK_NHW"] * c["BLOCK_CO"] <= 32768,
    ),
    problems=resized(
        (
            _problem(1, 56, 64, 64, 3),
            _problem(8, 224, 3, 64, 7, 2),
            _problem(16, 56, 64, 256, 1),
            _problem(32, 28, 128, 128, 3),
            _problem(32, 28, 128, 256, 3, 2, "bf16"),
            _problem(64, 14, 256, 256, 3),
            _problem(64, 7, 512, 512, 3),
            _problem(1, 128, 320, 320, 3, 1, "bf16"),
            _problem(4, 64, 640, 640, 3),
        ),
        "HW",
        0.5,
    ),
    small=(_problem(2, 6, 8, 12, 3), _problem(1, 7, 3, 5, 3, 2)),
    make_args=make_args,
    grid=lambda a: (
        triton.cdiv(a["BATCH"] * a["OUT_H"] * a["OUT_W"], a["BLOCK_NHW"]),
        triton.cdiv(a["OUT_C"], a["BLOCK_CO"]),
    ),
    reference=reference,
)
