"""Attention backward: one kernel for the gradients of keys and values, one for the queries'."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def attention_backward_kv(
    Q,
    K,
    V,
    DO,
    DK,
    DV,
    Lse,
    Delta,
    sm_scale,
    seq_len,
    HEAD_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    base = tl.program_id(1).to(tl.int64) * seq_len * HEAD_DIM
    row_base = tl.program_id(1) * seq_len
    start_n = tl.program_id(0) * BLOCK_N
    n = start_n + tl.arange(0, BLOCK_N)
    d = tl.arange(0, HEAD_DIM)
    kv_offsets = base + n[:, None] * HEAD_DIM + d[None, :]
    kv_mask = n[:, None] < seq_len
    k = tl.load(K + kv_offsets, mask=kv_mask, other=0.0)
    v = tl.load(V + kv_offsets, mask=kv_mask, other=0.0)
    dk = tl.zeros([BLOCK_N, HEAD_DIM], dtype=tl.float32)
    dv = tl.zeros([BLOCK_N, HEAD_DIM], dtype=tl.float32)
    lo = (start_n // BLOCK_M) * BLOCK_M if CAUSAL else 0
    for start_m in range(lo, seq_len, BLOCK_M):
        m = start_m + tl.arange(0, BLOCK_M)
        q_offsets = base + m[:, None] * HEAD_DIM + d[None, :]
        q = tl.load(Q + q_offsets, mask=m[:, None] < seq_len, other=0.0)
        do = tl.load(DO + q_offsets, mask=m[:, None] < seq_len, other=0.0)
        lse = tl.load(Lse + row_base + m, mask=m < seq_len, other=0.0)
        delta = tl.load(Delta + row_base + m, mask=m < seq_len, other=0.0)
        p_t = tl.exp(tl.dot(k, tl.trans(q)) * sm_scale - lse[None, :])
        keep = (m[None, :] < seq_len) & (n[:, None] < seq_len)
        if CAUSAL:
            keep = keep & (m[None, :] >= n[:, None])
        p_t = tl.where(keep, p_t, 0.0)
        dv += tl.dot(p_t.to(do.dtype), do)
        dp_t = tl.dot(v, tl.trans(do))
        ds_t = p_t * (dp_t - delta[None, :])
        dk += tl.dot(ds_t.to(q.dtype), q)
    tl.store(DV + kv_offsets, dv.to(DV.dtype.element_ty), mask=kv_mask)
    tl.store(DK + kv_offsets, (dk * sm_scale).to(DK.dtype.element_ty), mask=kv_mask)


@triton.jit
def attention_backward_q(
    Q,
    K,
    V,
    DO,
    DQ,
    Lse,
    Delta,
    sm_scale,
    seq_len,
    HEAD_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    base = tl.program_id(1).to(tl.int64) * seq_len * HEAD_DIM
    row_base = tl.program_id(1) * seq_len
    start_m = tl.program_id(0) * BLOCK_M
    m = start_m + tl.arange(0, BLOCK_M)
    d = tl.arange(0, HEAD_DIM)
    q_offsets = base + m[:, None] * HEAD_DIM + d[None, :]
    q_mask = m[:, None] < seq_len
    q = tl.load(Q + q_offsets, mask=q_mask, other=0.0)
    do = tl.load(DO + q_offsets, mask=q_mask, other=0.0)
    lse = tl.load(Lse + row_base + m, mask=m < seq_len, other=0.0)
    delta = tl.load(Delta + row_base + m, mask=m < seq_len, other=0.0)
    dq = tl.zeros([BLOCK_M, HEAD_DIM], dtype=tl.float32)
    hi = min(start_m + BLOCK_M, seq_len) if CAUSAL else seq_len
    for start_n in range(0, hi, BLOCK_N):
        n = start_n + tl.arange(0, BLOCK_N)
        kv_offsets = base + n[:, None] * HEAD_DIM + d[None, :]
        k = tl.load(K + kv_offsets, mask=n[:, None] < seq_len, other=0.0)
        v = tl.load(V + kv_offsets, mask=n[:, None] < seq_len, other=0.0)
        p = tl.exp(tl.dot(q, tl.trans(k)) * sm_scale - lse[:, None])
        keep = n[None, :] < seq_len
        if CAUSAL:
            keep = keep & (m[:, None] >= n[None, :])
        dp = tl.dot(do, tl.trans(v))
        ds = tl.where(keep, p, 0.0) * (dp - delta[:, None])
        dq += tl.dot(ds.to(k.dtype), k)
    tl.store(DQ + q_offsets, (dq * sm_scale).to(DQ.dtype.element_ty), mask=q_mask)


def _scores(args, i):
    s = args["Q"][i].float() @ args["K"][i].float().transpose(-1, -2) * args["sm_scale"]
    if args["CAUSAL"]:
        upper = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1)
        s = s.masked_fill(upper, float("-inf"))
    return s


def make_shared(problem, device, generator):
    shape = (problem["B"] * problem["H"], problem["S"], problem["D"])
    args = {
        name: random_normal(shape, problem["dtype"], device, generator, scale=scale)
        for name, scale in (("Q", 1.0), ("K", 1.0), ("V", 1.0), ("DO", 1.0))
    }
    args |= {"sm_scale": problem["D"] ** -0.5, "CAUSAL": problem["causal"]}
    lse = torch.empty(shape[:2], device=device)
    delta = torch.empty(shape[:2], device=device)
    if device != "meta":
        for i in range(shape[0]):
            s = _scores(args, i)
            lse[i] = torch.logsumexp(s, -1)
            delta[i] = ((torch.softmax(s, -1) @ args["V"][i].float()) * args["DO"][i]).sum(-1)
    return args | {"Lse": lse, "Delta": delta, "seq_len": shape[1], "HEAD_DIM": shape[2]}


def make_kv_args(problem, device, generator):
    args = make_shared(problem, device, generator)
    return args | {"DK": torch.empty_like(args["K"]), "DV": torch.empty_like(args["V"])}


def make_q_args(problem, device, generator):
    args = make_shared(problem, device, generator)
    return args | {"DQ": torch.empty_like(args["Q"])}


def reference(args):
    grads = {name: torch.empty(args["Q"].shape, device=args["Q"].device) for name in "QKV"}
    for i in range(args["Q"].shape[0]):
        q, k, v, do = (args[name][i].float() for name in ("Q", "K", "V", "DO"))
        p = torch.softmax(_scores(args, i), -1)
        ds = p * (do @ v.T - args["Delta"][i][:, None])
        grads["Q"][i] = ds @ k * args["sm_scale"]
        grads["K"][i] = ds.T @ q * args["sm_scale"]
        grads["V"][i] = p.T @ do
    return {"D" + name: grad for name, grad in grads.items() if "D" + name in args}


def _problem(b, h, s, d, causal, dtype="fp16"):
    return {"B": b, "H": h, "S": s, "D": d, "causal": causal, "dtype": dtype}


_SPACE = ConfigSpace(
    BLOCK_M=[16, 32, 64, 128],
    BLOCK_N=[16, 32, 64, 128],
    num_warps=[1, 2, 4, 8],
    num_stages=[1, 2, 3, 4, 5],
    constraint=lambda c: 2 <= c["BLOCK_M"] * c["BLOCK_N"] // (32 * c["num_warps"]) <= 128,
)
_PROBLEMS = resized(
    (
        _problem(1, 4, 256, 64, True),
        _problem(4, 8, 197, 64, False),
        _problem(2, 8, 512, 64, True),
        _problem(8, 12, 512, 64, False),
        _problem(1, 16, 1024, 128, True, "bf16"),
        _problem(4, 12, 1024, 64, True),
        _problem(1, 16, 2048, 64, False),
        _problem(1, 16, 2048, 128, True, "bf16"),
        _problem(1, 8, 4096, 64, True),
    ),
    "B",
    2,
)
_SMALL = (_problem(1, 2, 40, 16, True), _problem(1, 1, 24, 16, False))

KERNELS = (
    SuiteKernel(
        fn=attention_backward_kv,
        space=_SPACE,
        problems=_PROBLEMS,
        small=_SMALL,
        make_args=make_kv_args,
        grid=lambda a: (triton.cdiv(a["seq_len"], a["BLOCK_N"]), a["Q"].shape[0]),
        reference=reference,
        tolerance=lambda problem: (5e-2, 5e-2),
    ),
    SuiteKernel(
        fn=attention_backward_q,
        space=_SPACE,
        problems=_PROBLEMS,
        small=_SMALL,
        make_args=make_q_args,
        grid=lambda a: (triton.cdiv(a["seq_len"], a["BLOCK_M"]), a["Q"].shape[0]),
        reference=reference,
        tolerance=lambda problem: (5e-2, 5e-2),
    ),
)
