"""A driver without a device, and what the tests share."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")
from triton_test_support import Quick, body, oracle, stub, triton_cache

__all__ = ["oracle", "stub", "triton_cache"]


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch):
    names = ("BUDGET", "BUDGET_S", "MODE", "SURROGATE", "STORE", "DISABLE")
    for name in (*names, "CONFIGS_FROM", "ISOLATE", "CHECK", "QUIET"):
        monkeypatch.delenv(f"AUTOTUNE_RLM_{name}", raising=False)


@pytest.fixture
def quick():
    """A ``Quick`` kernel of x, y, n and BLOCK."""
    return Quick(body)


@pytest.fixture
def store_path(tmp_path):
    """Where a store of this test alone is."""
    return str(tmp_path / "store.db")
