"""``autotune-rlm predict``: numbers of a table's texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune_rlm.cli import _tables
from autotune_rlm.cli._app import failing, new_app, new_console

app = new_app()


@app.command()
def predict(
    table: _tables.Table,
    text: _tables.TextColumn,
    model: _tables.ModelFolder = None,
    out: Annotated[
        Path | None, typer.Option(help="Table to write. Default: TABLE-predicted beside it.")
    ] = None,
    field: _tables.Fields = None,
    metric: _tables.Metric = None,
    language: _tables.Language = None,
) -> None:
    """Predict the numbers of texts; adds NAME_predicted, NAME_low and NAME_high to the table.

    Low and high are the ends of the 90 % interval.
    """
    from autotune_rlm.landscapes.tables import write_table

    data, fields = _tables.read_columns(table, text, field or [])
    found = _tables.load_model(model, metric, language)
    quantiles = found.predict_quantiles(data[text], (0.05, 0.5, 0.95), fields=fields)
    quantiles = quantiles.reshape(len(data), len(found.targets), 3)
    for j, name in enumerate(found.targets):
        for i, what in enumerate(("low", "predicted", "high")):
            data[f"{name}_{what}"] = quantiles[:, j, i]
    stem, dot, suffix = table.name.partition(".")
    path = out or table.with_name(f"{stem}-predicted{dot}{suffix}")
    with failing(ValueError, OSError, ImportError):
        write_table(data, path)
    new_console().print(f"{len(data)} rows: {', '.join(found.targets)} written to {path}")
