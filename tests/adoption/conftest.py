"""What the tests of adoption share with those of the decorator: a driver without a device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parents[1] / "triton"))

from triton_test_support import Oracle, time_of

from autotune_rlm.integrations.triton.stub import StubDriver

_NAMES = "BUDGET BUDGET_S MODE SURROGATE STORE DISABLE ENABLE CONFIGS_FROM AGREE"


@pytest.fixture(scope="session", autouse=True)
def _triton_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.getbasetemp().parent / "triton-cache"
        patch.setenv("TRITON_CACHE_DIR", str(cache))
        yield


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch, tmp_path):
    for name in _NAMES.split():
        monkeypatch.delenv(f"AUTOTUNE_RLM_{name}", raising=False)
    monkeypatch.setenv("AUTOTUNE_RLM_STORE", str(tmp_path / "store.db"))


@pytest.fixture
def stub():
    """The active driver while the test runs; launches take ``time_of``."""
    with StubDriver(time_ms=time_of) as driver:
        yield driver


@pytest.fixture
def oracle():
    return Oracle()
