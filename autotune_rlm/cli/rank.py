"""``autotune-rlm rank``: a kernel's configurations for any device, best first, without running them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from autotune_rlm.cli._app import SurrogateOption, failing, new_app

app = new_app()
_Text = str | None


@app.command()
def rank(
    kernel: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:KERNEL",
            help="A Triton kernel; or FILE.py or PACKAGE.MODULE, for every autotuned kernel in it.",
        ),
    ],
    device: Annotated[
        list[str],
        typer.Option(
            help='Device\'s name, such as "NVIDIA H100"; may be repeated. '
            "`autotune-rlm devices` lists those that are known."
        ),
    ],
    problem: Annotated[
        list[str] | None,
        typer.Option(
            help="Arguments: M=4096,N=4096,dtype=fp16, tensors as x=fp16[64,128]; may be repeated."
        ),
    ] = None,
    configs: Annotated[
        _Text, typer.Option(help='Configurations: "BLOCK=64,128; num_warps=4,8".')
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(help='Launch grid, one expression per axis, such as "cdiv(M, BLOCK)".'),
    ] = None,
    guess: Annotated[
        bool, typer.Option("--guess", help="Guess arguments that --problem does not give.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 10,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile those shown for the device, for the facts.")
    ] = False,
    target: Annotated[_Text, typer.Option(help="Compiler target, such as sm_90.")] = None,
    surrogate: SurrogateOption = None,
    store: Annotated[
        _Text, typer.Option(help="A store whose measurements and fine-tuned weights count.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the recommended configurations here, for configs_from=."),
    ] = None,
) -> None:
    """Rank configurations for devices that need not be here.

    Configurations come from the kernel's autotuner, or from --configs. The kernel is read as Triton's
    own front end sees it; nothing is compiled or run. For a whole file, module or package, arguments
    that --problem does not give are guessed from each kernel's text. The file of --out keeps what
    it holds of other kernels, devices and problems.
    """
    from autotune_rlm.cli._rank_one import rank_one, show_one
    from autotune_rlm.measure.interpreter import interpreted

    with failing(ValueError, TypeError, OSError, RuntimeError, status=1), interpreted(False):
        if ":" not in Path(kernel).name or len(device) > 1 or len(problem or ()) > 1:
            if configs or compile or target or grid or store:
                raise ValueError(
                    "--configs, --grid, --compile, --store and --target take one FILE.py:KERNEL"
                )
            _rank_whole(kernel, device, problem or [], top, surrogate, as_json, out)
            return
        answer = rank_one(
            kernel,
            device[0],
            target=target,
            given=(problem or [""])[0],
            grid=grid or (),
            guess=guess,
            configs=configs,
            top=top,
            compiles=compile,
            surrogate=surrogate,
            store=store,
            out=out,
        )
    if as_json:
        print(json.dumps(answer, indent=1))
    else:
        show_one(answer)


def _rank_whole(
    where: str,
    devices: Sequence[str],
    problems: Sequence[str],
    top: int,
    surrogate: str | None,
    as_json: bool,
    out: Path | None,
) -> None:
    from autotune_rlm.cli._rank_all import rank_everything, show_everything
    from autotune_rlm.devices import lookup
    from autotune_rlm.integrations.triton.offline.kernel import parse_problem
    from autotune_rlm.store.config_file import ConfigFile

    ranked, failed = rank_everything(
        where,
        [lookup(name) for name in devices],
        [parse_problem(text) for text in problems],
        surrogate=surrogate,
        top=top,
    )
    file = ConfigFile(r.recommendation for r in ranked if r.recommendation is not None)
    if out is not None:
        file.save(out)
    if as_json:
        print(json.dumps(file.to_json(), indent=1))
    else:
        show_everything(ranked, failed, file, out)
