"""``autotune-rlm score``: how well a table's numbers are predicted."""

from __future__ import annotations

from typing import Annotated

import typer

from autotune_rlm.cli import _tables
from autotune_rlm.cli._app import failing, new_app, new_console

app = new_app()


@app.command()
def score(
    table: _tables.Table,
    text: _tables.TextColumn,
    target: Annotated[
        list[str], typer.Option(help="Column of the true numbers; again for several targets.")
    ],
    model: _tables.ModelFolder = None,
    field: _tables.Fields = None,
    metric: _tables.Metric = None,
    language: _tables.Language = None,
) -> None:
    """Compare predictions with the numbers of a table that the model has not learned from."""
    data, fields = _tables.read_columns(table, text, field or [], *target)
    found = _tables.load_model(model, metric, language)
    with failing(ValueError):
        scores = found.evaluate(data[text], data[target], fields=fields)
    new_console().print(_tables.scores_table(scores))
