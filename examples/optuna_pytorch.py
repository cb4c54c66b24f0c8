"""An Optuna study over a small PyTorch model, described to the sampler by its exported ONNX graph.

    python examples/optuna_pytorch.py --trials 15

Trains on a synthetic problem (two spirals), so that nothing is downloaded.
"""

import argparse
import functools
import math
import warnings

import optuna
import torch
from torch import nn

from autotune_rlm.integrations.optuna import RLMSampler

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


def build(params):
    width, layers = params["width"], [nn.Linear(2, params["width"])]
    for _ in range(params["depth"]):
        layers += [ACTIVATIONS[params["activation"]](), nn.Linear(width, width)]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def describe(params):
    """The model as ONNX: what the sampler reads of parameters, tried or not."""
    return exported(params["width"], params["depth"], params["activation"])


@functools.cache  # the learning rate changes nothing in the graph
def exported(width, depth, activation):
    model = build({"width": width, "depth": depth, "activation": activation})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, (torch.zeros(1, 2),), verbose=False)
    return program.model_proto


def spirals(n, seed):
    generator = torch.Generator().manual_seed(seed)
    side = torch.randint(2, (n,), generator=generator)
    radius = torch.rand(n, generator=generator)
    angle = 3.0 * math.pi * radius + math.pi * side
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    return points + 0.02 * torch.randn(n, 2, generator=generator), side.float()


def objective(trial):
    params = {
        "width": trial.suggest_categorical("width", [8, 16, 32, 64]),
        "depth": trial.suggest_int("depth", 1, 4),
        "activation": trial.suggest_categorical("activation", list(ACTIVATIONS)),
    }
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    torch.manual_seed(0)
    model = build(params)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    (x, y), (x_test, y_test) = spirals(512, 0), spirals(512, 1)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y).backward()
        optimizer.step()
    with torch.no_grad():
        return float(((model(x_test)[:, 0] > 0) == (y_test > 0.5)).float().mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = RLMSampler(describe=describe, surrogate=False, seed=args.seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=args.trials)
    for trial in study.trials:
        print(f"{trial.number:3d}  accuracy {trial.value:.3f}  {trial.params}")
    print(f"best: {study.best_value:.3f} with {study.best_params}")


if __name__ == "__main__":
    main()
