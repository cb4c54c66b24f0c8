"""Runs a server's own kernel with random data: the factory of the workers that measure it.

Arguments are bound by their names, so that a kernel of another version works as long as it has no
argument that is unknown here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import triton.language as tl

from autotune_rlm.measure.interpreter import interpreting
from autotune_rlm.measure.statistics.device_timers import accelerator
from autotune_rlm.measure.statistics.timing import Call
from autotune_rlm.measure.triton.capture import describe_call
from autotune_rlm.measure.triton.job import Job
from autotune_rlm.measure.triton.kernel_call import load_kernel

# Parts of the servers' kernels that a plain launch leaves off.
_OFF: dict[str, Any] = {
    **dict.fromkeys(("b_bias_ptr", "bias_ptr", "a_desc", "b_desc", "add_mask_ptr")),
    **dict.fromkeys(("stride_bbe", "stride_bbn", "stride_bias_e", "stride_bias_n"), 0),
    **dict.fromkeys(
        ("naive_block_assignment", "HAS_BIAS", "USE_TD", "c_sorted", "MASK_OUTPUT"), False
    ),
    **dict.fromkeys(("FUSE_ADD_TO_OUTPUT", "FUSE_SUM_ALL_REDUCE", "LORA_PRESERVE_BASE"), False),
    "SPLIT_K": 1,
    "ROUTER_TOPK": 1,
    "filter_expert": True,
}
_OPTIONS = ("num_warps", "num_stages", "waves_per_eu", "matrix_instr_nonkdim", "kpack")


def bench(
    *, file: str, function: str, kernel: str, problem: Mapping[str, Any], device: str | None = None
) -> Callable[[dict[str, Any]], Job]:
    """Gives a job for each configuration of a server's ``kernel``, the ``function`` of a ``file``.

    The problem is as in the task; of ``fused_moe`` with ``hidden_size`` and ``top_k``.
    """
    jit = load_kernel(file, function)
    data = _Data(torch.device(device or accelerator() or "cpu"))
    if kernel == "fused_moe":
        return _experts(jit, dict(problem), data)
    return _product(jit, dict(problem), data)


class _Data:
    """Random tensors on a device, the same ones in every process."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self._generator = torch.Generator(device=device).manual_seed(0)
        target = ""
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            target = getattr(properties, "gcnArchName", "").partition(":")[0]
        self.is_hopper = (
            device.type == "cuda"
            and torch.cuda.get_device_capability(device)[0] == 9
            and not target
        )
        # Triton's interpreter multiplies the bit patterns of bf16.
        self.half = torch.float16 if interpreting() else torch.bfloat16
        # MI300 has the format without infinities and negative zero.
        self.fp8 = torch.float8_e4m3fnuz if target.startswith("gfx94") else torch.float8_e4m3fn

    def numbers(self, *shape: int) -> Any:
        return torch.randn(shape, device=self.device, generator=self._generator)

    def scales(self, *shape: int) -> Any:
        return torch.rand(shape, device=self.device, generator=self._generator) * 1e-2 + 1e-3

    def values(self, kind: str, *shape: int) -> Any:
        """A tensor of ``"half"`` (16 bits), ``"fp8"`` or ``"int8"``."""
        if kind == "int8":
            return torch.randint(
                -64, 64, shape, device=self.device, generator=self._generator, dtype=torch.int8
            )
        return self.numbers(*shape).to(self.fp8 if kind == "fp8" else self.half)


