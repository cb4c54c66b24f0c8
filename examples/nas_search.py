"""Searches NAS-Bench-201 cells for low latency on this CPU at many operations; plots the front.

    python examples/nas_search.py --budget 24 --plot front.png

With ``--table nasbench201.csv.gz --target c10_val_ep200`` the first objective is the accuracy that
the table holds, in place of the number of operations.
"""

import argparse

from autotune_rlm.integrations.onnx import search, space


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=int, default=24, help="networks to measure")
    parser.add_argument("--limit-ms", type=float, default=20.0, help="largest latency allowed")
    parser.add_argument("--table", help="NAS-Bench-201 table as CSV")
    parser.add_argument("--target", default="c10_val_ep200", help="column of the table")
    parser.add_argument("--plot", help="write a plot of the Pareto front here")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    cells = space("nasbench201")
    first, objective = "macs", "maximize"
    if args.table:
        first, objective = "accuracy", ("maximize", accuracy_from(args.table, args.target))
    study = search(
        cells,
        {first: objective, "latency_ms": "minimize"},
        args.budget,
        constraints={"latency_ms": args.limit_ms},
        seed=args.seed,
    )
    print(f"{len(study.trials)} networks measured, {len(study.best_trials)} on the front:")
    for trial in sorted(study.best_trials, key=lambda t: t.values[1]):
        print(f"  {trial.values[1]:7.2f} ms  {first} {trial.values[0]:.4g}", end="  ")
        print(cells.to_string(trial.params))
    if args.plot:
        plot(study, first, args.plot)


def accuracy_from(path, column):
    from autotune_rlm.bench.optuna import TableObjective
    from autotune_rlm.landscapes.architectures import read_architectures

    lookup = TableObjective(read_architectures(path), column)

    def accuracy(config):
        value = lookup(config)
        if value is None:
            raise KeyError("the table does not hold this network")
        return value

    return accuracy


def plot(study, first, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    done = [t for t in study.trials if t.state.name == "COMPLETE"]
    front = sorted(study.best_trials, key=lambda t: t.values[1])
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.scatter([t.values[1] for t in done], [t.values[0] for t in done], s=14, label="measured")
    axes.step([t.values[1] for t in front], [t.values[0] for t in front], where="post", c="C1")
    axes.scatter(
        [t.values[1] for t in front], [t.values[0] for t in front], s=22, c="C1", label="front"
    )
    axes.set(xlabel="latency on this CPU, ms", ylabel=first)
    axes.legend()
    figure.savefig(path, dpi=150)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
