"""Without a GPU and without a stub: Triton's interpreter and the wall clock."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from triton_test_support import Oracle, configs

from autotune_rlm import Store, rlm_autotune


@pytest.fixture
def interpreted(monkeypatch):
    """Kernels decorated in the test run in the interpreter."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def test_a_kernel_is_tuned_and_right(interpreted, store_path):
    def scale(x, y, n, BLOCK: tl.constexpr):
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(y + at, tl.load(x + at, mask=at < n) * 2, mask=at < n)

    def tune():
        few = configs(blocks=(16, 256), warps=(1,))
        return rlm_autotune(configs=few, key=["n"], store=store_path)(triton.jit(scale))

    x = torch.randn(256)
    for search in (True, False):
        y = torch.empty_like(x)
        kernel = tune()
        kernel[lambda meta: (triton.cdiv(256, meta["BLOCK"]),)](x, y, 256)
        assert torch.equal(y, 2 * x)
        assert kernel.best_config.kwargs["BLOCK"] == 256
        assert (kernel.bench_time > 0) is search
    with Store(store_path) as store:
        (task,) = store.tasks()
        observed = store.observations(task)
    assert task.device.name.endswith("(Triton interpreter)")
    assert "tl.load(x + at" in task.source
    assert {o.measurement.state["timer"] for o in observed} == {"wall"}
    assert all(o.measurement.samples for o in observed)


def test_what_raises_in_the_interpreter_is_a_failure(interpreted, store_path):
    def picky(x, n, BLOCK: tl.constexpr):
        tl.static_assert(BLOCK > 16)
        at = tl.arange(0, BLOCK)
        tl.store(x + at, 1.0, mask=at < n)

    few = configs(blocks=(16, 64), warps=(1,))
    kernel = rlm_autotune(configs=few, key=["n"], store=store_path, surrogate=Oracle())(
        triton.jit(picky)
    )
    kernel[(1,)](torch.zeros(64), 64)
    assert kernel.best_config.kwargs["BLOCK"] == 64
    with Store(store_path) as store:
        (task,) = store.tasks()
        failed = [o for o in store.observations(task) if not o.measurement.ok]
    assert [o.candidate.config["BLOCK"] for o in failed] == [16]
