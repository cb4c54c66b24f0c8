"""``autotune-rlm train``: train a surrogate from a recipe."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated

import typer

from autotune_rlm import formats
from autotune_rlm.cli._app import failing, new_app, new_console

app = new_app()


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe in YAML.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint; resumed if begun.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the recipe's sources.")] = None,
    start: Annotated[
        list[Path] | None,
        typer.Option(
            help="Checkpoint whose weights to go on from; given again: one with parts of the network "
            "that the first does not have."
        ),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="In place of the recipe's.")] = None,
    steps: Annotated[int | None, typer.Option(help="In place of the recipe's.")] = None,
    device: Annotated[str | None, typer.Option(help="'cpu', or what accelerate finds.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Train a surrogate from a recipe; interrupted runs go on where they were."""
    from autotune_rlm.training.run import run_recipe

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    begin = time.monotonic()
    with failing(FileNotFoundError, ValueError, ImportError):
        folder = run_recipe(
            recipe,
            out=out,
            data=data,
            start=start or (),
            device=device,
            minutes=minutes,
            steps=steps,
            progress=not quiet,
        )
    seconds = formats.seconds(time.monotonic() - begin)
    new_console().print(f"trained in {seconds}, saved {folder}")
