"""How every command of the command line is made."""

from __future__ import annotations

from typing import Any

import typer


def new_app(**options: Any) -> typer.Typer:
    """A ``typer.Typer`` with the settings that all commands share.

    Shell completion belongs to ``autotune-rlm`` itself, not to each command's help, and help is
    Markdown, so that square brackets in it are shown as they stand.
    """
    return typer.Typer(**{"add_completion": False, "rich_markup_mode": "markdown", **options})
