"""How every command of the command line is made, prints, and fails."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", help="File or SQLAlchemy URL; default: AUTOTUNE_RLM_STORE or your own."
    ),
]
SurrogateOption = Annotated[
    str | None, typer.Option("--surrogate", help="The model: a name or a folder.")
]


def new_app(**options: Any) -> typer.Typer:
    """A ``typer.Typer`` with the settings that all commands share.

    Shell completion belongs to ``autotune-rlm`` itself, not to each command's help, and help is
    Markdown, so that square brackets in it are shown as they stand. What a program of the user's raises
    (``run``, ``tune``) is shown as Python shows it.
    """
    ours = {"add_completion": False, "rich_markup_mode": "markdown"}
    return typer.Typer(**{**ours, "pretty_exceptions_enable": False, **options})


def new_console(*, min_width: int = 0, **options: Any) -> Console:
    """A ``rich.console.Console`` that prints square brackets as they stand, lines as long as they are.

    Paths, extras, shapes and error messages have them. Give a style by ``style=`` or ``rich.text``;
    ``min_width`` are the columns that a table needs.
    """
    from rich.console import Console

    console = Console(**{"markup": False, "highlight": False, "soft_wrap": True, **options})
    console.width = max(console.width, min_width)
    return console


def new_table(*left: str, right: tuple[str, ...] = (), **options: Any) -> Table:
    """A table of columns with text, then of columns with numbers."""
    from rich import box
    from rich.table import Table

    plain = {"box": box.SIMPLE_HEAD, "pad_edge": False, "show_edge": False}
    table = Table(**{**plain, "title_justify": "left", "title_style": "bold", **options})
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def print_error(error: object) -> None:
    """Write ``error: ...`` to the standard error stream."""
    from rich.text import Text

    new_console(stderr=True).print(Text.assemble(("error:", "red"), f" {error}"))


def fail(error: object, status: int = 2) -> NoReturn:
    """Say what is wrong and end with an exit status."""
    print_error(error)
    raise typer.Exit(status) from None


@contextlib.contextmanager
def failing(*kinds: type[Exception], status: int = 2) -> Iterator[None]:
    """End with one line and an exit status where an error of these kinds is raised."""
    try:
        yield
    except kinds as error:
        fail(error, status)


def check_folder(out: Path | None) -> None:
    """End at once where a file could not be written for want of its folder."""
    if out is not None and not out.absolute().parent.is_dir():
        raise typer.BadParameter(f"folder of {out} does not exist")


def write_json(out: Path | None, results: Any) -> None:
    """Write results where a file was asked for."""
    if out is not None:
        out.write_text(json.dumps(results, allow_nan=False) + "\n", encoding="utf-8")
