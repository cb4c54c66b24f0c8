"""Mixture of experts: rows gathered by expert, multiplied, scaled by their router weight."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized

# Every expert's rows are padded to a multiple of the largest tile, so that all tiles fit.
_PAD = 128
_CHUNK = 16


@triton.jit
def fused_moe_kernel(
    tokens_ptr,
    experts_ptr,
    out_ptr,
    sorted_ids_ptr,
    chunk_expert_ptr,
    router_weight_ptr,
    num_rows,
    num_slots,
    N,
    K,
    TOP_K: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr,
    BLOCK_SIZE_N: tl.constexpr,
    BLOCK_SIZE_K: tl.constexpr,
    GROUP_SIZE_M: tl.constexpr,
):
    pid = tl.program_id(0)
    num_pid_m = tl.cdiv(num_rows, BLOCK_SIZE_M)
    num_pid_n = tl.cdiv(N, BLOCK_SIZE_N)
    num_pid_in_group = GROUP_SIZE_M * num_pid_n
    first = (pid // num_pid_in_group) * GROUP_SIZE_M
    size = min(num_pid_m - first, GROUP_SIZE_M)
    pid_m = first + (pid % num_pid_in_group) % size
    pid_n = (pid % num_pid_in_group) // size

    expert = tl.load(chunk_expert_ptr + pid_m * (BLOCK_SIZE_M // CHUNK)).to(tl.int64)
    if expert < 0:
        return
    slots = tl.load(sorted_ids_ptr + pid_m * BLOCK_SIZE_M + tl.arange(0, BLOCK_SIZE_M))
    live = slots < num_slots
    cols = pid_n * BLOCK_SIZE_N + tl.arange(0, BLOCK_SIZE_N)
    ks = tl.arange(0, BLOCK_SIZE_K)
    x_ptrs = tokens_ptr + (slots[:, None] // TOP_K) * K + ks[None, :]
    w_ptrs = experts_ptr + expert * N * K + (cols[None, :] % N) * K + ks[:, None]
    acc = tl.zeros((BLOCK_SIZE_M, BLOCK_SIZE_N), dtype=tl.float32)
    for k in range(0, tl.cdiv(K, BLOCK_SIZE_K)):
        left = K - k * BLOCK_SIZE_K
        x = tl.load(x_ptrs, mask=live[:, None] & (ks[None, :] < left), other=0.0)
        w = tl.load(w_ptrs, mask=ks[:, None] < left, other=0.0)
        acc += tl.dot(x, w)
        x_ptrs += BLOCK_SIZE_K
        w_ptrs += BLOCK_SIZE_K
    weight = tl.load(router_weight_ptr + slots, mask=live, other=0.0)
    acc = acc * weight[:, None]
    o_ptrs = out_ptr + slots[:, None] * N + cols[None, :]
    tl.store(o_ptrs, acc.to(out_ptr.dtype.element_ty), mask=live[:, None] & (cols[None, :] < N))


def make_args(problem, device, generator):
    tokens, experts, top_k, n, k = (problem[x] for x in ("tokens", "E", "top_k", "N", "K"))
    slots = tokens * top_k
    # a fixed, uneven routing that needs no values: later experts get fewer rows
    choice = (torch.arange(slots) * 2654435761 % 65536) ** 2 * experts // 65536**2
    ids, chunks = [], []
    for expert in range(experts):
        mine = torch.nonzero(choice == expert).flatten()
        padded = -(-len(mine) // _PAD) * _PAD
        ids.append(torch.cat([mine, torch.full((padded - len(mine),), slots)]))
        chunks += [expert] * (padded // _CHUNK)
    sorted_ids = torch.cat(ids).to(torch.int32)
    x = random_normal((tokens, k), problem["dtype"], device, generator)
    return {
        "tokens_ptr": x,
        "experts_ptr": random_normal(
            (experts, n, k), problem["dtype"], device, generator, scale=k**-0.5
        ),
        "out_ptr": torch.empty((slots, n), device=device, dtype=x.dtype),
        "sorted_ids_ptr": sorted_ids.to(device),
        "chunk_expert_ptr": torch.tensor(chunks, dtype=torch.int32).to(device),
        "router_weight_ptr": random_normal((slots,), "fp32", device, generator).abs(),
        "num_rows": len(sorted_ids),
        "num_slots": slots,
        "N": n,
        "K": k,
        "TOP_K": top_k,
        "CHUNK": _CHUNK,
    }


def reference(args):
    top_k, weights = args["TOP_K"], args["experts_ptr"].float()
    ids = args["sorted_ids_ptr"].long()
    expert_of_row = args["chunk_expert_ptr"].long().repeat_interleave(args["CHUNK"])
    out = torch.empty(args["out_ptr"].shape, device=ids.device, dtype=torch.float32)
    for expert in range(weights.shape[0]):
        slots = ids[(expert_of_row == expert) & (ids < args["num_slots"])]
        product = args["tokens_ptr"][slots // top_k].float() @ weights[expert].T
        out[slots] = product * args["router_weight_ptr"][slots, None]
    return {"out_ptr": out}


KERNEL = SuiteKernel(
    fn=fused_moe_kernel,
    space=ConfigSpace(
        BLOCK_SIZE_M=[16, 32, 64, 128],
        BLOCK_SIZE_N=[32, 64, 128, 256],
        BLOCK_SIZE_K=[32, 64, 128, 256],
        GROUP_SIZE_M=[1, 16, 64],
        num_warps=[2, 4, 8],
        num_stages=[2, 3, 4, 5],
        constraint=lambda c: (
            c["BLOCK_SIZE_M"] * c["BLOCK_SIZE_N"] <= 16384
            and (c["BLOCK_SIZE_M"] + c["BLOCK_SIZE_N"]) * c["BLOCK_SIZE_K"] <= 49152
        ),
    ),
    problems=resized(
        (
            {"tokens": 1, "E": 8, "top_k": 2, "N": 4096, "K": 2048, "dtype": "fp16"},
            {"tokens": 16, "E": 8, "top_k": 2, "N": 7168, "K": 4096, "dtype": "bf16"},
            {"tokens": 64, "E": 64, "top_k": 6, "N": 1408, "K": 2048, "dtype": "bf16"},
            {"tokens": 256, "E": 8, "top_k": 2, "N": 4096, "K": 4096, "dtype": "fp16"},
            {"tokens": 512, "E": 128, "top_k": 8, "N": 768, "K": 2048, "dtype": "bf16"},
            {"tokens": 1024, "E": 16, "top_k": 1, "N": 4096, "K": 2048, "dtype": "fp16"},
            {"tokens": 2048, "E": 60, "top_k": 4, "N": 1408, "K": 2048, "dtype": "bf16"},
            {"tokens": 4096, "E": 8, "top_k": 2, "N": 3584, "K": 2048, "dtype": "fp16"},
            {"tokens": 8192, "E": 64, "top_k": 2, "N": 1024, "K": 1024, "dtype": "bf16"},
        ),
        "tokens",
        2,
    ),
    small=({"tokens": 9, "E": 3, "top_k": 2, "N": 40, "K": 48, "dtype": "fp16"},),
    make_args=make_args,
    grid=lambda a: (
        triton.cdiv(a["num_rows"], a["BLOCK_SIZE_M"]) * triton.cdiv(a["N"], a["BLOCK_SIZE_N"]),
    ),
    reference=reference,
)
