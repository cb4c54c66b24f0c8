"""RLMSampler and the store: trials are kept, and lead later studies."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

optuna = pytest.importorskip("optuna")

from autotune_rlm.integrations.optuna import RLMSampler  # noqa: E402
from autotune_rlm.store import Store  # noqa: E402
from autotune_rlm.types import Status  # noqa: E402


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _bowl(scale):
    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        return scale * ((x - 0.31) ** 2 + (y - 0.77) ** 2)

    return objective


def _study(sampler, name="bowl", directions=("minimize",)):
    return optuna.create_study(directions=list(directions), sampler=sampler, study_name=name)


def test_trials_are_kept_and_lead_the_next_study_of_that_name(tmp_path):
    path = tmp_path / "store.sqlite"
    first = _study(RLMSampler(seed=0, store=path))
    first.optimize(_bowl(1.0), n_trials=25)
    with Store(path) as store:
        (task,) = store.tasks()
        assert len(store.observations(task)) == 25
        assert (task.kernel, task.language, task.minimize) == ("bowl", "optuna", True)
    led, alone = [], []
    for seed in (1, 2):
        with Store(path, read_only=True) as store:
            again = _study(RLMSampler(seed=seed, store=store, n_startup_trials=1))
            again.optimize(_bowl(100.0), n_trials=5)
        fresh = _study(RLMSampler(seed=seed), name="other")
        fresh.optimize(_bowl(100.0), n_trials=5)
        led.append(again.best_value)
        alone.append(fresh.best_value)
    assert max(led) < min(alone)


def test_other_names_and_metrics_lead_nobody(tmp_path):
    path = tmp_path / "store.sqlite"
    _study(RLMSampler(seed=0, store=path), name="a").optimize(_bowl(1.0), n_trials=12)
    values = []
    for store in (path, None):
        study = _study(RLMSampler(seed=3, store=store), name="b")
        study.optimize(_bowl(1.0), n_trials=9)
        values.append([t.value for t in study.trials])
    assert values[0] == values[1]


def test_failed_trials_and_several_objectives_are_kept(tmp_path):
    path = tmp_path / "store.sqlite"

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if trial.number == 3:
            raise RuntimeError("out of memory")
        return x, (1 - x) ** 2

    study = _study(RLMSampler(seed=0, store=path), directions=("minimize", "maximize"))
    study.optimize(objective, n_trials=10, catch=(RuntimeError,))
    with Store(path) as store:
        tasks = store.tasks()
        assert sorted((t.metric, t.minimize) for t in tasks) == [
            ("objective_0", True),
            ("objective_1", False),
        ]
        for task in tasks:
            states = [o.measurement.status for o in store.observations(task, every=True)]
            assert states.count(Status.OK) == 9
            assert states.count(Status.RUNTIME_ERROR) == 1
    again = _study(RLMSampler(seed=1, store=path), directions=("minimize", "maximize"))
    again.optimize(objective, n_trials=3)
    assert len(again.trials) == 3


def test_a_sampler_with_a_path_can_be_pickled(tmp_path):
    sampler = RLMSampler(seed=0, store=tmp_path / "store.sqlite")
    _study(sampler).optimize(_bowl(1.0), n_trials=2)
    copy = pickle.loads(pickle.dumps(sampler))
    study = _study(copy)
    study.optimize(_bowl(1.0), n_trials=2)
    assert np.isfinite(study.best_value)


def test_the_hub_package_is_the_sampler():
    from pathlib import Path

    optunahub = pytest.importorskip("optunahub")
    root = Path(__file__).parents[2] / "optunahub" / "package"
    module = optunahub.load_local_module("samplers/rlm", registry_root=str(root))
    assert module.RLMSampler is RLMSampler
    assert {"LICENSE", "README.md", "__init__.py", "requirements.txt"} <= {
        path.name for path in (root / "samplers" / "rlm").iterdir()
    }
    package = root / "samplers" / "rlm"
    assert (package / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    assert "license: MIT License" in (package / "README.md").read_text(encoding="utf-8")
