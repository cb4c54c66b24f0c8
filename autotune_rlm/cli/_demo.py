"""What ``autotune-rlm demo`` runs: two kernels, three steps each, and the search of everything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton

from autotune_rlm.cli import _demo_kernels
from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.integrations.triton import RLMAutotuner, rlm_autotune
from autotune_rlm.store import Store


@dataclass(frozen=True, kw_only=True)
class Step:
    what: str
    problem: str
    configs: int
    measured: int
    seconds: float  # from launch to result
    best: str
    best_ms: float
    wrong: float  # largest absolute error of the kernel's result


@dataclass(frozen=True, kw_only=True)
class Demo:
    """A kernel, its configurations and how to launch it."""

    name: str
    kernel: Any
    space: ConfigSpace
    key: Sequence[str]
    sizes: tuple[tuple[int, ...], tuple[int, ...]]  # the problem, and a neighbouring one
    launch: Callable[[RLMAutotuner, tuple[int, ...]], float]  # gives the largest error

    def steps(self, store: Store, reference: Store) -> Iterator[Step]:
        """Tune the problem, the same again, the neighbour; then, in ``reference``, everything."""
        size, neighbour = self.sizes
        yield self._step("a new key", size, store)
        yield self._step("the same key again", size, store)
        yield self._step("a neighbouring shape", neighbour, store)
        yield self._step("everything, to compare", size, reference, mode="full")

    def _step(self, what: str, size: tuple[int, ...], store: Store, **options: Any) -> Step:
        tuned = rlm_autotune(configs=self.space, key=self.key, store=store, **options)(self.kernel)
        before = store.info().n_measurements
        begin = time.perf_counter()
        wrong = self.launch(tuned, size)
        seconds = time.perf_counter() - begin
        measured = sum(store.info().n_measurements.values()) - sum(before.values())
        best = tuned.best_config
        options = {**best.kwargs, "num_warps": best.num_warps, "num_stages": best.num_stages}
        return Step(
            what=what,
            problem="x".join(map(str, size)),
            configs=len(tuned.configs),
            measured=measured,
            seconds=seconds,
            best=" ".join(f"{k}={v}" for k, v in options.items()),
            best_ms=tuned.configs_timings[best][0],
            wrong=wrong,
        )


def demos(device: str, *, interpreted: bool) -> list[Demo]:
    """The demo's kernels, with sizes that suit a torch device."""
    warps, stages = ([4], [2]) if interpreted else ([4, 8], [2, 3, 4])
    blocks = [16, 32, 64] if interpreted else [32, 64, 128, 256]
    return [
        Demo(
            name="matrix product",
            kernel=_demo_kernels.matmul,
            space=ConfigSpace(
                BLOCK_M=blocks,
                BLOCK_N=blocks,
                BLOCK_K=[16, 32, 64],
                num_warps=warps,
                num_stages=stages,
                constraint=lambda c: c["BLOCK_M"] * c["BLOCK_N"] <= 32768,
            ),
            key=["M", "N", "K"],
            sizes=((64, 64, 64), (64, 96, 64)) if interpreted else _GPU_MATMULS,
            launch=lambda kernel, size: _multiply(kernel, size, device),
        ),
        Demo(
            name="softmax",
            kernel=_demo_kernels.softmax,
            space=ConfigSpace(
                ROWS=[1, 2, 4, 8, 16],
                BLOCK=[32, 64, 128, 256] if interpreted else [128, 256, 512, 1024, 2048],
                num_warps=warps,
                num_stages=[2],
                constraint=lambda c: c["ROWS"] * c["BLOCK"] <= 16384,
            ),
            key=["n_rows", "n_columns"],
            sizes=((32, 256), (32, 320)) if interpreted else ((8192, 4096), (8192, 5120)),
            launch=lambda kernel, size: _normalise(kernel, size, device),
        ),
    ]


_GPU_MATMULS = ((2048, 2048, 2048), (2048, 3072, 2048))


def _multiply(kernel: RLMAutotuner, size: tuple[int, ...], device: str) -> float:
    m, n, k = size
    generator = torch.Generator(device).manual_seed(0)
    a = torch.randn(m, k, device=device, dtype=torch.float16, generator=generator)
    b = torch.randn(k, n, device=device, dtype=torch.float16, generator=generator)
    c = torch.empty(m, n, device=device, dtype=torch.float32)

    def grid(meta: dict[str, Any]) -> tuple[int, int]:
        return triton.cdiv(m, meta["BLOCK_M"]), triton.cdiv(n, meta["BLOCK_N"])

    kernel[grid](a, b, c, m, n, k, *a.stride(), *b.stride(), *c.stride())
    return float((c - a.float() @ b.float()).abs().max())


def _normalise(kernel: RLMAutotuner, size: tuple[int, ...], device: str) -> float:
    rows, columns = size
    x = torch.randn(rows, columns, device=device, generator=torch.Generator(device).manual_seed(0))
    y = torch.empty_like(x)

    def grid(meta: dict[str, Any]) -> tuple[int]:
        return (triton.cdiv(rows, meta["ROWS"]),)

    kernel[grid](x, y, rows, columns, x.stride(0), y.stride(0))
    return float((y - torch.softmax(x, dim=1)).abs().max())
