"""Seconds that RLMSampler takes to propose a trial when many are finished.

    python benchmarks/suggestion_time.py --finished 1000 --proposals 30
    python benchmarks/suggestion_time.py --finished 12 --proposals 5 --gp

Studies filled with random finished trials: 6 to 500 numbers, few and many mixed parameters, and
NAS-Bench-201 cells with their space as description; ``--only`` chooses among them. With ``--gp`` also
Optuna's GPSampler. Prints the median, the 90 % quantile and the largest of the wall-clock and of the CPU
times of a proposal, one thread.
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


def numbers(n):
    return lambda trial: sum((trial.suggest_float(f"x{i}", 0, 1) - 0.3) ** 2 for i in range(n))


def twenty(trial):
    floats = sum((trial.suggest_float(f"x{i}", 0, 1) - 0.3) ** 2 for i in range(7))
    ints = sum(abs(trial.suggest_int(f"n{i}", 1, 100, log=True) - 9) for i in range(7))
    kinds = [trial.suggest_categorical(f"kind{i}", ["a", "b", "c"]) for i in range(6)]
    return floats + 0.1 * ints + sum(kind != "b" for kind in kinds)


def mixed(trial):
    rate = trial.suggest_float("lr", 1e-5, 1, log=True)
    depth = trial.suggest_int("depth", 1, 8)
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    return (np.log10(rate) + 3) ** 2 + abs(depth - 5) + (kind != "b")


def cells(trial):
    config = {n: trial.suggest_categorical(n, v) for n, v in CELLS.parameters.items()}
    return -sum((i + 1) * (v == "nor_conv_3x3") for i, v in enumerate(config.values()))


STUDIES = {
    **{f"{n} numbers": (numbers(n), None) for n in (6, 10, 50, 200, 500)},
    "3 mixed": (mixed, None),
    "20 mixed": (twenty, None),
    "NAS-Bench-201": (cells, CELLS),
}


def samplers(describe, gp):
    yield "rlm", RLMSampler(describe=describe, seed=0, warn_independent_sampling=False)
    if gp and describe is None:
        yield "gp", optuna.samplers.GPSampler(seed=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--finished", type=int, default=1000)
    parser.add_argument("--proposals", type=int, default=30)
    parser.add_argument("--gp", action="store_true", help="also time Optuna's GPSampler")
    parser.add_argument("--only", action="append", help="name of a study; repeatable")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = Table("study", "sampler", "clock", "median ms", "90 % ms", "largest ms")
    for name, (objective, describe) in STUDIES.items():
        if args.only and name not in args.only:
            continue
        for short, sampler in samplers(describe, args.gp):
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
            study.optimize(objective, n_trials=args.finished)
            study.sampler = sampler
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
                table.add_row(name, short, clock, *(f"{v:.0f}" for v in values))
    Console().print(table)


if __name__ == "__main__":
    main()
