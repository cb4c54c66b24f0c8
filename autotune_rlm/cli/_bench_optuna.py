"""``autotune-rlm bench optuna``."""

from __future__ import annotations

from pathlib import Path

import typer

from autotune_rlm.cli._app import check_folder, failing, new_console, new_table, write_json

_USUAL = "rlm", "tpe", "gp", "cmaes", "random", "evolution"


def optuna(
    table: Path = typer.Option(..., exists=True, dir_okay=False, help="Table to search."),
    space: str = typer.Option(
        None,
        help="Space of the table: nasbench201, nasbench101, nasbench_macro, fbnet, mnasnet; "
        "default: told from its columns.",
    ),
    target: str = typer.Option(..., help="Column to optimise."),
    direction: str = typer.Option("maximize", help="maximize or minimize."),
    method: list[str] = typer.Option(
        list(_USUAL),
        help=f"Repeatable: {', '.join(_USUAL)}; no-model (rlm without the language model), "
        "few-shot (rlm led by regression on --train).",
    ),
    trials: int = typer.Option(100, min=1, help="Trials of each search."),
    seeds: int = typer.Option(3, min=1, help="Searches per method."),
    train: list[Path] = typer.Option(
        [], exists=True, dir_okay=False, help="Repeatable: tables known before, for few-shot."
    ),
    surrogate: str = typer.Option(
        None, help="Folder or name, for rlm; default: the bundled one if it knows networks."
    ),
    reserved: float = typer.Option(
        None,
        min=0.0,
        max=1.0,
        help="Search only the share of networks that a recipe's 'reserve' of the same value keeps "
        "out of training; all others fail.",
    ),
    out: Path = typer.Option(None, "--json", dir_okay=False, help="Write the results here."),
) -> None:
    """Compare Optuna samplers on an architecture table: best value so far, trial by trial."""
    from autotune_rlm.bench.optuna import search_json, search_runs
    from autotune_rlm.landscapes.architectures import read_architectures

    if direction not in ("maximize", "minimize"):
        raise typer.BadParameter(f"--direction must be maximize or minimize, got {direction!r}")
    check_folder(out)
    with failing(FileNotFoundError, ValueError):
        known = read_architectures(table, space_name=space)
        known.target(target)
        if reserved is not None:
            known = known.split(reserved)[1]
        trained = [read_architectures(path) for path in train]
        model = None
        if surrogate is not None and "rlm" in method:
            from autotune_rlm.surrogate import load

            model = load(surrogate)
        search = search_runs(
            known, target, direction, method, trials, seeds, train=trained, surrogate=model
        )
        runs = list(search)
    results = search_json(runs, table=known.name, target=target, direction=direction)
    write_json(out, results)
    _show(results)


def _show(results: dict) -> None:
    title = f"{results['table']} {results['target']}"
    table = new_table("method", right=("best", "mean over trials"), title=title)
    for row in results["summary"]:
        means = row["mean_best_final"], row["mean_best_over_trials"]
        table.add_row(row["method"], *("-" if m is None else f"{m:.4f}" for m in means))
    new_console().print(table)
