"""``autotune-rlm demo``: tune two real kernels here, in a few minutes."""

from __future__ import annotations

import os
import tempfile
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import platformdirs
import typer
from rich.console import Console
from rich.table import Table

from autotune_rlm import formats
from autotune_rlm.cli._app import new_app, new_console, new_table

if TYPE_CHECKING:
    from autotune_rlm.cli._demo import Step
    from autotune_rlm.store.accuracy import TuningEvent

app = new_app()


class Part(str, Enum):
    """What the demo shows."""

    KERNELS = "kernels"
    NETWORKS = "networks"
    ALL = "all"


_MIN_WIDTH = 108


@app.command()
def demo(
    store: Annotated[
        Path | None,
        typer.Option(help="Keep the measurements in this file; by default they are forgotten."),
    ] = None,
    part: Annotated[Part, typer.Option(help="Which part to run.")] = Part.ALL,
    plot: Annotated[
        Path | None,
        typer.Option(help="Write the networks' plot here; by default into the cache folder."),
    ] = None,
) -> None:
    """Tune two real kernels here: a new key, the same again, a neighbouring shape, and the accuracy.

    Then search for networks that are accurate and fast on this CPU.
    """
    out = new_console(min_width=_MIN_WIDTH)
    if part in (Part.KERNELS, Part.ALL):
        _kernels(out, store)
    if part in (Part.NETWORKS, Part.ALL):
        from autotune_rlm.cli._demo_networks import show_networks

        folder = platformdirs.user_cache_path("autotune_rlm")
        show_networks(out, plot=plot or folder / "demo" / "networks.png")


def _kernels(out: Console, store: Path | None) -> None:
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    if _compiles(out):
        _show(out, store, interpreting=False)
    else:
        from autotune_rlm.measure.interpreter import interpreted

        with interpreted():
            _show(out, store, interpreting=True)


def _show(out: Console, store: Path | None, *, interpreting: bool) -> None:
    from autotune_rlm.cli._demo import demos
    from autotune_rlm.store import Store

    device = "cpu" if interpreting else "cuda"
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(store or Path(folder) / "demo.sqlite") as kept,
        Store(Path(folder) / "reference.sqlite") as reference,
    ):
        for demo in demos(device, interpreted=interpreting):
            with out.status("searching ..."):
                steps = list(demo.steps(kept, reference))
            out.print(_steps_table(demo.name, steps))
            _tell(out, steps)
        _accuracy(out, kept.events())
    out.print(
        "\nIn your code: replace @triton.autotune( with @rlm_autotune( "
        "(from autotune_rlm import rlm_autotune)."
    )


def _compiles(out: Console) -> bool:
    """Whether there is a GPU to compile for, or Triton interprets; says what is timed."""
    import torch

    if torch.cuda.is_available():
        out.print(f"Timed on {torch.cuda.get_device_name()} with device events.\n")
        return True
    out.print(
        "No GPU here: Triton's interpreter runs the kernels on the CPU, and what is "
        "timed is the wall clock.\nThe search is the real one; its times say nothing about a GPU, "
        "and the model has never seen this device.\n"
    )
    return False


def _steps_table(name: str, steps: list[Step]) -> Table:
    table = new_table("step", "problem", right=("measured", "seconds"), title=name)
    table.add_column("chosen")
    table.add_column("time", justify="right", no_wrap=True)
    for step in steps:
        table.add_row(
            step.what,
            step.problem,
            f"{step.measured} of {step.configs}",
            f"{step.seconds:.1f}",
            step.best,
            formats.milliseconds(step.best_ms),
        )
    return table


def _tell(out: Console, steps: list[Step]) -> None:
    new, _, _, everything = steps
    slower = new.best_ms / everything.best_ms - 1
    if new.best == everything.best:
        result = "the same configuration as the best of all"
    else:
        pace = f"{slower:.1%} slower than" if slower > 0.01 else "as fast as"
        result = f"{pace} the best of all (timings here repeat within some per cent)"
    worst = max(step.wrong for step in steps)
    out.print(
        f"{new.measured} of {new.configs} measured in {new.seconds:.1f} s instead of "
        f"{everything.seconds:.1f} s; the result is {result}. Largest error of any result: "
        f"{worst:.1g}.\n"
    )


def _accuracy(out: Console, events: list[TuningEvent]) -> None:
    """How right the model was, where it was told of such kernels and devices."""
    familiar = [event for event in events if event.familiar is not False]
    if familiar:
        out.print(_accuracy_table(familiar))
    else:
        out.print(
            "The model was never told of such kernels on this device: its first order was a guess, and "
            "measuring corrected it.\nWhere it was told of them, a table here says how right it was."
        )


def _accuracy_table(events: list[TuningEvent]) -> Table:
    numbers = (
        "rank correlation",
        "regret of its first choice",
        "inside 90 % interval",
        "model s",
        "measure s",
    )
    table = new_table("kernel", "problem", right=numbers, title="how right the model was")
    for event in events:
        sizes = [v for v in event.problem.values() if type(v) is int]
        table.add_row(
            event.kernel,
            " ".join(map(str, sizes[:3])),
            formats.score(event.spearman),
            formats.percent(event.first_choice_regret),
            formats.percent(event.coverage, 0),
            f"{event.model_s:.2f}",
            f"{event.compile_s + event.measure_s:.1f}",
        )
    return table
