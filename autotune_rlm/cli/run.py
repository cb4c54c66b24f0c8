"""``autotune-rlm run``: a program with every ``triton.autotune`` in it tuned by autotune_rlm."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer

from autotune_rlm.cli._app import StoreOption, SurrogateOption, failing, new_app

app = new_app()
_Text = str | None
_OFF = ("0", "false", "no", "off")


@app.command(
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
    no_args_is_help=True,
)
def run(
    program: Annotated[str, typer.Argument(metavar="SCRIPT.py", help="A Python program.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Its arguments.")
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
        float | None, typer.Option(help="Seconds after which nothing more is measured for a key.")
    ] = None,
    store: StoreOption = None,
    surrogate: SurrogateOption = None,
    configs_from: Annotated[
        _Text, typer.Option(help="A file of recommended configurations.")
    ] = None,
) -> None:
    """Run a program with the kernels of all its libraries tuned by autotune_rlm.

    Options stand before SCRIPT.py. AUTOTUNE_RLM_ENABLE=0 runs the program without, for comparison.
    For several processes: torchrun -m autotune_rlm run SCRIPT.py.
    """
    with failing(ValueError, TypeError, OSError, ImportError):
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
