"""``autotune-rlm bench nas``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from autotune_rlm.cli._app import check_folder, failing, new_console, new_table, write_json

if TYPE_CHECKING:
    from autotune_rlm.bench.nas import NasRun


def nas(
    train: list[Path] = typer.Option(
        [], exists=True, dir_okay=False, help="Repeatable: tables known before; any space."
    ),
    test: Path = typer.Option(..., exists=True, dir_okay=False, help="Table to predict."),
    space: str = typer.Option(
        None,
        help="Space of the test table: nasbench201, nasbench101, nasbench_macro, fbnet, mnasnet; "
        "default: told from its columns.",
    ),
    target: list[str] = typer.Option(..., help="Repeatable: column of the test table."),
    shots: list[int] = typer.Option(
        [0, 16, 100], min=0, help="Repeatable: measured networks of the test table to learn from."
    ),
    seeds: int = typer.Option(3, min=1, help="Draws of the shots."),
    method: list[str] = typer.Option(
        None,
        help="Repeatable: rlm (led by the language model) or few-shot (closed form alone). "
        "Default: rlm where the surrogate knows networks, else few-shot.",
    ),
    surrogate: str = typer.Option(
        None, help="Folder or name, for rlm; default: the bundled one if it knows networks."
    ),
    reserved: float = typer.Option(
        None,
        min=0.0,
        max=1.0,
        help="Test only on the share of networks that a recipe's 'reserve' of the same value keeps "
        "out of training, and let the training tables have the others.",
    ),
    blind: bool = typer.Option(
        False, help="Training tables do not have the target: a device or a metric never seen."
    ),
    baselines: bool = typer.Option(True, help="Also FLOPs, parameters, ridge regression."),
    out: Path = typer.Option(None, "--json", dir_okay=False, help="Write the results here."),
) -> None:
    """Predict a column of an architecture table and report rank correlations.

    Networks of the test table that a training table of the same space holds are left out. Columns
    of the training tables lead the prediction: the same column of the same space, other columns of
    it (other devices), or what costs meant in other spaces.
    """
    from autotune_rlm.bench.nas import METHODS, baseline_runs, nas_json, nas_runs
    from autotune_rlm.integrations.onnx.default import networks_checkpoint
    from autotune_rlm.landscapes.architectures import read_architectures

    check_folder(out)
    if unknown := sorted(set(method or ()) - set(METHODS)):
        raise typer.BadParameter(f"--method must be of {', '.join(METHODS)}, got {unknown}")
    checkpoint = surrogate or networks_checkpoint()
    methods = list(dict.fromkeys(method or (["rlm"] if checkpoint else ["few-shot"])))
    if "rlm" in methods and not checkpoint:
        raise typer.BadParameter(
            "--method rlm: the bundled surrogate was not trained on networks; give --surrogate"
        )
    model = None
    runs: list[NasRun] = []
    with failing(FileNotFoundError, ValueError):
        if "rlm" in methods:
            from autotune_rlm.surrogate import load

            model = load(checkpoint)
        table = read_architectures(test, space_name=space)
        known = [read_architectures(path) for path in train]
        for column in target:
            table.target(column)
        if reserved is not None:
            table = table.split(reserved)[1]
            known = [other.split(reserved)[0] for other in known]
        for column in target:
            tables = [other.without([column]) for other in known] if blind else known
            for name in methods:
                asked = model if name == "rlm" else None
                runs += nas_runs(tables, table, column, shots, seeds, surrogate=asked)
            if baselines:
                runs += baseline_runs(known, table, column, shots, seeds)
    write_json(out, nas_json(runs))
    _show(runs)


def _show(runs: Sequence[NasRun]) -> None:
    import numpy as np

    table = new_table("target", "shots", "method", right=("n_test", "kendall", "spearman"))
    for key in dict.fromkeys((r.target, r.shots, r.method) for r in runs):
        mine = [r for r in runs if (r.target, r.shots, r.method) == key]
        means = []
        for values in ([r.kendall for r in mine], [r.spearman for r in mine]):
            known = [v for v in values if v is not None]
            means.append(f"{np.mean(known):.3f}" if known else "-")
        table.add_row(key[0], str(key[1]), key[2], str(mine[0].n_test), *means)
    new_console().print(table)
