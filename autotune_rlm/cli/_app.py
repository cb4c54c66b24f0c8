"""How every command of the command line is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


def new_app(**options: Any) -> typer.Typer:
    """A ``typer.Typer`` with the settings that all commands share.

    Shell completion belongs to ``autotune-rlm`` itself, not to each command's help, and help is
    Markdown, so that square brackets in it are shown as they stand.
    """
    return typer.Typer(**{"add_completion": False, "rich_markup_mode": "markdown", **options})


def new_console(**options: Any) -> Console:
    """A ``rich.console.Console`` that prints square brackets as they stand.

    Paths, extras, shapes and error messages have them. Give a style by ``style=`` or ``rich.text``.
    """
    from rich.console import Console

    return Console(**{"markup": False, **options})


def print_error(error: object) -> None:
    """Write ``error: ...`` to the standard error stream."""
    from rich.text import Text

    line = Text.assemble(("error:", "red"), f" {error}")
    new_console(stderr=True).print(line, soft_wrap=True)
