"""Causal linear attention with decay, chunk by chunk with a running state."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def linear_attention_chunks(
    q_ptr,
    k_ptr,
    v_ptr,
    decay_ptr,
    o_ptr,
    T,
    H,
    DK: tl.constexpr,
    DV: tl.constexpr,
    CHUNK: tl.constexpr,
    BV: tl.constexpr,
):
    # o[t] = q[t] S[t],  S[t] = decay S[t-1] + k[t]^T v[t], for every head on its own
    i_v = tl.program_id(0)
    i_bh = tl.program_id(1).to(tl.int64)
    log_decay = tl.load(decay_ptr + i_bh % H)
    o_t = tl.arange(0, CHUNK)
    o_k = tl.arange(0, DK)
    o_v = i_v * BV + tl.arange(0, BV)
    distance = (o_t[:, None] - o_t[None, :]).to(tl.float32)
    inner = tl.where(o_t[:, None] >= o_t[None, :], tl.exp(distance * log_decay), 0.0)
    from_state = tl.exp((o_t + 1).to(tl.float32) * log_decay)
    state = tl.zeros([DK, BV], dtype=tl.float32)
    for t in range(0, T, CHUNK):
        rows = t + o_t
        live = rows[:, None] < T
        k_offsets = (i_bh * T + rows)[:, None] * DK + o_k[None, :]
        v_offsets = (i_bh * T + rows)[:, None] * DV + o_v[None, :]
        q = tl.load(q_ptr + k_offsets, mask=live, other=0.0)
        k = tl.load(k_ptr + k_offsets, mask=live, other=0.0)
        v = tl.load(v_ptr + v_offsets, mask=live & (o_v[None, :] < DV), other=0.0)
        scores = tl.dot(q, tl.trans(k)) * inner
        o = tl.dot(scores.to(v.dtype), v)
        o += tl.dot(q, state.to(q.dtype)) * from_state[:, None]
        tl.store(o_ptr + v_offsets, o.to(o_ptr.dtype.element_ty), mask=live & (o_v[None, :] < DV))
        to_end = tl.exp((CHUNK - 1 - o_t).to(tl.float32) * log_decay)
        faded_k = (k.to(tl.float32) * to_end[:, None]).to(k.dtype)
        state = state * tl.exp(CHUNK * log_decay) + tl.dot(tl.trans(faded_k), v)


def make_args(problem, device, generator):
    b, h, t, dk, dv = (problem[x] for x in ("B", "H", "T", "DK", "DV"))
    v = random_normal((b * h, t, dv), problem["dtype"], device, generator)
    decay = torch.log1p(-torch.exp2(-4.0 - 3.0 * torch.arange(h) / max(h - 1, 1)))
    return {
        "q_ptr": random_normal((b * h, t, dk), problem["dtype"], device, generator, scale=dk**-0.5),
        "k_ptr": random_normal((b * h, t, dk), problem["dtype"], device, generator, scale=0.5),
        "v_ptr": v,
        "decay_ptr": decay.to(device),
        "o_ptr": torch.empty_like(v),
        "T": t,
        "H": h,
        "DK": dk,
        "DV": dv,
    }


def reference(args):
    out = torch.empty(args["v_ptr"].shape, device=args["v_ptr"].device)
    t = torch.arange(args["T"], device=out.device)
    distance = (t[:, None] - t[None, :]).float()
    for i in range(out.shape[0]):
        q, k, v = (args[name][i].float() for name in ("q_ptr", "k_ptr", "v_ptr"))
        weight = torch.exp(distance * args["decay_ptr"][i % args["H"]]).tril()
        out[i] = (q @ k.T * weight) @ v
    return {"o_ptr": out}


def _problem(b, h, t, dk, dv, dtype="fp16"):
    return {"B": b, "H": h, "T": t, "DK": dk, "DV": dv, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=linear_attention_chunks,
    space=ConfigSpace(
        CHUNK=[16, 32, 64, 128],
        BV=[16, 32, 64, 128],
        num_warps=[1, 2, 4, 8],
        num_stages=[1, 2, 3, 4],
        # what one thread holds stays within its registers' reach
        constraint=lambda c: (
            c["CHUNK"] * max(c["CHUNK"], c["BV"]) <= 4096 * c["num_warps"]
            and c["BV"] <= 64 * c["num_warps"]
        ),
    ),
    problems=resized(
        (
            _problem(1, 4, 512, 64, 64),
            _problem(1, 16, 1024, 64, 64),
            _problem(8, 8, 512, 64, 128),
            _problem(2, 16, 2048, 64, 64, "bf16"),
            _problem(4, 16, 1024, 128, 128, "bf16"),
            _problem(1, 16, 4096, 64, 128),
            _problem(1, 32, 4096, 128, 128, "bf16"),
            _problem(16, 8, 300, 32, 32),
        ),
        "B",
        2,
    ),
    small=(_problem(1, 2, 40, 16, 16), _problem(1, 1, 70, 16, 32, "fp32")),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["DV"], a["BV"]), a["q_ptr"].shape[0]),
    reference=reference,
    tolerance=lambda problem: (5e-2, 5e-2),
)
