"""Seconds that RLMSampler takes to propose a trial when many are finished.

    python benchmarks/suggestion_time.py --finished 1000 --proposals 30

Three studies, each filled with random finished trials: numbers alone, choices alone (with no
description), and NAS-Bench-201 cells with their space as description. Prints the median, the 90 %
quantile and the largest of the wall-clock and of the CPU times of a proposal, one thread.
"""

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table

from autotune_rlm.integrations.onnx import space
from autotune_rlm.integrations.optuna import RLMSampler

CELLS = space("nasbench201")


def numbers(trial):
    return sum((trial.suggest_float(f"x{i}", 0, 1) - 0.3) ** 2 for i in range(6))


def mixed(trial):
    rate = trial.suggest_float("lr", 1e-5, 1, log=True)
    depth = trial.suggest_int("depth", 1, 8)
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    return (np.log10(rate) + 3) ** 2 + abs(depth - 5) + (kind != "b")


def cells(trial):
    config = {n: trial.suggest_categorical(n, v) for n, v in CELLS.parameters.items()}
    return -sum((i + 1) * (v == "nor_conv_3x3") for i, v in enumerate(config.values()))


STUDIES = {"6 numbers": (numbers, None), "mixed": (mixed, None), "NAS-Bench-201": (cells, CELLS)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--finished", type=int, default=1000)
    parser.add_argument("--proposals", type=int, default=30)
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = Table("study", "clock", "median ms", "90 % ms", "largest ms", title="one proposal")
    for name, (objective, describe) in STUDIES.items():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.optimize(objective, n_trials=args.finished)
        study.sampler = RLMSampler(describe=describe, seed=0, warn_independent_sampling=False)
        study.optimize(objective, n_trials=2)  # load, fit and describe once
        wall, cpu = [], []
        for _ in range(args.proposals):
            begin = time.perf_counter(), time.process_time()
            trial = study.ask()
            value = objective(trial)
            wall.append(time.perf_counter() - begin[0])
            cpu.append(time.process_time() - begin[1])
            study.tell(trial, value)
        for clock, seconds in (("wall", wall), ("CPU", cpu)):
            values = 1e3 * np.array([*np.quantile(seconds, (0.5, 0.9)), max(seconds)])
            table.add_row(name, clock, *(f"{v:.0f}" for v in values))
    Console().print(table)


if __name__ == "__main__":
    main()