def _arguments(jit: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """What a kernel takes, of what is known here; the rest has defaults, else LookupError."""
    parameters = inspect.signature(jit.fn).parameters
    given = {**_OFF, **known}
    unknown = [
        name
        for name, parameter in parameters.items()
        if name not in given and parameter.default is inspect.Parameter.empty
    ]
    if unknown:
        raise LookupError(
            f"{jit.fn.__name__} of this version of the server takes {', '.join(unknown)}, which is "
            "not known here"
        )
    return {name: given[name] for name in parameters if name in given} | {
        name: given[name] for name in _OPTIONS if name in given
    }


def _tiles(n: int, block: int) -> int:
    return -(-n // block)


def _product(jit: Any, problem: dict[str, Any], data: _Data) -> Callable[[dict[str, Any]], Job]:
    m, n, k = problem["M"], problem["N"], problem["K"]
    group_n, group_k = problem["block_shape"]
    kind = "int8" if "int8" in problem["dtype"] else "fp8"
    a, b = data.values(kind, m, k), data.values(kind, n, k)
    a_scale = data.scales(m, _tiles(k, group_k))
    b_scale = data.scales(_tiles(n, group_n), _tiles(k, group_k))
    c = torch.empty(m, n, device=data.device, dtype=data.half)
    known = {
        **{"A": a, "B": b, "C": c, "As": a_scale, "Bs": b_scale, "M": m, "N": n, "K": k},
        **{"group_n": group_n, "group_k": group_k},
        **{"stride_am": k, "stride_ak": 1, "stride_bk": 1, "stride_bn": k},
        **{"stride_cm": n, "stride_cn": 1},
        **{"stride_As_m": a_scale.stride(0), "stride_As_k": 1},
        **{"stride_Bs_n": b_scale.stride(0), "stride_Bs_k": 1},
    }

    def make(config: dict[str, Any]) -> Job:
        masked = k % config["BLOCK_SIZE_K"] != 0
        given = _arguments(jit, {**known, **config, "needs_masking": masked})
        grid = (_tiles(m, config["BLOCK_SIZE_M"]) * _tiles(n, config["BLOCK_SIZE_N"]),)

        def prepare() -> None:
            c.fill_(float("nan"))

        return Job(
            Call(run=lambda: jit[grid](**given)),
            outputs=lambda: {"C": c},
            prepare=prepare,
            spec=lambda: describe_call(jit, (), given),
            grid=grid,
        )

    def expected() -> dict[str, Any]:
        left = a.float() * _spread(a_scale, (1, group_k), a.shape)
        right = b.float() * _spread(b_scale, (group_n, group_k), b.shape)
        return {"C": (left @ right.T).to(c.dtype)}

    make.expected = expected  # type: ignore[attr-defined]
    return make


def _spread(scale: Any, block: tuple[int, int], shape: Any) -> Any:
    """A scale for each element of a matrix whose blocks share one."""
    wide = scale.repeat_interleave(block[0], -2).repeat_interleave(block[1], -1)
    return wide[..., : shape[-2], : shape[-1]]


def _experts(jit: Any, problem: dict[str, Any], data: _Data) -> Callable[[dict[str, Any]], Job]:
    """Both products of the experts, one after the other; what lies between them is not timed."""
    tokens, experts, top_k = problem["M"], problem["E"], problem["top_k"]
    logits = data.numbers(tokens, experts)
    weights, routes = torch.topk(torch.softmax(logits, dim=-1), top_k, dim=-1)
    up = _Half(data, problem, tokens, 2 * problem["N"], problem["hidden_size"], top_k)
    down = _Half(data, problem, tokens * top_k, problem["hidden_size"], problem["N"], 1)
    halves = {"": (up, down), "up": (up,), "down": (down,)}[problem.get("gemm", "")]
    by_block: dict[int, tuple[Any, Any, Any]] = {}

    def launches(config: dict[str, Any]) -> list[tuple[tuple[int], dict[str, Any]]]:
        block = config["BLOCK_SIZE_M"]
        if block not in by_block:
            by_block[block] = _by_expert(routes, block, experts)
        rows, expert_of, padded = by_block[block]
        # The servers launch no more blocks than tokens can fill.
        blocks = rows.numel() if tokens >= block else min(rows.numel(), tokens * top_k * block)
        found = []
        for half in halves:
            swap = data.is_hopper and half.kind == "fp8" and block < 64 <= config["BLOCK_SIZE_N"]
            known = {
                **half.known,
                **config,
                **{"topk_weights_ptr": weights, "sorted_token_ids_ptr": rows, "EM": blocks},
                **{"expert_ids_ptr": expert_of, "num_tokens_post_padded_ptr": padded},
                **{"num_valid_tokens": tokens * top_k, "MUL_ROUTED_WEIGHT": half is down},
                **{"SWAP_AB": swap, "swap_ab": swap},
                "even_Ks": half.k % config["BLOCK_SIZE_K"] == 0,
            }
            grid = (_tiles(blocks, block) * _tiles(half.n, config["BLOCK_SIZE_N"]),)
            found.append((grid, _arguments(jit, known)))
        return found

    def make(config: dict[str, Any]) -> Job:
        runs = launches(config)

        def run() -> None:
            for grid, given in runs:
                jit[grid](**given)

        def prepare() -> None:
            for half in halves:
                half.c.fill_(float("nan"))

        return Job(
            Call(run=run),
            outputs=lambda: {f"C{i}": half.c for i, half in enumerate(halves)},
            prepare=prepare,
            spec=lambda: describe_call(jit, (), runs[0][1]),
        )

    def expected() -> dict[str, Any]:
        flat = routes.reshape(-1)
        found = {}
        for i, half in enumerate(halves):
            c = half.expected(flat)
            found[f"C{i}"] = (c * weights.reshape(-1, 1) if half is down else c).to(half.c.dtype)
        return found

    make.expected = expected  # type: ignore[attr-defined]
    return make


class _Half:
    """One of the two products: rows (each ``top_k`` times) times the weights of their experts."""

    def __init__(
        self, data: _Data, problem: dict[str, Any], rows: int, n: int, k: int, top_k: int
    ) -> None:
        dtype, block = problem.get("dtype") or "", problem.get("block_shape")
        experts = problem["E"]
        self.n, self.k, self._top_k = n, k, top_k
        self.kind = "fp8" if dtype.startswith("fp8") else "int8" if dtype == "int8_w8a8" else "half"
        weight_kind = "int8" if dtype == "int8_w8a16" else self.kind
        channels = bool(problem.get("per_channel_quant")) or (dtype == "int8_w8a8" and not block)
        self._a = data.values(self.kind, rows, k)
        self._b = data.values(weight_kind, experts, n, k)
        self.c = torch.empty(rows * top_k, n, device=data.device, dtype=data.half)
        self._a_scale = self._b_scale = None
        self._block = tuple(block) if block else None
        if block:
            self._a_scale = data.scales(rows, _tiles(k, block[1]))
            self._b_scale = data.scales(experts, _tiles(n, block[0]), _tiles(k, block[1]))
        elif dtype == "int8_w8a16":
            self._b_scale = data.scales(experts, n)
        elif self.kind != "half":
            self._a_scale = data.scales(rows, 1) if channels else data.scales(1)
            self._b_scale = data.scales(experts, n) if channels else data.scales(experts)
        compute_type = tl.float16 if data.half is torch.float16 else tl.bfloat16
        self.known: dict[str, Any] = {
            **{"a_ptr": self._a, "b_ptr": self._b, "c_ptr": self.c},
            **{"a_scale_ptr": self._a_scale, "b_scale_ptr": self._b_scale},
            "N": n,
            "K": k,
            "top_k": top_k,
            "compute_type": compute_type,
            **{"stride_am": k, "stride_ak": 1, "stride_be": n * k, "stride_bk": 1, "stride_bn": k},
            **{"stride_cm": n, "stride_cn": 1},
            "stride_asm": _stride(self._a_scale, 0, 2),
            "stride_ask": _stride(self._a_scale, 1, 2),
            "stride_bse": _stride(self._b_scale, 0, 2),
            "stride_bsn": _stride(self._b_scale, 1, 2),
            "stride_bsk": _stride(self._b_scale, 2, 3),
            **{"group_n": block[0] if block else 0, "group_k": block[1] if block else 0},
            **{"use_fp8_w8a8": self.kind == "fp8", "use_int8_w8a8": self.kind == "int8"},
            **{"use_int8_w8a16": dtype == "int8_w8a16", "per_channel_quant": channels},
        }

    def expected(self, routes: Any) -> Any:
        """The product in 32 bits, an expert after the other."""
        a = self._a.float()
        if self._a_scale is not None:
            block = (1, self._block[1]) if self._block else (1, self.k)
            whole = self._a_scale if self._a_scale.dim() == 2 else self._a_scale.reshape(1, 1)
            a = a * (_spread(whole, block, a.shape) if whole.shape[0] > 1 or self._block else whole)
        a = a.repeat_interleave(self._top_k, 0)
        c = torch.zeros(self.c.shape, device=a.device)
        for expert in routes.unique().tolist():
            b = self._b[expert].float()
            if self._b_scale is not None:
                scale = self._b_scale[expert]
                b = b * (
                    _spread(scale, self._block, b.shape) if self._block else scale.reshape(-1, 1)
                )
            mine = routes == expert
            c[mine] = a[mine] @ b.T
        return c


def _stride(tensor: Any, dimension: int, least: int) -> int:
    return int(tensor.stride(dimension)) if tensor is not None and tensor.dim() >= least else 0


def _by_expert(routes: Any, block: int, experts: int) -> tuple[Any, Any, Any]:
    """Routed tokens sorted by expert, each expert's padded to whole blocks, and their sum.

    As the servers' ``moe_align_block_size``: the room is for the worst case, what is beyond the sum is
    skipped by the kernel, and padding is a number that no token has.
    """
    flat = routes.reshape(-1)
    counts = torch.bincount(flat, minlength=experts)
    padded = (counts + block - 1) // block * block
    room = flat.numel() + min(experts, flat.numel()) * (block - 1)
    room = -(-room // block) * block
    rows = torch.full((room,), flat.numel(), dtype=torch.int32, device=flat.device)
    order = torch.argsort(flat, stable=True)
    starts = torch.cumsum(padded, 0) - padded
    within = (
        torch.arange(flat.numel(), device=flat.device)
        - (torch.cumsum(counts, 0) - counts)[flat[order]]
    )
    rows[starts[flat[order]] + within] = order.to(torch.int32)
    of_block = torch.zeros(room // block, dtype=torch.int32, device=flat.device)
    used = torch.repeat_interleave(torch.arange(experts, device=flat.device), padded // block)
    of_block[: used.numel()] = used.to(torch.int32)
    total = padded.sum().reshape(1).to(torch.int32)
    return rows, of_block, total
