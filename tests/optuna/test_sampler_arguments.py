"""What ``RLMSampler`` is given is checked before any trial."""

from __future__ import annotations

import pytest

optuna = pytest.importorskip("optuna")

from autotune_rlm.integrations.optuna import RLMSampler  # noqa: E402


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"describe": 3}, "describe must be"),
        ({"context": "accuracy"}, "context must be"),
        ({"context": [{"metric": "accuracy"}, 3]}, "context must be"),
        ({"surrogate": 3}, "surrogate must be"),
        ({"surrogate": "no/such/folder/anywhere"}, "surrogate: there is no"),
        ({"surrogate": "nono"}, "bundled ones are: nano"),
        ({"warm_start": [3]}, "each of warm_start must be a Study"),
        ({"warm_start": 3}, "warm_start must be"),
        ({"store": 3}, "store must be"),
        ({"n_startup_trials": 2.5}, "n_startup_trials must be"),
        ({"n_startup_trials": -1}, "n_startup_trials must be"),
        ({"seed": "a"}, "seed must be"),
        ({"seed": -1}, "seed must be"),
        ({"deterministic_objective": "no"}, "deterministic_objective must be"),
        ({"warn_independent_sampling": 3}, "warn_independent_sampling must be"),
        ({"constraints_func": 3}, "constraints_func must be"),
        ({"independent_sampler": 3}, "independent_sampler must be"),
    ],
)
def test_arguments_are_checked_when_the_sampler_is_made(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        RLMSampler(**options)


def test_a_study_is_not_a_list_of_studies():
    study = optuna.create_study()
    with pytest.raises(TypeError, match="put studies into a list"):
        RLMSampler(warm_start=study)


def test_constraints_func_must_give_numbers():
    study = optuna.create_study(sampler=RLMSampler(seed=0, constraints_func=lambda trial: 1.0))
    with pytest.raises(TypeError, match="constraints_func must return a list or tuple of numbers"):
        study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=1)
    assert study.trials[0].value is not None
