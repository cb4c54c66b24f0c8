"""The autotuned operators of Liger Kernel, forward and backward, over shapes of real models.

``autotune-rlm record --program benchmarks/programs/liger_operators.py`` records their kernels.
"""

import functools

import _cases
import torch

MODELS = ((2048, 768, 3072), (4096, 2048, 8192), (8192, 4096, 14336), (1024, 5120, 13824))
"""Tokens, width, width of the feed-forward layer."""
EXPERTS = ((2048, 1024, 512, 8, 2), (4096, 2048, 1024, 64, 6), (8192, 4096, 1792, 16, 4))
"""Tokens, width, width of an expert, experts, experts of a token."""


def tanh_norm(ops, new, tokens, width, beta):
    bias = new(width) if beta else None
    return ops.LigerDyTFunction.apply(new(tokens, width), new(1), new(width), bias)


def feed_forward(ops, new, tokens, width, hidden):
    weights = new(hidden, width), new(hidden, width), new(width, hidden)
    return ops.LigerMLPFunction.apply(new(tokens, width), *weights)


def mixture(ops, new, tokens, width, hidden, experts, each):
    scores = torch.randn(tokens, experts, device=new.keywords["device"])
    weights, index = torch.topk(scores.softmax(-1), each)
    up, down = new(experts, 2 * hidden, width), new(experts, width, hidden)
    x = new(tokens, width)
    return ops.LigerFusedMoEFunction.apply(x, up, down, index.int(), weights.requires_grad_())


def ternary_matmul(given, tokens, width, hidden):
    ops = _cases.module("liger_kernel.ops.experimental.mm_int8int2")
    a = torch.randint(-128, 127, (tokens, width), device=given.device, dtype=torch.int8)
    packed = torch.randint(0, 255, (width // 4, hidden), device=given.device, dtype=torch.uint8)
    return ops.matmul(a, packed)


def cases(given):
    """Every operator at a shape before any at the next."""
    ops = _cases.module("liger_kernel.ops")
    new = functools.partial(
        torch.randn, device=given.device, dtype=torch.bfloat16, requires_grad=True
    )
    for number in range(len(MODELS))[: given.shapes]:
        tokens, width, hidden = MODELS[number]
        where = f"{tokens}x{width}x{hidden}"
        for beta in (True, False):
            call = functools.partial(tanh_norm, ops, new, tokens, width, beta)
            yield f"dyt/{where}/beta={beta}", call
        yield f"mlp/{where}", functools.partial(feed_forward, ops, new, tokens, width, hidden)
        yield f"int8int2/{where}", functools.partial(ternary_matmul, given, tokens, width, hidden)
        if number < len(EXPERTS):
            where = "x".join(map(str, EXPERTS[number]))
            yield f"fused_moe/{where}", functools.partial(mixture, ops, new, *EXPERTS[number])


if __name__ == "__main__":
    arguments = _cases.arguments("liger_kernel")
    _cases.run(cases(arguments), arguments)
