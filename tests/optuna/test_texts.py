"""Texts that describe parameters reach the process and the surrogate."""

from __future__ import annotations

import numpy as np
import pytest

optuna = pytest.importorskip("optuna")

from autotune_rlm.integrations.optuna import RLMSampler  # noqa: E402


def test_a_text_tells_the_process_what_the_parameters_stand_for():
    order = np.random.default_rng(0).permutation(60)

    def describe(params):
        width = int(order[params["recipe"]])
        return f"def net(x):\n    x = linear(x, {width})\n" + "    x = relu(x)\n" * (width % 3)

    def objective(trial):
        return abs(int(order[trial.suggest_categorical("recipe", list(range(60)))]) - 41)

    def after(n, describe):
        best = []
        for seed in range(4):
            sampler = RLMSampler(seed=seed, describe=describe, surrogate=False)
            study = optuna.create_study(sampler=sampler)
            study.optimize(objective, n_trials=n)
            best.append(study.best_value)
        return max(best)

    assert after(14, describe) <= 1 < after(14, None)


def test_code_and_prose_reach_the_surrogate():
    from autotune_rlm.types import Prediction

    read = []

    class Reader:
        def predict(self, task, candidates, *, observed=()):
            read.extend(c.text for c in candidates)
            value = np.array([float(len(c.text)) for c in candidates])
            return Prediction(
                metric=task.metric,
                median=value,
                low=value - 1,
                high=value + 1,
                spread=np.ones(len(value)),
                p_valid=np.ones(len(value)),
                log_scale=False,
            )

    sampler = RLMSampler(
        seed=0, surrogate=Reader(), describe=lambda p: "word " * p["n"], context={"metric": "cost"}
    )
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda t: t.suggest_int("n", 1, 99), n_trials=4)
    assert any(text.startswith("word word") for text in read)
    assert study.best_value <= 5
