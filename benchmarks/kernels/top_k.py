"""Top-k of router scores with softmax over the chosen, one pass of maxima per choice."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def router_top_k(
    scores_ptr,
    weights_ptr,
    indices_ptr,
    tokens,
    experts,
    K: tl.constexpr,
    K_POW2: tl.constexpr,
    EXPERTS_POW2: tl.constexpr,
    BLOCK_T: tl.constexpr,
    TILES: tl.constexpr,
):
    for tile in range(TILES):
        token = (tl.program_id(0) * TILES + tile) * BLOCK_T + tl.arange(0, BLOCK_T)
        expert = tl.arange(0, EXPERTS_POW2)
        slot = tl.arange(0, K_POW2)
        mask = (token < tokens)[:, None] & (expert < experts)[None, :]
        left = tl.load(
            scores_ptr + token[:, None] * experts + expert[None, :], mask=mask, other=float("-inf")
        ).to(tl.float32)
        top = tl.full([BLOCK_T, K_POW2], float("-inf"), tl.float32)
        where = tl.zeros([BLOCK_T, K_POW2], tl.int32)
        for k in tl.static_range(K):
            value = tl.max(left, axis=1)
            index = tl.argmax(left, axis=1)
            top = tl.where(slot[None, :] == k, value[:, None], top)
            where = tl.where(slot[None, :] == k, index[:, None], where)
            left = tl.where(expert[None, :] == index[:, None], float("-inf"), left)
        best = tl.max(top, axis=1)
        weight = tl.exp(top - best[:, None])
        weight = weight / tl.sum(weight, axis=1)[:, None]
        at = token[:, None] * K + slot[None, :]
        keep = (token < tokens)[:, None] & (slot < K)[None, :]
        tl.store(weights_ptr + at, weight.to(weights_ptr.dtype.element_ty), mask=keep)
        tl.store(indices_ptr + at, where, mask=keep)


def make_args(problem, device, generator):
    tokens, experts, k = problem["tokens"], problem["experts"], problem["k"]
    return {
        "scores_ptr": random_normal((tokens, experts), problem["dtype"], device, generator),
        "weights_ptr": torch.empty((tokens, k), device=device, dtype=torch.float32),
        "indices_ptr": torch.empty((tokens, k), device=device, dtype=torch.int32),
        "tokens": tokens,
        "experts": experts,
        "K": k,
        "K_POW2": triton.next_power_of_2(k),
        "EXPERTS_POW2": triton.next_power_of_2(experts),
    }


def reference(args):
    top = torch.topk(args["scores_ptr"].float(), args["K"], dim=-1).values
    return {"weights_ptr": torch.softmax(top, -1)}


def _problem(tokens, experts, k, dtype="fp32"):
    return {"tokens": tokens, "experts": experts, "k": k, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=router_top_k,
    space=ConfigSpace(
        BLOCK_T=[1, 2, 4, 8, 16, 32, 64, 128],
        TILES=[1, 2, 4, 8],
        num_warps=[1, 2, 4, 8],
    ),
    problems=resized(
        (
            _problem(16, 8, 2),
            _problem(256, 64, 6),
            _problem(1024, 8, 2, "bf16"),
            _problem(4096, 64, 8),
            _problem(4096, 256, 8),
            _problem(8192, 128, 8, "bf16"),
            _problem(16384, 60, 4),
            _problem(65536, 16, 1),
            _problem(131072, 32, 4, "bf16"),
        ),
        "tokens",
        2,
    ),
    small=(_problem(10, 12, 3), _problem(5, 8, 1)),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["tokens"], a["BLOCK_T"] * a["TILES"]),),
    reference=reference,
)
