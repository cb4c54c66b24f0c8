"""``autotune-rlm run``: a program with every ``triton.autotune`` in it tuned by autotune_rlm."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from autotune_rlm.cli._app import new_app, print_error

app = new_app()
_Text = Optional[str]  # noqa: UP045 (typer evaluates it on Python 3.10 too)
_OFF = ("0", "false", "no", "off")


@app.command(
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
    no_args_is_help=True,
)
def run(
    program: Annotated[str, typer.Argument(metavar="SCRIPT.py", help="A Python program.")],
    arguments: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[ARGS]...", help="Its arguments."),
    ] = None,
    module: Annotated[
        bool, typer.Option("--module", "-m", help="SCRIPT.py is a module's name, as for python -m.")
    ] = False,
    only: Annotated[
        _Text, typer.Option(help="Modules whose kernels are meant: fla,liger_kernel.")
    ] = None,
    mode: Annotated[str, typer.Option(help="tune, predict or full.")] = "tune",
    budget: Annotated[
        _Text, typer.Option(help="How many configurations to measure, or which fraction.")
    ] = None,
    budget_s: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Seconds after which nothing more is measured for a key."),
    ] = None,
    store: Annotated[_Text, typer.Option(help="Where measurements are kept.")] = None,
    surrogate: Annotated[_Text, typer.Option(help="The model: a name or a folder.")] = None,
    configs_from: Annotated[
        _Text, typer.Option(help="A file of recommended configurations.")
    ] = None,
) -> None:
    """Run a program with the kernels of all its libraries tuned by autotune_rlm.

    Options stand before SCRIPT.py. AUTOTUNE_RLM_ENABLE=0 runs the program without, for comparison.
    For several processes: torchrun -m autotune_rlm run SCRIPT.py.
    """
    try:
        if not module and not Path(program).is_file():
            raise FileNotFoundError(f"no program at {program}; -m takes the name of a module")
        if os.environ.get("AUTOTUNE_RLM_ENABLE", "1").strip().lower() not in _OFF:
            import autotune_rlm

            autotune_rlm.enable(
                only=[name for name in (only or "").split(",") if name],
                mode=mode,
                budget=None if budget is None else _number(budget),
                budget_s=budget_s,
                store=store,
                surrogate=surrogate,
                configs_from=configs_from,
            )
    except (ValueError, TypeError, OSError, ImportError) as error:
        print_error(error)
        raise typer.Exit(2) from None
    sys.argv = [program, *(arguments or [])]
    if module:
        sys.path.insert(0, os.getcwd())
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(program).resolve().parent))
        runpy.run_path(program, run_name="__main__")


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
