"""Samplers of Optuna ranked on model tuning, functions, and studies of several objectives.

    python benchmarks/study_ranks.py run RESULTS.jsonl --method rlm --method tpe --seeds 5 --trials 50
    python benchmarks/study_ranks.py ranks RESULTS.jsonl

A task and a seed are one race. A sampler's standing after n trials is the best value so far (of a noisy
objective the true value of the best observed; under constraints of trials that hold them; of several
objectives the hypervolume, negated). Races that the file holds are not run again. The tables with two
objectives (``table2/``) run only where ``--only`` names them. The ranks are means
over races, with an interval of 90 % from resampled tasks. ``auto``, ``hebo`` and ``smac`` come from a
copy of OptunaHub's registry (``--registry .../package``) and need their own packages.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
from make_tuning_tables import is_range, values_of
from optuna_samplers import ackley, branin, floats, hartmann, mixed, rosenbrock

from autotune_rlm.integrations.optuna import RLMSampler

TABLES = Path(__file__).with_name("tuning_tables.json")
AT = (10, 20, 50, 100, 200)
INFEASIBLE = 1e9
NAMES = {"rlm": "`rlm`", "tpe": "TPE", "gp": "GP", "auto": "AutoSampler", "cmaes": "CMA-ES",
         "smac": "SMAC3", "hebo": "HEBO", "nsga2": "NSGA-II"}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """An objective to be minimised.

    Attributes:
        group: Kind of the problem.
        objective: Trial to a value, or to several.
        reference: Worst point of the hypervolume of several objectives.
        truth: Of a noisy objective the value without noise; by default the objective is exact.
        constrained: Whether trials keep a value above 0 in ``user_attrs["c"]`` where they are infeasible.
    """

    group: str
    objective: Callable
    reference: tuple[float, ...] = ()
    truth: Callable | None = None
    constrained: bool = False


def table_problems():
    for line in TABLES.read_text(encoding="utf-8").splitlines():
        table = json.loads(line)
        yield f"table/{table['name']}", Problem("tables", of_table(table, "error"))
        sizes = [s for s in table["size"] if s is not None]
        if max(sizes) > 2 * min(sizes):
            errors = [e for e in table["error"] if e is not None]
            corner = (float(np.quantile(errors, 0.9)), float(np.quantile(np.log1p(sizes), 0.9)))
            both = of_table(table, "error", "size")
            yield f"table2/{table['name']}", Problem("tables of two objectives", both, corner)


def of_table(table, *targets):
    values = {name: values_of(given) for name, given in table["grid"].items()}
    shape = [len(v) for v in values.values()]
    columns = [np.array(table[t], dtype=float).reshape(shape) for t in targets]

    def objective(trial):
        index = []
        for name, given in table["grid"].items():
            if not is_range(given):
                index.append(given.index(trial.suggest_categorical(name, given)))
            elif all(isinstance(g, int) for g in given):
                low, high, step = given
                high = values[name][-1]
                index.append((trial.suggest_int(name, low, high, step=step) - low) // step)
            else:
                low, _, step = given
                x = trial.suggest_float(name, low, values[name][-1], step=step)
                index.append(round((x - low) / step))
        found = [float(c[tuple(index)]) for c in columns]
        if not np.isfinite(found).all():
            raise optuna.TrialPruned
        return found[0] if len(found) == 1 else (found[0], float(np.log1p(found[1])))

    return objective


def levy(d):
    def objective(trial):
        w = 1 + (floats(trial, d, -10, 10) - 1) / 4
        middle = ((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2)).sum()
        last = (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2)
        return float(np.sin(np.pi * w[0]) ** 2 + middle + last)

    return objective


def moved(function, d, low, high, shift):
    """A function whose optimum is not in the middle of the space."""

    def objective(trial):
        return float(function(floats(trial, d, low, high) - shift * np.cos(np.arange(d) * 2.3)))

    return objective


def bowl(x):
    return ((1 + np.arange(len(x)) % 5) * x**2).sum()


def styblinski(x):
    return 0.5 * (x**4 - 16 * x**2 + 5 * x).sum() / len(x)


def griewank(x):
    return (x**2).sum() / 4000 - np.prod(np.cos(x / np.sqrt(1 + np.arange(len(x))))) + 1


def noisy(function, size):
    def objective(trial):
        value = function(trial)
        trial.set_user_attr("truth", value)
        return value + size * np.random.default_rng([trial.number, 7]).standard_normal()

    return objective


def zdt1(trial):
    x = floats(trial, 6, 0, 1)
    g = 1 + 9 * x[1:].mean()
    return float(x[0]), float(g * (1 - np.sqrt(x[0] / g)))


def zdt3(trial):
    x = floats(trial, 6, 0, 1)
    g = 1 + 9 * x[1:].mean()
    ratio = x[0] / g
    return float(x[0]), float(g * (1 - np.sqrt(ratio) - ratio * np.sin(10 * np.pi * x[0])))


def dtlz2(trial):
    x = floats(trial, 6, 0, 1)
    g, a, b = 1 + ((x[2:] - 0.5) ** 2).sum(), x[0] * np.pi / 2, x[1] * np.pi / 2
    return (
        float(g * np.cos(a) * np.cos(b)),
        float(g * np.cos(a) * np.sin(b)),
        float(g * np.sin(a)),
    )


def conditional(trial):
    model = trial.suggest_categorical("model", ["svm", "forest", "boosting"])
    if model == "svm":
        c = trial.suggest_float("C", 1e-3, 1e3, log=True)
        gamma = trial.suggest_float("gamma", 1e-4, 10, log=True)
        return 0.3 + 0.05 * (np.log10(c) - 1) ** 2 + 0.04 * (np.log10(gamma) + 2) ** 2
    if model == "forest":
        depth = trial.suggest_int("depth", 1, 20)
        share = trial.suggest_float("share", 0.1, 1.0)
        return 0.25 + 0.01 * abs(depth - 12) + (share - 0.4) ** 2
    rate = trial.suggest_float("rate", 1e-4, 1, log=True)
    leaves = trial.suggest_int("leaves", 2, 256, log=True)
    value = 0.15 + 0.1 * (np.log10(rate) + 1.3) ** 2 + 0.02 * (np.log2(leaves) - 5) ** 2
    if trial.suggest_categorical("bagging", [False, True]):
        value += (trial.suggest_float("fraction", 0.1, 1.0) - 0.7) ** 2 - 0.05
    return float(value)


def layers(trial):
    n = trial.suggest_int("layers", 1, 4)
    best = (7, 5, 6, 3)
    widths = [trial.suggest_int(f"log2_width_{i}", 2, 9) for i in range(n)]
    rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    value = sum(0.05 * (w - b) ** 2 for w, b in zip(widths, best, strict=False))
    return float(value + 0.3 * (n - 3) ** 2 + (np.log10(rate) + 3) ** 2)


def within(function, constraint):
    def objective(trial):
        value = function(trial)
        trial.set_user_attr("c", float(constraint(trial.params)))
        return value

    return objective


def problems():
    yield "branin", Problem("functions", branin)
    yield "hartmann-6", Problem("functions", hartmann)
    yield "rosenbrock-4", Problem("functions", rosenbrock)
    yield "ackley-5", Problem("functions", ackley)
    yield "levy-10", Problem("functions", levy(10))
    yield "bowl-12", Problem("functions", moved(bowl, 12, -5, 5, 2.5))
    yield "styblinski-20", Problem("functions", moved(styblinski, 20, -5, 5, 1.0))
    yield "griewank-40", Problem("functions", moved(griewank, 40, -50, 50, 20.0))
    yield "mixed", Problem("mixed and conditional", mixed)
    yield "conditional", Problem("mixed and conditional", conditional)
    yield "layers", Problem("mixed and conditional", layers)
    truth = "truth"
    yield "noisy-rosenbrock-4", Problem("noisy", noisy(rosenbrock, 5.0), truth=truth)
    yield "noisy-hartmann-6", Problem("noisy", noisy(hartmann, 0.2), truth=truth)
    ring = within(branin, lambda p: 20 - (p["x"] - 2.5) ** 2 - (p["y"] - 7.5) ** 2)
    yield "constrained-branin", Problem("constrained", ring, constrained=True)
    half = within(hartmann, lambda p: sum(p.values()) - 2.5)
    yield "constrained-hartmann-6", Problem("constrained", half, constrained=True)
    yield "zdt1-6", Problem("several objectives", zdt1, (1.1, 7.0))
    yield "zdt3-6", Problem("several objectives", zdt3, (1.1, 7.0))
    yield "dtlz2-6", Problem("several objectives", dtlz2, (1.5, 1.5, 1.5))
    yield from table_problems()


def sampler_of(method, seed, problem, trials, registry):
    rule = (lambda trial: (trial.user_attrs["c"],)) if problem.constrained else None
    samplers = optuna.samplers
    if method == "rlm":
        return RLMSampler(seed=seed, constraints_func=rule, warn_independent_sampling=False)
    if method == "tpe":
        return samplers.TPESampler(seed=seed, constraints_func=rule)
    if method == "gp":
        return samplers.GPSampler(seed=seed, constraints_func=rule, warn_independent_sampling=False)
    if method == "cmaes":
        return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    if method == "nsga2":
        return samplers.NSGAIISampler(seed=seed, constraints_func=rule)
    if method == "random":
        return samplers.RandomSampler(seed=seed)
    import optunahub

    name = {"auto": "auto_sampler", "hebo": "hebo", "smac": "smac_sampler"}[method]
    module = optunahub.load_local_module(f"samplers/{name}", registry_root=registry)
    if method == "auto":
        return module.AutoSampler(seed=seed, constraints_func=rule)
    probe = optuna.create_study(sampler=samplers.RandomSampler(seed=0))
    probe.optimize(problem.objective, n_trials=1)
    space = probe.trials[0].distributions
    if method == "hebo":
        return module.HEBOSampler(space, seed=seed)
    folder = f"/tmp/smac-{os.getpid()}"
    return module.SMACSampler(space, n_trials=trials, seed=seed + 1, output_directory=folder)


def applies(method, name, problem):
    """Whether a sampler is made for a problem."""
    if method == "nsga2":
        return bool(problem.reference)
    if method == "cmaes":
        return problem.group in ("functions", "noisy")
    fixed = problem.group != "mixed and conditional" or name == "mixed"
    if method in ("hebo", "smac"):
        return fixed and not problem.reference and not problem.constrained
    return True


def standing(study, problem):
    """The curve of a study, lower is better."""
    finished = [t for t in study.trials if t.values is not None]
    if problem.reference:
        from optuna._hypervolume import compute_hypervolume

        curve, values = [], np.zeros((0, len(problem.reference)))
        done = {t.number: t.values for t in finished}
        for number in range(len(study.trials)):
            if number in done:
                values = np.vstack([values, done[number]])
            inside = values[np.all(values < problem.reference, axis=1)]
            gain = compute_hypervolume(inside, np.array(problem.reference)) if len(inside) else 0.0
            curve.append(-float(gain))
        return curve
    curve, best, told = [], INFEASIBLE, INFEASIBLE
    for trial in study.trials:
        good = trial.values is not None and trial.user_attrs.get("c", -1.0) <= 0.0
        if good and trial.value < best:
            best = trial.value
            told = trial.user_attrs[problem.truth] if problem.truth else best
        curve.append(told)
    return curve


def row_of(group, n, races, methods):
    """One line of ranks, with 90 % intervals by resampled problems where these are four or more."""
    from scipy.stats import rankdata

    tasks = np.array([task for task, _ in races])
    table = np.array([rankdata([race[m] for m in methods]) for race in races.values()])
    names, rng = np.unique(tasks), np.random.default_rng(0)
    by_task = np.array([table[tasks == t].mean(0) for t in names])
    drawn = [by_task[rng.integers(len(names), size=len(names))].mean(0) for _ in range(2000)]
    cells, mean = [], np.round(by_task.mean(0), 2)
    for m, low, high in zip(mean, *np.quantile(drawn, (0.05, 0.95), axis=0), strict=True):
        best = f"**{m:.2f}**" if m == mean.min() else f"{m:.2f}"
        cells.append(best + (f" ({low:.2f} to {high:.2f})" if len(names) > 3 else ""))
    what = f"all {len(names)}" if group == "all" else f"{len(names)} {group}"
    return f"| {what} | {n} | {len(races)} | {' | '.join(cells)} |"


def run(args):
    done = set()
    if args.file.exists():
        rows = map(json.loads, args.file.read_text(encoding="utf-8").splitlines())
        done = {(r["task"], r["method"], r["seed"], r["trials"]) for r in rows}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name, problem in problems():
            if not any(part in name for part in args.only or [name]):
                continue
            if not args.only and name.startswith("table2/"):
                continue
            for method in args.method:
                key = name, method, seed, args.trials
                if key in done or not applies(method, name, problem):
                    continue
                sampler = sampler_of(method, seed, problem, args.trials, args.registry)
                n = len(problem.reference) or 1
                study = optuna.create_study(directions=["minimize"] * n, sampler=sampler)
                began = time.process_time()
                study.optimize(problem.objective, n_trials=args.trials, catch=(ValueError,))
                row = dict(zip(("task", "method", "seed", "trials"), key, strict=True))
                row |= {"group": problem.group, "seconds": time.process_time() - began}
                curve = standing(study, problem)
                row["curve"] = {n: float(f"{curve[n - 1]:.6g}") for n in AT if n <= len(curve)}
                with args.file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


def ranks(args):
    """Mean ranks of the methods over the races that all of them ran, as a table of Markdown."""
    lines = [x for file in args.file for x in file.read_text(encoding="utf-8").splitlines()]
    rows = [json.loads(line) for line in lines]
    methods = args.method or sorted({r["method"] for r in rows})
    print(f"| problems | after | races | {' | '.join(NAMES.get(m, m) for m in methods)} |")
    print("| --- " * (3 + len(methods)) + "|")
    for group in args.group or ["all", *dict.fromkeys(r["group"] for r in rows)]:
        for n in map(str, AT):
            races = {}
            for r in rows:
                if r["method"] in methods and group in ("all", r["group"]) and n in r["curve"]:
                    races.setdefault((r["task"], r["seed"]), {})[r["method"]] = r["curve"][n]
            whole = {key: race for key, race in races.items() if len(race) == len(methods)}
            if whole and int(n) in (args.after or AT):
                print(row_of(group, n, whole, methods))
    if args.means:
        print()
        for task in dict.fromkeys(r["task"] for r in rows):
            for m in methods:
                mine = [r for r in rows if r["task"] == task and r["method"] == m]
                if mine:
                    at = [n for n in map(str, AT) if n in mine[0]["curve"]]
                    mean = {n: f"{np.mean([r['curve'][n] for r in mine]):.5g}" for n in at}
                    cost = np.mean([r["seconds"] / r["trials"] for r in mine]) * 1e3
                    print(task, m, mean, f"{len(mine)} seeds, {cost:.0f} ms of CPU a trial")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run")
    runs.set_defaults(do=run)
    runs.add_argument("file", type=Path)
    runs.add_argument("--only", action="append", help="part of a task's name; repeatable")
    runs.add_argument("--method", action="append", required=True)
    runs.add_argument("--trials", type=int, default=100)
    runs.add_argument("--seeds", type=int, default=5)
    runs.add_argument("--first-seed", type=int, default=100)
    runs.add_argument("--registry", help="the folder package/ of OptunaHub's registry")
    shown = commands.add_parser("ranks")
    shown.set_defaults(do=ranks)
    shown.add_argument("file", type=Path, nargs="+")
    shown.add_argument("--method", action="append")
    shown.add_argument("--group", action="append", help="of problems, or all; repeatable")
    shown.add_argument("--after", action="append", type=int, help="trials; repeatable")
    shown.add_argument("--means", action="store_true", help="also the mean of each task")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    args.do(args)


if __name__ == "__main__":
    main()
