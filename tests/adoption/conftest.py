"""What the tests of adoption share with those of the decorator: a driver without a device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parents[1] / "triton"))

from triton_test_support import oracle, stub, triton_cache

__all__ = ["oracle", "stub", "triton_cache"]
_NAMES = "BUDGET BUDGET_S MODE SURROGATE STORE DISABLE ENABLE CONFIGS_FROM AGREE"


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch, tmp_path):
    for name in _NAMES.split():
        monkeypatch.delenv(f"AUTOTUNE_RLM_{name}", raising=False)
    monkeypatch.setenv("AUTOTUNE_RLM_STORE", str(tmp_path / "store.db"))
