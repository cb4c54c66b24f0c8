"""A kernel that costs nothing to compile, timings by configuration, and a surrogate that knows them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import triton
from triton.runtime.jit import KernelInterface

from autotune_rlm import Store, rlm_autotune
from autotune_rlm.integrations.triton.stub import Launch, StubDriver
from autotune_rlm.types import Prediction

# Older versions raise plain errors where nothing worked.
AutotunerError = getattr(triton.runtime.errors, "AutotunerError", RuntimeError)
X = torch.zeros(64)


def time_of(launch: Launch) -> float:
    """Milliseconds by configuration: a block of 256 with 2 warps is the fastest."""
    block = launch.constants.get("BLOCK", 256)
    warps = launch.options.get("num_warps", 4)
    return 1.0 + abs(np.log2(block / 256)) + 0.25 * abs(np.log2(warps / 2))


class Quick(KernelInterface):
    """A kernel that needs no compiling: a launch is told to the stub driver, or fails as asked."""

    def __init__(self, function: Callable[..., Any], fails: Callable[[dict], Any] | None = None):
        self.fn = function
        self.arg_names = list(inspect.signature(function).parameters)
        self._fails = fails or (lambda given: None)
        self.__name__ = function.__name__

    def run(self, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> str:
        given = {**dict(zip(self.arg_names, args, strict=False)), **kwargs}
        error = self._fails(given)
        if error is not None:
            raise error
        if not warmup:
            constants = {k: v for k, v in given.items() if k in self.arg_names}
            options = {k: v for k, v in kwargs.items() if k.startswith("num_")}
            grid = grid(given) if callable(grid) else grid
            triton.runtime.driver.active.launched(Launch(self.__name__, constants, options, grid))
        return "launched"

    def warmup(self, *args: Any, grid: Any, **kwargs: Any) -> dict[str, Any]:
        self.run(*args, grid=grid, warmup=True, **kwargs)
        return kwargs


def body(x, y, n, BLOCK):
    """What a quick kernel pretends to be."""


class Oracle:
    """A surrogate that knows ``time_of``, or its opposite, and counts its questions."""

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign
        self.asked = 0

    def predict(self, task, candidates, *, observed=()):
        self.asked += 1
        times = np.array([time_of(Launch("", c.config, c.config, (1, 1, 1))) for c in candidates])
        median = times**self.sign
        return Prediction(
            metric=task.metric,
            median=median,
            low=median * 0.9,
            high=median * 1.1,
            spread=np.full(len(median), 0.02),
            p_valid=np.full(len(median), 0.99),
        )


def configs(blocks=(32, 64, 128, 256, 512, 1024), warps=(1, 2, 4)):
    """Configurations of one block size; the first is a poor one."""
    return [triton.Config({"BLOCK": b}, num_warps=w) for b in blocks for w in warps]


def tuned(kernel, store, **options):
    """The kernel under ``rlm_autotune`` with a surrogate that knows its times."""
    options = {"configs": configs(), "key": ["n"], "surrogate": Oracle(), **options}
    return rlm_autotune(store=store, **options)(kernel)


def few(kernel, store, **options):
    """``tuned`` with three configurations, for which ``few_grid`` is the grid of 64 elements."""
    return tuned(kernel, store, **{"configs": FEW, **options})


def few_grid(given):
    """One program for each block."""
    return (triton.cdiv(64, given["BLOCK"]),)


FEW = configs(blocks=(64, 128, 256), warps=(1,))


@pytest.fixture(scope="module", autouse=True)
def triton_cache(tmp_path_factory):
    """All tests share Triton's cache, so that equal kernels are compiled once a session."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.getbasetemp().parent / "triton-cache"
        patch.setenv("TRITON_CACHE_DIR", str(cache))
        patch.setenv("TRITON_DEFAULT_FP_FUSION", os.environ.get("TRITON_DEFAULT_FP_FUSION", "1"))
        yield


@pytest.fixture
def stub():
    """The active driver while the test runs; launches take ``time_of``."""
    with StubDriver(time_ms=time_of) as driver:
        yield driver


@pytest.fixture
def oracle():
    return Oracle()


def known(store):
    """Observations of the one task in the store."""
    with Store(store) as opened:
        (task,) = opened.tasks()
        return opened.observations(task)


def rows(path):
    """Status by block of everything that a store holds."""
    with Store(path) as store:
        observed = [o for task in store.tasks() for o in store.observations(task)]
    return {o.candidate.config["BLOCK"]: o.measurement.status.value for o in observed}
