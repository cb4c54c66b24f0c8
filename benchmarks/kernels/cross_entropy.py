"""Cross-entropy of logits: loss and gradient in one launch, with label smoothing."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_ints, random_normal, resized


@triton.jit
def cross_entropy_kernel(
    logits_ptr,
    target_ptr,
    loss_ptr,
    grad_ptr,
    n_rows,
    vocab,
    ignore_index,
    label_smoothing,
    inv_count,
    SMOOTH: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * vocab
    grad_ptr += row * vocab
    target = tl.load(target_ptr + row)
    if target == ignore_index:
        tl.store(loss_ptr + row, 0.0)
        for i in range(0, vocab, BLOCK_V):
            cols = i + tl.arange(0, BLOCK_V)
            tl.store(grad_ptr + cols, tl.zeros([BLOCK_V], grad_ptr.dtype.element_ty), cols < vocab)
        return
    m = float("-inf")
    d = 0.0
    total = 0.0
    for i in range(0, vocab, BLOCK_V):
        cols = i + tl.arange(0, BLOCK_V)
        x = tl.load(logits_ptr + cols, mask=cols < vocab, other=float("-inf")).to(tl.float32)
        if SMOOTH:
            total += tl.sum(tl.where(cols < vocab, x, 0.0))
        block_max = tl.max(x)
        m_new = tl.maximum(m, block_max)
        d = d * tl.exp(m - m_new) + tl.sum(tl.exp(x - m_new))
        m = m_new
    lse = m + tl.log(d)
    picked = tl.load(logits_ptr + target).to(tl.float32)
    loss = lse - picked
    if SMOOTH:
        loss = (1 - label_smoothing) * loss + label_smoothing * (lse - total / vocab)
    tl.store(loss_ptr + row, loss * inv_count)
    for i in range(0, vocab, BLOCK_V):
        cols = i + tl.arange(0, BLOCK_V)
        x = tl.load(logits_ptr + cols, mask=cols < vocab, other=float("-inf")).to(tl.float32)
        g = tl.exp(x - lse)
        if SMOOTH:
            g -= label_smoothing / vocab
            g = tl.where(cols == target, g - (1 - label_smoothing), g)
        else:
            g = tl.where(cols == target, g - 1.0, g)
        tl.store(grad_ptr + cols, (g * inv_count).to(grad_ptr.dtype.element_ty), cols < vocab)


def make_args(problem, device, generator):
    rows, vocab, smoothing = problem["rows"], problem["vocab"], problem.get("smoothing", 0.0)
    logits = random_normal((rows, vocab), problem["dtype"], device, generator, scale=2.0)
    return {
        "logits_ptr": logits,
        "target_ptr": random_ints(-1, vocab, (rows,), "i64", device, generator),
        "loss_ptr": torch.empty((rows,), device=device),
        "grad_ptr": torch.empty_like(logits),
        "n_rows": rows,
        "vocab": vocab,
        "ignore_index": -1,
        "label_smoothing": smoothing,
        "inv_count": 1.0,
        "SMOOTH": smoothing > 0,
    }


def reference(args):
    logits, target, eps = args["logits_ptr"].float(), args["target_ptr"], args["label_smoothing"]
    loss = torch.nn.functional.cross_entropy(
        logits, target, ignore_index=-1, reduction="none", label_smoothing=eps
    )
    grad = torch.softmax(logits, -1) - eps / args["vocab"]
    live = target >= 0
    grad[live, target[live]] -= 1 - eps
    grad[~live] = 0.0
    return {"loss_ptr": loss, "grad_ptr": grad}


KERNEL = SuiteKernel(
    fn=cross_entropy_kernel,
    space=ConfigSpace(
        BLOCK_V=[128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768],
        num_warps=[1, 2, 4, 8, 16, 32],
        num_stages=[1, 2, 3, 4],
        constraint=lambda c: 1 <= c["BLOCK_V"] // (32 * c["num_warps"]) <= 128,
    ),
    problems=resized(
        (
            {"rows": 512, "vocab": 1000, "dtype": "fp32"},
            {"rows": 4096, "vocab": 512, "dtype": "fp32"},
            {"rows": 1024, "vocab": 8192, "dtype": "bf16"},
            {"rows": 256, "vocab": 32000, "dtype": "bf16"},
            {"rows": 2048, "vocab": 32000, "dtype": "fp16", "smoothing": 0.1},
            {"rows": 2048, "vocab": 50257, "dtype": "bf16"},
            {"rows": 1024, "vocab": 128256, "dtype": "bf16"},
            {"rows": 512, "vocab": 151936, "dtype": "fp32", "smoothing": 0.1},
            {"rows": 128, "vocab": 256000, "dtype": "bf16"},
        ),
        "rows",
        0.5,
    ),
    small=(
        {"rows": 3, "vocab": 300, "dtype": "fp32"},
        {"rows": 2, "vocab": 200, "dtype": "fp32", "smoothing": 0.1},
    ),
    make_args=make_args,
    grid=lambda a: (a["n_rows"],),
    reference=reference,
    tolerance=lambda problem: (2e-2, 1e-2),
)
