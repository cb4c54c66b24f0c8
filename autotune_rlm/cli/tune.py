"""``autotune-rlm tune``: measure kernels on the device at hand and write what is fastest."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune_rlm.cli._app import (
    StoreOption,
    SurrogateOption,
    failing,
    new_app,
    new_console,
    new_table,
)
from autotune_rlm.cli._ray import DEVICE, RAY, WORKERS, open_cluster

if TYPE_CHECKING:
    from autotune_rlm.integrations.ray import Cluster
    from autotune_rlm.store.config_file import ConfigFile

app = new_app()
_Text = str | None
_Texts = list[str] | None


@app.command(no_args_is_help=True)
def tune(
    where: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="FILE.py:KERNEL or PACKAGE.MODULE:KERNEL with --problem and --grid; or FILE.py, a "
            "program to run; or PACKAGE with --program.",
        ),
    ],
    arguments: Annotated[
        _Texts, typer.Argument(metavar="[ARGS]...", help="Arguments of the program.")
    ] = None,
    problem: Annotated[
        _Text, typer.Option(help="Every argument: n=4096,x=fp16[4096],y=fp16[4096].")
    ] = None,
    grid: Annotated[
        _Texts, typer.Option(help='Launch grid, one per dimension: "cdiv(n, BLOCK)".')
    ] = None,
    program: Annotated[
        Path | None, typer.Option(help="A program that launches the kernels of WHAT.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the fastest configurations here, for configs_from=.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many to write per problem.")] = 4,
    mode: Annotated[str, typer.Option(help="tune, or full to measure everything.")] = "tune",
    budget: Annotated[
        int | None, typer.Option(min=1, help="How many configurations to measure per problem.")
    ] = None,
    store: StoreOption = None,
    surrogate: SurrogateOption = None,
    interpreter: Annotated[
        bool, typer.Option("--interpreter", help="Run on Triton's interpreter, without a GPU.")
    ] = False,
    ray: Annotated[_Text, RAY] = None,
    ray_workers: Annotated[int | None, WORKERS] = None,
    device: Annotated[_Text, DEVICE] = None,
) -> None:
    """Measure kernels here and write the fastest configurations as a file for configs_from=.

    Needs a GPU: without one nothing can be timed, and autotune-rlm rank gives the model's choice.
    """
    from autotune_rlm.measure.interpreter import interpreted

    settings = {"mode": mode, "budget": budget, "store": store, "surrogate": surrogate}
    with failing(ValueError, TypeError, OSError, RuntimeError, status=1):
        if ray is None:
            _check_device(interpreter)
        elif problem is None:
            raise ValueError("--ray takes one kernel as WHAT:KERNEL with --problem and --grid")
        with (
            interpreted(interpreter),
            open_cluster(ray, workers=ray_workers, device=device, cpus=interpreter) as cluster,
        ):
            if problem is not None or grid is not None:
                file = _one(where, problem or "", grid or [], settings, interpreter, top, cluster)
            else:
                file = _run(where, program, arguments or [], settings, top)
        if out is not None:
            file.save(out)
    _show(file, out)


def _check_device(interpreter: bool) -> None:
    from autotune_rlm.measure.detect import current_device

    if not interpreter and current_device().target == "cpu":
        raise ValueError(
            "there is no GPU here, so nothing can be timed; autotune-rlm rank --device NAME --out "
            "FILE writes the model's choice for any device, and --interpreter runs small problems on "
            "Triton's interpreter"
        )


def _one(
    where: str,
    problem: str,
    grid: list[str],
    settings: dict[str, Any],
    interpreter: bool,
    top: int,
    cluster: Cluster | None,
) -> ConfigFile:
    from autotune_rlm.integrations.triton.device import device_of
    from autotune_rlm.integrations.triton.offline.kernel import load_file, parse_problem
    from autotune_rlm.integrations.triton.offline.tune import tune_kernel
    from autotune_rlm.integrations.triton.settings import Settings
    from autotune_rlm.measure.interpreter import interpreted

    if not grid:
        raise ValueError('--problem takes --grid too, such as --grid "cdiv(n, BLOCK)"')
    device = device_of(None) if cluster is None else cluster.device
    if interpreter:
        device = dataclasses.replace(device, target="interpreter")
    with interpreted(False):  # its text is read here, it runs in a process of its own
        kernel = load_file(where)
    return tune_kernel(
        kernel,
        parse_problem(problem),
        grid,
        device,
        settings=Settings(**settings).with_environment(),
        interpreted=interpreter,
        top=top,
        fleet=None if cluster is None else cluster.measurer,
    )


def _run(
    where: str, program: Path | None, arguments: list[str], settings: dict[str, Any], top: int
) -> ConfigFile:
    from autotune_rlm.integrations.triton.offline.tune import tune_program

    source = Path(where.partition(":")[0])
    if source.suffix == ".py" and not source.is_file():
        raise ValueError(f"no file at {source}")
    if program is None and not Path(where).is_file():
        raise ValueError(
            f"the arguments of the kernels in {where} are not known: give --program SCRIPT.py, which "
            "launches them, or one kernel as WHAT:KERNEL with --problem and --grid; autotune-rlm "
            f"rank {where} --device NAME lists them with their key arguments"
        )
    if program is not None and not program.is_file():
        raise ValueError(f"no program at {program}")
    only = [where] if program is not None else []
    file = tune_program(program or Path(where), arguments, only=only, settings=settings, top=top)
    if not len(file):
        raise ValueError(
            f"{program or where} launched no autotuned kernel"
            + (f" of {where}" if program else "")
            + " that was measured"
        )
    return file


def _show(file: ConfigFile, out: Path | None) -> None:
    console = new_console(min_width=120)
    table = new_table("kernel", "device", "problem", "fastest", right=("ms",))
    for r in file.recommendations:
        sizes = ", ".join(f"{n}={r.problem[n]}" for n in r.key if n in r.problem)
        config = ", ".join(f"{n}={v}" for n, v in r.configs[0].config.items())
        table.add_row(r.kernel, r.device, sizes, config, f"{r.configs[0].time_ms:.4g}")
    console.print(table)
    if out is not None:
        console.print(f"written to {out}")
