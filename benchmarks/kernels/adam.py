"""AdamW step: four streams in, three out, new state in buffers of its own."""

import torch
import triton
import triton.language as tl

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.suite import SuiteKernel, random_normal, resized


@triton.jit
def adamw_step(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    new_param,
    new_exp_avg,
    new_exp_avg_sq,
    numel,
    lr,
    beta1,
    beta2,
    eps,
    weight_decay,
    correction1,
    correction2,
    BLOCK: tl.constexpr,
    LOOP: tl.constexpr,
    EVICT_FIRST: tl.constexpr,
):
    policy: tl.constexpr = "evict_first" if EVICT_FIRST else ""
    for i in range(LOOP):
        idx = (tl.program_id(0).to(tl.int64) * LOOP + i) * BLOCK + tl.arange(0, BLOCK)
        ok = idx < numel
        p = tl.load(param + idx, ok, eviction_policy=policy).to(tl.float32)
        g = tl.load(grad + idx, ok, eviction_policy=policy).to(tl.float32)
        m = tl.load(exp_avg + idx, ok, eviction_policy=policy)
        v = tl.load(exp_avg_sq + idx, ok, eviction_policy=policy)
        m = m + (1 - beta1) * (g - m)
        v = v + (1 - beta2) * (g * g - v)
        step = (m / correction1) / (tl.sqrt(v / correction2) + eps)
        p = p * (1 - lr * weight_decay) - lr * step
        tl.store(new_param + idx, p.to(new_param.dtype.element_ty), ok)
        tl.store(new_exp_avg + idx, m, ok)
        tl.store(new_exp_avg_sq + idx, v, ok)


def make_args(problem, device, generator):
    n = problem["n"]
    param = random_normal((n,), problem["dtype"], device, generator)
    avg = random_normal((n,), "fp32", device, generator, scale=0.1)
    square = random_normal((n,), "fp32", device, generator, scale=0.1).abs()
    return {
        "param": param,
        "grad": random_normal((n,), problem["dtype"], device, generator),
        "exp_avg": avg,
        "exp_avg_sq": square,
        "new_param": torch.empty_like(param),
        "new_exp_avg": torch.empty_like(avg),
        "new_exp_avg_sq": torch.empty_like(square),
        "numel": n,
        "lr": 1e-2,
        "beta1": 0.9,
        "beta2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.1,
        "correction1": 1 - 0.9**10,
        "correction2": 1 - 0.95**10,
    }


def reference(args):
    p, g = args["param"].float(), args["grad"].float()
    m = torch.lerp(args["exp_avg"], g, 1 - args["beta1"])
    v = torch.lerp(args["exp_avg_sq"], g * g, 1 - args["beta2"])
    step = (m / args["correction1"]) / ((v / args["correction2"]).sqrt() + args["eps"])
    p = p * (1 - args["lr"] * args["weight_decay"]) - args["lr"] * step
    return {"new_param": p, "new_exp_avg": m, "new_exp_avg_sq": v}


def _problem(n, dtype="fp32"):
    return {"n": n, "dtype": dtype}


KERNEL = SuiteKernel(
    fn=adamw_step,
    space=ConfigSpace(
        BLOCK=[128, 256, 512, 1024, 2048, 4096],
        LOOP=[1, 2, 4, 8],
        EVICT_FIRST=[False, True],
        num_warps=[1, 2, 4, 8, 16],
        num_stages=[1, 2, 3],
        constraint=lambda c: 1 <= c["BLOCK"] // (32 * c["num_warps"]) <= 32,
    ),
    problems=resized(
        (
            _problem(4096),
            _problem(262144, "bf16"),
            _problem(1000003),
            _problem(2359296, "bf16"),
            _problem(8388608),
            _problem(16777216, "bf16"),
            _problem(38597376),
            _problem(58720256, "bf16"),
        ),
        "n",
        0.5,
    ),
    small=(_problem(1000), _problem(333)),
    make_args=make_args,
    grid=lambda a: (triton.cdiv(a["numel"], a["BLOCK"] * a["LOOP"]),),
    reference=reference,
)
