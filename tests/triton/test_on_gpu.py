"""The decorator on a real device: right results, kept measurements, faults that only a GPU has."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import triton
import triton.language as tl
from triton_test_kernels import scale

from autotune_rlm import Store, rlm_autotune
from autotune_rlm.landscapes import read_landscapes
from autotune_rlm.types import Status

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA or AMD GPU"),
]

BLOCKS = [triton.Config({"BLOCK": b}, num_warps=w) for b in (64, 256, 1024) for w in (1, 4, 8)]


@triton.jit
def product(a, b, c, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """A matrix product of sizes that the blocks divide."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        left = tl.load(a + m[:, None] * K + k[None, :])
        total = tl.dot(left, tl.load(b + k[:, None] * N + n[None, :]), total)
    tl.store(c + m[:, None] * N + n[None, :], total.to(c.dtype.element_ty))


@triton.jit
def stray(x, y, n, BLOCK: tl.constexpr):
    """Writes far outside of its tensors with a block of 64."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    far = 1 << 46 if BLOCK == 64 else 0
    tl.store(y + at.to(tl.int64) + far, tl.load(x + at, mask=at < n), mask=at < n)


@triton.jit
def count(x, n, BLOCK: tl.constexpr):
    """Adds one to every element, so that launches can be counted."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + at, tl.load(x + at, mask=at < n) + 1, mask=at < n)


def grid(meta):
    return (triton.cdiv(meta["n"], meta["BLOCK"]),)


def observations(path):
    with Store(path) as store:
        return [o for task in store.tasks() for o in store.observations(task)]


def test_a_product_is_right_and_its_measurements_are_kept(store_path):
    configs = [
        triton.Config({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k}, num_warps=w, num_stages=s)
        for m in (32, 64, 128)
        for n in (32, 64, 128)
        for k in (32, 64)
        for w in (4, 8)
        for s in (2, 3)
    ]
    size = 1024
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.float16) for _ in range(2))
    c = torch.empty_like(a)

    def blocks(meta):
        return triton.cdiv(size, meta["BLOCK_M"]), triton.cdiv(size, meta["BLOCK_N"])

    tuned = rlm_autotune(configs, ["M", "N", "K"], budget=8, store=store_path)(product)
    tuned[blocks](a, b, c, size, size, size)
    assert torch.allclose(c.float(), a.float() @ b.float(), atol=0.3, rtol=1e-2)
    kept = observations(store_path)
    assert len(kept) >= 8
    fastest = min(o.measurement.value for o in kept if o.measurement.value is not None)
    assert 0 < fastest < 10  # ms; 2 GFLOP
    again = rlm_autotune(configs, ["M", "N", "K"], budget=8, store=store_path)(product)
    again[blocks](a, b, c, size, size, size)
    assert again.best_config.all_kwargs() == tuned.best_config.all_kwargs()
    assert len(observations(store_path)) == len(kept)


def test_what_triton_measures_in_full_is_no_faster_by_much(store_path):
    x = torch.randn(1 << 24, device="cuda")
    y = torch.empty_like(x)
    tuned = rlm_autotune(BLOCKS, ["n"], mode="full", store=store_path)(scale)
    tuned[grid](x, y, x.numel())
    assert torch.equal(y, 2 * x)
    full = triton.autotune(BLOCKS, ["n"])(scale)
    full[grid](x, y, x.numel())
    theirs = {tuple(sorted(c.all_kwargs().items())): t for c, t in full.configs_timings.items()}
    chosen = theirs[tuple(sorted(tuned.best_config.all_kwargs().items()))]
    chosen = chosen[0] if isinstance(chosen, (list, tuple)) else chosen
    best = min(t[0] if isinstance(t, (list, tuple)) else t for t in theirs.values())
    assert chosen <= 1.2 * best


def test_values_are_given_back_and_a_launch_runs_once(store_path):
    x = torch.zeros(1 << 16, device="cuda")
    tuned = rlm_autotune(BLOCKS, ["n"], restore_value=["x"], store=store_path)(count)
    tuned[grid](x, n=x.numel())
    assert torch.equal(x, torch.ones_like(x))
    tuned[grid](x, n=x.numel())
    assert torch.equal(x, torch.full_like(x, 2))


def test_in_a_process_of_its_own_an_illegal_address_is_left_out(store_path):
    x = torch.randn(1 << 16, device="cuda")
    y = torch.empty_like(x)
    tuned = rlm_autotune(BLOCKS, ["n"], mode="full", isolate=True, store=store_path)(stray)
    tuned[grid](x, y, x.numel())
    torch.cuda.synchronize()
    assert torch.equal(x, y)
    assert tuned.best_config.kwargs["BLOCK"] != 64
    status = {o.candidate.config["BLOCK"]: o.measurement.status for o in observations(store_path)}
    assert status[64] is Status.CRASHED or status[64] is Status.RUNTIME_ERROR
    assert status[256] is Status.OK


def test_check_leaves_out_what_writes_something_else(store_path):
    @triton.jit
    def wrong(x, y, n, BLOCK: tl.constexpr):
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        more = 1.0 if BLOCK == 1024 else 0.0
        tl.store(y + at, tl.load(x + at, mask=at < n) + more, mask=at < n)

    x = torch.randn(1 << 20, device="cuda")
    y = torch.empty_like(x)
    tuned = rlm_autotune(BLOCKS, ["n"], mode="full", check="default", store=store_path)(wrong)
    tuned[grid](x, y, x.numel())
    assert torch.equal(x, y)
    assert tuned.best_config.kwargs["BLOCK"] != 1024


def test_a_new_key_inside_a_graph_capture_takes_the_prediction(store_path):
    x = torch.randn(1 << 16, device="cuda")
    y = torch.zeros_like(x)
    tuned = rlm_autotune(BLOCKS, ["n"], store=store_path)(scale)
    tuned[grid](x[: 1 << 15], y[: 1 << 15], 1 << 15)  # loads what a first launch loads
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        tuned[grid](x, y, x.numel())
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, 2 * x)


def test_a_suite_is_recorded(tmp_path):
    out = tmp_path / "here.jsonl.gz"
    command = [sys.executable, "-m", "autotune_rlm.cli", "record", "--kernel", "softmax_rows"]
    done = subprocess.run(
        [*command, "--max-points", "8", "--problems", "2", "--out", str(out)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    landscapes = list(read_landscapes(out))
    found = [m for landscape in landscapes for m in landscape.measurements]
    assert sum(m.status is Status.OK for m in found) >= 4, found
