"""``autotune-rlm score``: how well a table's numbers are predicted."""

from __future__ import annotations

from typing import Annotated

import typer

from autotune_rlm.cli._app import failing, new_app, new_console
from autotune_rlm.cli._tables import (
    FieldColumns,
    Language,
    Metric,
    ModelFolder,
    Table,
    TextColumn,
    load_model,
    read_columns,
    scores_table,
)

app = new_app()


@app.command()
def score(
    table: Table,
    text: TextColumn,
    target: Annotated[
        list[str], typer.Option(help="Column of the true numbers; again for several targets.")
    ],
    model: ModelFolder = None,
    field: FieldColumns = None,
    metric: Metric = None,
    language: Language = None,
) -> None:
    """Compare predictions with the numbers of a table that the model has not learned from."""
    fields = field or []
    data = read_columns(table, text, fields, numbers=target)
    found = load_model(model, metric, language)
    with failing(ValueError):
        beside = data[fields] if fields else None
        scores = found.evaluate(data[text], data[target], fields=beside)
    new_console().print(scores_table(scores))
