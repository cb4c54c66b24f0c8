"""A study with ``RLMSampler`` from OptunaHub."""

import optuna
import optunahub


def objective(trial: optuna.Trial) -> float:
    """Two parameters, minimum at lr = 0.01 and layers = 3."""
    lr = trial.suggest_float("lr", 1e-5, 1.0, log=True)
    layers = trial.suggest_int("layers", 1, 8)
    return (lr - 0.01) ** 2 + 0.1 * (layers - 3) ** 2


if __name__ == "__main__":
    sampler = optunahub.load_module("samplers/rlm").RLMSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=30)
    print(study.best_trial.value, study.best_trial.params)
