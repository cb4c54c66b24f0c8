"""Selective state-space scan (Mamba): a recurrence over time, some channels per program."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def selective_scan(
    u_ptr,
    delta_ptr,
    a_ptr,
    b_ptr,
    c_ptr,
    skip_ptr,
    y_ptr,
    L,
    D,
    N_STATE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    UNROLL: tl.constexpr,
):
    # u, delta and y are (batch, L, D); b and c are (batch, L, N_STATE); a is (D, N_STATE)
    d = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    n = tl.arange(0, N_STATE)
    batch = tl.program_id(1).to(tl.int64)
    ok = d < D
    a = tl.load(a_ptr + d[:, None] * N_STATE + n[None, :], mask=ok[:, None], other=0.0)
    skip = tl.load(skip_ptr + d, mask=ok, other=0.0)
    h = tl.zeros([BLOCK_D, N_STATE], dtype=tl.float32)
    for t in tl.range(0, L, loop_unroll_factor=UNROLL):
        row = batch * L + t
        u = tl.load(u_ptr + row * D + d, mask=ok, other=0.0).to(tl.float32)
        dt = tl.load(delta_ptr + row * D + d, mask=ok, other=0.0).to(tl.float32)
        b = tl.load(b_ptr + row * N_STATE + n).to(tl.float32)
        c = tl.load(c_ptr + row * N_STATE + n).to(tl.float32)
        h = h * tl.exp(dt[:, None] * a) + (dt * u)[:, None] * b[None, :]
        y = tl.sum(h * c[None, :], axis=1) + u * skip
        tl.store(y_ptr + row * D + d, y.to(y_ptr.dtype.element_ty), mask=ok)


def make_args(problem, device, generator):
    batch, length, dim, state = (problem[name] for name in ("B", "L", "D", "N"))
    dtype = problem["dtype"]
    u = random_normal((batch, length, dim), dtype, device, generator)
    return {
        "u_ptr": u,
        "delta_ptr": random_normal((batch, length, dim), dtype, device, generator, scale=0.1).abs(),
        "a_ptr": -random_normal((dim, state), "fp32", device, generator).exp(),
        "b_ptr": random_normal((batch, length, state), dtype, device, generator),
        "c_ptr": random_normal((batch, length, state), dtype, device, generator, scale=state**-0.5),
        "skip_ptr": random_normal((dim,), "fp32", device, generator),
        "y_ptr": torch.empty_like(u),
        "L": length,
        "D": dim,
        "N_STATE": state,
    }


def reference(args):
    u, dt, b, c = (args[name].float() for name in ("u_ptr", "delta_ptr", "b_ptr", "c_ptr"))
    h = torch.zeros((u.shape[0], args["D"], args["N_STATE"]), device=u.device)
    out = []
    for t in range(args["L"]):
        h = h * torch.exp(dt[:, t, :, None] * args["a_ptr"])
        h = h + (dt[:, t] * u[:, t])[..., None] * b[:, t, None, :]
        out.append((h * c[:, t, None, :]).sum(-1) + u[:, t] * args["skip_ptr"])
    return {"y_ptr": torch.stack(out, 1)}


def _problem(b, length, d, n=16, dtype="fp16"):
    return {"B": b, "L": length, "D": d, "N": n, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=selective_scan,
    space=ConfigSpace(
        BLOCK_D=[4, 8, 16, 32, 64, 128],
        UNROLL=[1, 2, 4, 8],
        num_warps=[1, 2, 4],
        num_stages=[1, 2, 3],
    ),
    problems=resized(
        (
            _problem(1, 128, 1536),
            _problem(8, 64, 2048),
            _problem(1, 512, 2048, 16, "bf16"),
            _problem(4, 256, 768, 16, "fp32"),
            _problem(16, 200, 1000),
            _problem(2, 512, 5120, 16, "bf16"),
            _problem(32, 256, 1536),
            _problem(4, 384, 1024, 64),
        ),
        "B",
        2,
    ),
    small=(_problem(1, 6, 10, 4, "fp32"), _problem(2, 5, 9, 8)),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["D"], a["BLOCK_D"]), a["u_ptr"].shape[0]),
    reference=reference,
)
