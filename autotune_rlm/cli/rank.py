"""``autotune-rlm rank``: a kernel's configurations for any device, best first, without running them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.table import Table

from autotune_rlm.cli._app import new_app, new_console, print_error

if TYPE_CHECKING:
    from autotune_rlm.integrations.triton._offline import OfflineKernel
    from autotune_rlm.measure.compile import CompileResult
    from autotune_rlm.types import Candidate, Device

app = new_app()
_Text = Optional[str]  # noqa: UP045 (typer evaluates it on Python 3.10 too)


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
        list[str], typer.Option(help='Device\'s name, such as "NVIDIA H100"; may be repeated.')
    ],
    problem: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="Arguments: M=4096,N=4096,dtype=fp16, tensors as x=fp16[64,128]; may be repeated."
        ),
    ] = None,
    configs: Annotated[
        _Text, typer.Option(help='Configurations: "BLOCK=64,128; num_warps=4,8".')
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 10,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile those shown for the device, for the facts.")
    ] = False,
    target: Annotated[_Text, typer.Option(help="Compiler target, such as sm_90.")] = None,
    surrogate: Annotated[_Text, typer.Option(help="Surrogate's name or folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the recommended configurations here, for configs_from=."),
    ] = None,
) -> None:
    """Rank configurations for devices that need not be here.

    Configurations come from the kernel's autotuner, or from --configs. For a whole file, module or
    package, arguments that --problem does not give are guessed from each kernel's text. The
    file of --out keeps what it holds of other kernels, devices and problems.
    """
    from autotune_rlm.measure._interpreter import interpreted

    try:
        with interpreted(False):
            if _is_whole(kernel, device, problem):
                if configs or compile or target:
                    raise ValueError("--configs, --compile and --target take one FILE.py:KERNEL")
                _rank_whole(kernel, device, problem or [], top, surrogate, as_json, out)
                return
            text = (problem or [""])[0]
            told = _rank(kernel, device[0], text, configs, top, compile, target, surrogate, out)
    except (ValueError, TypeError, OSError) as error:
        print_error(error)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(told, indent=1))
    else:
        _show(told)


def _rank(
    where: str,
    device_name: str,
    problem_text: str,
    configs: str | None,
    top: int,
    compiles: bool,
    target: str | None,
    surrogate: str | None,
    out: Path | None,
) -> dict[str, Any]:
    import dataclasses

    from autotune_rlm.config_file import ConfigFile
    from autotune_rlm.devices import lookup
    from autotune_rlm.integrations.triton._offline import load_file, parse_problem, parse_space
    from autotune_rlm.integrations.triton._recommend import recommendation
    from autotune_rlm.surrogate import load

    problem = parse_problem(problem_text)
    device = lookup(device_name)
    if target is not None:
        device = dataclasses.replace(device, target=target)
    loaded = load_file(where, parse_space(configs) if configs else None)
    task, candidates = loaded.task(problem, device), loaded.candidates
    prediction = load(surrogate).predict(task, candidates)
    order = prediction.order(minimize=task.minimize)[:top].tolist()
    if out is not None:
        ConfigFile([recommendation(loaded, task, prediction, top)]).save(out)
    rows = [
        {
            "rank": place,
            "config": dict(candidates[i].config),
            "predicted_ms": float(prediction.median[i]),
            "low_ms": float(prediction.low[i]),
            "high_ms": float(prediction.high[i]),
            "p_fails": 1.0 - float(prediction.p_valid[i]),
        }
        for place, i in enumerate(order, 1)
    ]
    if compiles:
        results = _compiled(loaded, problem, device, [candidates[i] for i in order])
        for row, result in zip(rows, results, strict=True):
            row["compiled"] = {
                "status": result.status.value,
                "reason": result.reason,
                "compile_s": result.compile_s,
                **result.facts,
            }
    return {
        "kernel": task.kernel,
        "device": device.to_json(),
        "problem": dict(problem),
        "n_configs": len(candidates),
        "known_device": len(device.to_json()) > 2,
        "ranking": rows,
    }


def _is_whole(where: str, devices: Sequence[str], problems: Sequence[str] | None) -> bool:
    return ":" not in Path(where).name or len(devices) > 1 or len(problems or ()) > 1


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
    from autotune_rlm.config_file import ConfigFile
    from autotune_rlm.devices import lookup
    from autotune_rlm.integrations.triton._offline import parse_problem

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


def _compiled(
    kernel: OfflineKernel, problem: dict[str, Any], device: Device, candidates: list[Candidate]
) -> list[CompileResult]:
    from autotune_rlm.measure.compile import CompilePool

    specs = [kernel.spec(problem, device, candidate) for candidate in candidates]
    with CompilePool() as pool:
        pending = [pool.submit(spec) for spec in specs]
        return [future.result() for future in pending]


def _show(told: dict[str, Any]) -> None:
    out = new_console()
    sizes = ", ".join(f"{k}={v}" for k, v in told["problem"].items())
    rows = told["ranking"]
    title = f"{told['kernel']} ({sizes}) on {told['device']['name']}: {told['n_configs']} configurations"
    table = Table(title=title, title_justify="left")
    names = list(dict.fromkeys(name for row in rows for name in row["config"]))
    facts = ["status", "shared_bytes", "registers", "spills"] if "compiled" in rows[0] else []
    columns = ("", *names, "ms", "90 % interval", "fails", *facts)
    for name in columns:
        table.add_column(name.removesuffix("_bytes"), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["rank"]),
            *(str(row["config"].get(name, "")) for name in names),
            f"{row['predicted_ms']:.4g}",
            f"{row['low_ms']:.3g} to {row['high_ms']:.3g}",
            f"{row['p_fails']:.1%}",
            *(str(row["compiled"].get(name, "")) for name in facts),
        )
    out.width = max(out.width, 16 * len(columns))
    out.print(table)
    if not told["known_device"]:
        out.print(
            f"Nothing is known of {told['device']['name']!r}: the ranking rests on "
            "the kernel alone. Known names: python -c "
            '"import autotune_rlm.devices as d; print(d.known())"'
        )
