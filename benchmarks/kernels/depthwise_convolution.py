"""Depthwise convolutions: over images, and causal over sequences with SiLU as in Mamba."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def depthwise_conv2d(
    x_ptr,
    w_ptr,
    y_ptr,
    H,
    W,
    C,
    K: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ROWS: tl.constexpr,
):
    # x and y are (batch, H, W, C), w is (K, K, C); same padding, stride one
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    w_block = tl.program_id(1) % tl.cdiv(W, BLOCK_W)
    h_block = tl.program_id(1) // tl.cdiv(W, BLOCK_W)
    col = w_block * BLOCK_W + tl.arange(0, BLOCK_W)
    base = tl.program_id(2).to(tl.int64) * H * W * C
    for r in range(ROWS):
        row = h_block * ROWS + r + tl.zeros_like(col)
        acc = tl.zeros([BLOCK_W, BLOCK_C], dtype=tl.float32)
        for kh in tl.static_range(K):
            for kw in tl.static_range(K):
                ih = row + kh - K // 2
                iw = col + kw - K // 2
                inside = (iw >= 0) & (iw < W) & (ih >= 0) & (ih < H)
                at = base + (ih * W + iw)[:, None] * C + c[None, :]
                x = tl.load(x_ptr + at, mask=inside[:, None] & (c < C)[None, :], other=0.0)
                w = tl.load(w_ptr + (kh * K + kw) * C + c, mask=c < C, other=0.0)
                acc += x.to(tl.float32) * w.to(tl.float32)[None, :]
        keep = ((col < W) & (row < H))[:, None] & (c < C)[None, :]
        at = base + (row * W + col)[:, None] * C + c[None, :]
        tl.store(y_ptr + at, acc.to(y_ptr.dtype.element_ty), mask=keep)


@triton.jit
def causal_conv1d(
    x,
    weight,
    bias,
    out,
    seq_len,
    dim,
    WIDTH: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # x and out are (batch, seq_len, dim), weight is (WIDTH, dim)
    d = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    t = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    base = tl.program_id(2).to(tl.int64) * seq_len * dim
    in_d = d < dim
    acc = tl.load(bias + d, mask=in_d, other=0.0).to(tl.float32)[None, :]
    acc = tl.zeros([BLOCK_T, BLOCK_D], tl.float32) + acc
    for j in tl.static_range(WIDTH):
        source = t - (WIDTH - 1) + j
        mask = ((source >= 0) & (source < seq_len))[:, None] & in_d[None, :]
        v = tl.load(x + base + source[:, None] * dim + d[None, :], mask=mask, other=0.0)
        w = tl.load(weight + j * dim + d, mask=in_d, other=0.0)
        acc += v.to(tl.float32) * w.to(tl.float32)[None, :]
    acc = acc / (1.0 + tl.exp(-acc))
    mask = (t < seq_len)[:, None] & in_d[None, :]
    tl.store(out + base + t[:, None] * dim + d[None, :], acc.to(out.dtype.element_ty), mask=mask)


def make_image_args(problem, device, generator):
    n, hw, c, k = (problem[name] for name in ("N", "HW", "C", "K"))
    x = random_normal((n, hw, hw, c), problem["dtype"], device, generator)
    return {
        "x_ptr": x,
        "w_ptr": random_normal((k, k, c), problem["dtype"], device, generator, scale=1 / k),
        "y_ptr": torch.empty_like(x),
        "H": hw,
        "W": hw,
        "C": c,
        "K": k,
    }


def image_reference(args):
    x = args["x_ptr"].float().permute(0, 3, 1, 2)
    w = args["w_ptr"].float().permute(2, 0, 1)[:, None]
    y = torch.nn.functional.conv2d(x, w, padding=args["K"] // 2, groups=args["C"])
    return {"y_ptr": y.permute(0, 2, 3, 1)}


def make_sequence_args(problem, device, generator):
    b, t, d, dtype = (problem[name] for name in ("B", "T", "D", "dtype"))
    x = random_normal((b, t, d), dtype, device, generator)
    return {
        "x": x,
        "weight": random_normal((problem["width"], d), dtype, device, generator, scale=0.5),
        "bias": random_normal((d,), dtype, device, generator),
        "out": torch.empty_like(x),
        "seq_len": t,
        "dim": d,
        "WIDTH": problem["width"],
    }


def sequence_reference(args):
    x = args["x"].float().transpose(1, 2)
    x = torch.nn.functional.pad(x, (args["WIDTH"] - 1, 0))
    w = args["weight"].float().T[:, None]
    y = torch.nn.functional.conv1d(x, w, args["bias"].float(), groups=args["dim"])
    return {"out": torch.nn.functional.silu(y).transpose(1, 2)}


def _image(n, hw, c, k, dtype="fp16"):
    return {"N": n, "HW": hw, "C": c, "K": k, "dtype": dtype}


def _sequence(b, t, d, width=4, dtype="bf16"):
    return {"B": b, "T": t, "D": d, "width": width, "dtype": dtype}


KERNELS = (
    SuiteKernel(
        fn=depthwise_conv2d,
        space=ConfigSpace(
            BLOCK_W=[1, 2, 4, 8, 16, 32],
            BLOCK_C=[16, 32, 64, 128, 256],
            ROWS=[1, 2, 4],
            num_warps=[1, 2, 4, 8],
            constraint=lambda c: 1 <= c["BLOCK_W"] * c["BLOCK_C"] // (32 * c["num_warps"]) <= 32,
        ),
        problems=resized(
            (
                _image(1, 112, 32, 3),
                _image(8, 112, 96, 3),
                _image(8, 56, 144, 3, "fp32"),
                _image(32, 56, 96, 7),
                _image(32, 28, 192, 5),
                _image(64, 14, 384, 7, "bf16"),
                _image(64, 14, 480, 3),
                _image(128, 7, 768, 7, "bf16"),
            ),
            "N",
            2,
        ),
        small=(_image(1, 6, 20, 3, "fp32"),),
        make_args=make_image_args,
        grid=lambda a: (
            triton.cdiv(a["C"], a["BLOCK_C"]),
            triton.cdiv(a["W"], a["BLOCK_W"]) * triton.cdiv(a["H"], a["ROWS"]),
            a["x_ptr"].shape[0],
        ),
        reference=image_reference,
    ),
    SuiteKernel(
        fn=causal_conv1d,
        space=ConfigSpace(
            BLOCK_T=[1, 4, 8, 16, 32, 64, 128],
            BLOCK_D=[16, 32, 64, 128, 256, 512],
            num_warps=[1, 2, 4, 8],
            constraint=lambda c: 1 <= c["BLOCK_T"] * c["BLOCK_D"] // (32 * c["num_warps"]) <= 64,
        ),
        problems=resized(
            (
                _sequence(1, 512, 1536),
                _sequence(8, 256, 768, 3),
                _sequence(4, 1024, 2048, 4, "fp32"),
                _sequence(1, 8192, 2048),
                _sequence(8, 2048, 1536),
                _sequence(2, 4096, 5120, 4, "fp16"),
                _sequence(64, 128, 1024, 2),
                _sequence(16, 1000, 1000),
            ),
            "B",
            2,
        ),
        small=(_sequence(2, 20, 30, 4, "fp32"), _sequence(1, 9, 17, 2, "fp16")),
        make_args=make_sequence_args,
        grid=lambda a: (
            triton.cdiv(a["dim"], a["BLOCK_D"]),
            triton.cdiv(a["seq_len"], a["BLOCK_T"]),
            a["x"].shape[0],
        ),
        reference=sequence_reference,
    ),
)
