"""Tables on the command line: read, and checked before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune_rlm.cli._app import fail, failing

if TYPE_CHECKING:
    from autotune_rlm.regression import RLM, Scores

Table = Annotated[Path, typer.Argument(help="CSV, TSV, Parquet or JSON lines.")]
TextColumn = Annotated[str, typer.Option(help="Column of the texts.")]
Fields = Annotated[
    list[str] | None,
    typer.Option(help="Column of numbers or kinds beside the text; may be repeated."),
]
ModelFolder = Annotated[
    str | None, typer.Option(help="Folder that fit wrote. Default: the bundled model.")
]
Metric = Annotated[str | None, typer.Option(help="Asked of the bundled model.")]
Language = Annotated[str | None, typer.Option(help="Of the texts, for the bundled one.")]


def read_columns(path: Path, text: str, fields: Sequence[str], *others: str) -> tuple[Any, Any]:
    """The table, its texts as texts, and its columns of fields alone, None without any."""
    from autotune_rlm.landscapes.tables import read_table

    with failing(FileNotFoundError, ValueError, ImportError):
        table = read_table(path)
    for name in (text, *fields, *others):
        if name not in table.columns:
            columns = ", ".join(map(str, table.columns))
            fail(f"{path} has no column {name!r}; it has: {columns}")
    missing = table[text].isna()
    if missing.any():
        fail(
            f"{path}: column {text!r} has no text in {int(missing.sum())} rows, the first is row "
            f"{int(missing.to_numpy().argmax())} (counted from 0)"
        )
    table[text] = table[text].astype(str)
    return table, table[list(fields)] if fields else None


def load_model(name: str | None, metric: str | None, language: str | None) -> RLM:
    """The model that ``fit`` saved, another checkpoint, or the bundled one."""
    from autotune_rlm.regression import RLM

    with failing(FileNotFoundError, ValueError, ImportError):
        return RLM.load(name, metric=metric, language=language)


def scores_table(scores: dict[str, Scores]) -> str:
    """Scores by target as lines of text."""
    lines = [f"{'':24} Spearman       R2  in 90 % interval     rows"]
    for target, s in scores.items():
        cover = "" if s.coverage is None else f"{100 * s.coverage:.0f} %"
        lines.append(f"{target:24} {s.spearman:8.3f} {s.r2:8.3f}  {cover:>16} {s.rows:8}")
    return "\n".join(lines)
