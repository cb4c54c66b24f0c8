"""Optuna's own contract suites for samplers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

optuna = pytest.importorskip("optuna")
suites = pytest.importorskip("optuna.testing.pytest_samplers")

from autotune_rlm.integrations.optuna import RLMSampler  # noqa: E402


def _without_startup() -> RLMSampler:
    return RLMSampler(n_startup_trials=0, seed=0)


class TestRLMSampler(  # every promise of a single- and multi-objective sampler
    suites.BasicSamplerTestCase,
    suites.RelativeSamplerTestCase,
    suites.MultiObjectiveSamplerTestCase,
):
    @pytest.fixture
    def sampler(self) -> Callable[[], RLMSampler]:
        return _without_startup
