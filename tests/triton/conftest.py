"""A driver without a device, and what the tests share."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("triton")
from triton_test_support import Oracle, Quick, body, time_of

from autotune_rlm.integrations.triton.stub import StubDriver


@pytest.fixture(scope="module", autouse=True)
def _triton_settings(tmp_path_factory):
    """All tests here share Triton's cache, so that equal kernels are compiled once a session."""
    cache = tmp_path_factory.getbasetemp().parent / "triton-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(cache))
        patch.setenv("TRITON_DEFAULT_FP_FUSION", os.environ.get("TRITON_DEFAULT_FP_FUSION", "1"))
        yield


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch):
    names = ("BUDGET", "BUDGET_S", "MODE", "SURROGATE", "STORE", "DISABLE")
    for name in (*names, "CONFIGS_FROM", "ISOLATE", "CHECK", "QUIET"):
        monkeypatch.delenv(f"AUTOTUNE_RLM_{name}", raising=False)


@pytest.fixture
def stub():
    """The active driver while the test runs; launches take ``time_of``."""
    with StubDriver(time_ms=time_of) as driver:
        yield driver


@pytest.fixture
def quick():
    """A ``Quick`` kernel of x, y, n and BLOCK."""
    return Quick(body)


@pytest.fixture
def oracle():
    return Oracle()


@pytest.fixture
def store_path(tmp_path):
    """Where a store of this test alone is."""
    return str(tmp_path / "store.db")
