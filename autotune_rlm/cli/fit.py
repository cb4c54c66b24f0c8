"""``autotune-rlm fit``: a model of a table's texts and numbers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from autotune_rlm.cli._app import failing, new_app, new_console
from autotune_rlm.cli._tables import Fields, Table, TextColumn, read_columns

app = new_app()


@app.command()
def fit(
    table: Table,
    text: TextColumn,
    target: Annotated[
        list[str], typer.Option(help="Column of the numbers; again for several targets.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the model; gone on with if interrupted.")],
    field: Fields = None,
    group: Annotated[
        str | None, typer.Option(help="Column whose equal rows are never split. Default: the text.")
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="Limit of the network's training; 0 for ridge and trees alone.")
    ] = 3.0,
    held_out: Annotated[float, typer.Option(help="Share of rows that is not learned from.")] = 0.2,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a text that are read.")] = 1024,
    base: Annotated[str | None, typer.Option(help="Checkpoint to start from.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Fit a model to a table of texts with numbers, and say how good it is on rows held out."""
    groups = [group] if group else []
    data, fields = read_columns(table, text, field or [], *groups, *target)
    from autotune_rlm.regression import RLM

    console = new_console()
    console.print(f"{len(data)} rows of {table}: {text} to {', '.join(target)}")
    model = RLM(
        base,
        minutes=minutes,
        held_out=held_out,
        max_tokens=max_tokens,
        seed=seed,
        progress=not quiet,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the report says them all
        with failing(FileNotFoundError, ValueError, ImportError):
            model.fit(
                data[text],
                data[target],
                fields=fields,
                groups=data[group] if group else None,
                folder=out / "training",
            )
    folder = model.save(out)
    console.print(str(model.report_))
    console.print(f"saved {folder}")
