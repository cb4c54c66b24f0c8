"""The command line ``autotune-rlm``. Each command lives in a module of its own, loaded when asked for.

A command module defines ``app`` (a ``typer.Typer``) or a function of the command's name.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from autotune_rlm.cli._app import new_app

_COMMANDS = {
    "bench": "Compare tuning methods on recorded landscapes and architecture tables.",
    "demo": "Tune real kernels here, in a few minutes.",
    "devices": "List the devices that are known, with their figures.",
    "fit": "Fit a model to a table of texts with numbers.",
    "predict": "Predict the numbers of texts in a table.",
    "rank": "Rank a kernel's configurations for any device, without running them.",
    "record": "Record landscapes of the kernel suite on the device at hand.",
    "report": "Show how accurate the surrogate was.",
    "run": "Run a program with the kernels of all its libraries tuned by autotune_rlm.",
    "score": "Compare predictions with the numbers of a table.",
    "serve-configs": "Predict or check configuration files of vLLM and SGLang.",
    "store": "Look at, export, import or clear the measurements.",
    "train": "Train a surrogate from a recipe.",
    "tune": "Measure kernels here and write the fastest configurations as a file.",
    "watch": "Benchmark noted problems whenever the device is idle.",
}


class _LazyGroup(TyperGroup):
    """Imports a command's module only when the command is named or listed with its help."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"autotune_rlm.cli.{cmd_name.replace('-', '_')}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        command.help = command.help or _COMMANDS[cmd_name]
        command.short_help = _COMMANDS[cmd_name]
        return command


app = new_app(
    add_completion=True,
    cls=_LazyGroup,
    no_args_is_help=True,
    help="Autotuning with a Regression Language Model as the cheap cost model.",
)


@app.callback()
def _main(context: typer.Context) -> None:
    if context.invoked_subcommand != "run":  # Triton's advice is for those whose kernels these are
        warnings.filterwarnings("ignore", "TRITON_DEFAULT_FP_FUSION")
