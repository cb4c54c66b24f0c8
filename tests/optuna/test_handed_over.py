"""Every value comes as the objective asks for it, whatever storages and other samplers left behind."""

from __future__ import annotations

import enum
import warnings

import pytest

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.CRITICAL)

from optuna.distributions import FloatDistribution, IntDistribution  # noqa: E402
from optuna.samplers import PartialFixedSampler  # noqa: E402
from optuna.trial import create_trial  # noqa: E402

from autotune_rlm.integrations.optuna import RLMSampler  # noqa: E402


class Layer(str, enum.Enum):
    CONV = "conv"
    POOL = "pool"


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _sampler(**options):
    return RLMSampler(seed=0, warn_independent_sampling=False, **options)


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("choices", [[(1,), (2, 3)], list(Layer), [{"a": (1, 2)}, None, True]])
def test_categories_that_a_storage_gives_back_in_another_form(tmp_path, choices, jobs):
    given = []

    def objective(trial):
        given.append(trial.suggest_categorical("choice", choices))
        return trial.suggest_float("x", 0.0, 1.0)

    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.sqlite", sampler=_sampler())
    study.optimize(objective, n_trials=10, n_jobs=jobs)
    assert len(study.trials) == 10
    assert all(any(value is choice for choice in choices) for value in given)


@pytest.mark.parametrize("best", [(1, 2), (3,), None])
def test_an_earlier_study_from_a_storage_tells_of_tuples_and_none(tmp_path, best):
    def objective(trial):
        choice = trial.suggest_categorical("choice", [(1, 2), (3,), None])
        return trial.suggest_float("x", 0.0, 1.0) + (choice != best)

    storage = f"sqlite:///{tmp_path}/study.sqlite"
    sampler = optuna.samplers.RandomSampler(seed=0)
    optuna.create_study(study_name="a", storage=storage, sampler=sampler).optimize(objective, 12)
    earlier = optuna.load_study(study_name="a", storage=storage)
    study = optuna.create_study(sampler=_sampler(warm_start=[earlier]))
    study.optimize(objective, n_trials=1)
    assert study.trials[0].params["choice"] == best
    assert study.trials[0].params["x"] == pytest.approx(earlier.best_params["x"])


def test_added_trials_of_another_kind_do_not_end_a_study():
    study = optuna.create_study(sampler=_sampler())
    kinds = (FloatDistribution(0.0, 10.0), IntDistribution(1, 10), IntDistribution(1, 99, log=True))
    for kind in kinds:
        study.add_trial(create_trial(params={"x": 5}, distributions={"x": kind}, value=1.0))
    study.optimize(lambda trial: trial.suggest_float("x", 1e-3, 10.0, log=True), n_trials=8)
    assert len(study.trials) == 11
    assert all(isinstance(t.params["x"], float) for t in study.trials[3:])


def test_what_partial_fixed_sampler_fixes_is_fixed_in_the_proposal():
    def objective(trial):
        x, n = trial.suggest_float("x", 0.0, 1.0), trial.suggest_int("n", 0, 100)
        return (x - n / 100.0) ** 2

    study = optuna.create_study(sampler=_sampler())
    study.optimize(objective, n_trials=12)
    study.sampler = PartialFixedSampler({"n": 40}, study.sampler)
    study.optimize(objective, n_trials=6)
    fixed = study.trials[12:]
    assert {t.params["n"] for t in fixed} == {40}
    assert min(abs(t.params["x"] - 0.4) for t in fixed) < 0.05


def test_a_surrogate_with_too_few_predictions_does_not_end_a_study():
    class Short:
        def predict(self, task, candidates, observed=None):
            return type("Prediction", (), {"location": [0.0]})

    sampler = _sampler(surrogate=Short(), describe=lambda params: f"x = {params['x']}")
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=5)
    assert len(study.trials) == 5
