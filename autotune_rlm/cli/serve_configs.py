"""``autotune-rlm serve-configs``: configuration files of vLLM and SGLang."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich import box
from rich.table import Table

from autotune_rlm.cli._app import new_app, new_console, print_error

app = new_app(
    no_args_is_help=True,
    help="Configuration files of vLLM and SGLang: predict them for any GPU, check what is there.",
)
_out = new_console()
_SHORT = {"BLOCK_SIZE_M": "M", "BLOCK_SIZE_N": "N", "BLOCK_SIZE_K": "K", "GROUP_SIZE_M": "group"}
_Text = Optional[str]  # noqa: UP045 (typer evaluates it on Python 3.10 too)
_Number = Optional[int]  # noqa: UP045


@app.command()
def predict(
    kernel: Annotated[
        str, typer.Argument(help="fused_moe, w8a8_block_fp8_matmul or w8a8_block_int8_matmul.")
    ],
    device: Annotated[str, typer.Option(help='The GPU as its driver names it: "NVIDIA H200".')],
    n: Annotated[int, typer.Option("--n", help="N of the file's name.")],
    k: Annotated[_Number, typer.Option("--k", help="K, for the block products.")] = None,
    e: Annotated[_Number, typer.Option("--e", help="Experts on one GPU, for fused_moe.")] = None,
    dtype: Annotated[_Text, typer.Option(help="As in the file's name, such as fp8_w8a8.")] = None,
    block_shape: Annotated[_Text, typer.Option(help="As in 128,128.")] = None,
    batches: Annotated[
        _Text, typer.Option(help="Batch sizes, as in 1,16,256; by default the servers' own.")
    ] = None,
    server: Annotated[str, typer.Option(help="vllm or sglang: how the file is named.")] = "vllm",
    out: Annotated[Path, typer.Option(help="Folder that the file is written to.")] = Path("."),
    surrogate: Annotated[_Text, typer.Option(help="Surrogate's name or folder.")] = None,
) -> None:
    """Write the file for a GPU that need not be here, from the model's predictions.

    For each batch size the whole space of the server's own tuner (1,280 or 1,920 configurations) is
    ranked. Nothing is measured: measure the file's choices before you rely on them.
    """
    from autotune_rlm.integrations import serving

    try:
        block = tuple(int(size) for size in block_shape.split(",")) if block_shape else None
        if block is not None and len(block) != 2:
            raise ValueError(
                f"--block-shape must be two numbers as in 128,128, got {block_shape!r}"
            )
        file = serving.ServingFile(
            kernel=kernel,
            device_name=device,
            E=e,
            N=n,
            K=k,
            dtype=dtype,
            block_shape=block,
        )
        file.name(server)
        sizes = [int(size) for size in batches.split(",")] if batches else serving.BATCHES
        entries = serving.predict(file, batches=sizes, surrogate=_surrogate(surrogate))
        table = _table("tokens", "ms", "from", "to")
        found: dict[int, dict[str, int]] = {}
        reasons: dict[str, None] = {}
        with _out.status(f"ranking {len(sizes)} batch sizes") as status:
            for entry in entries:
                status.update(f"ranked {len(found) + 1} of {len(sizes)} batch sizes")
                found[entry.batch] = entry.config
                reasons.update(dict.fromkeys(entry.unfamiliar))
                times = entry.median, entry.low, entry.high
                _row(table, entry.batch, entry.config, *(f"{ms:.3g}" for ms in times))
        path = file.with_configs(found).write(out, server=server)
    except (ValueError, OSError) as error:
        print_error(error)
        raise typer.Exit(2) from None
    _out.print(table)
    _reasons(reasons)
    _out.print(f"wrote {path}", soft_wrap=True)


@app.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files of vLLM or SGLang.")
    ],
    device: Annotated[
        _Text, typer.Option(help="The GPU that they are used on; by default the one they name.")
    ] = None,
    surrogate: Annotated[_Text, typer.Option(help="Surrogate's name or folder.")] = None,
) -> None:
    """Say which entries of files look slow, and what the model would take."""
    from autotune_rlm import devices
    from autotune_rlm.integrations import serving

    model = _surrogate(surrogate)
    for path in files:
        try:
            file = serving.ServingFile.read(path)
        except (ValueError, OSError) as error:
            print_error(error)
            raise typer.Exit(2) from None
        here = devices.lookup(device) if device else None
        table = _table("tokens", "expected to be slower by")
        reasons: dict[str, None] = {}
        for doubt in serving.check(file, device=here, surrogate=model):
            reasons.update(dict.fromkeys(doubt.unfamiliar))
            _row(table, doubt.batch, doubt.config, f"{100 * doubt.slower:.0f} %")
            _row(table, "better:", doubt.better, "")
        _out.print(f"{path.name}: {table.row_count // 2} of {len(file.configs)} entries look slow")
        if table.row_count:
            _out.print(table)
        _reasons(reasons)


def _surrogate(name: str | None) -> Any:
    from autotune_rlm.surrogate import load_surrogate

    return load_surrogate(name)


def _table(first: str, *last: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in (first, *_SHORT.values(), "warps", "stages", *last):
        table.add_column(name, justify="right")
    return table


def _row(table: Table, first: Any, config: dict[str, int], *last: str) -> None:
    names = (*_SHORT, "num_warps", "num_stages")
    table.add_row(str(first), *(str(config.get(name, "")) for name in names), *last)


def _reasons(reasons: dict[str, None]) -> None:
    for reason in reasons:
        _out.print(f"unfamiliar: {reason}", soft_wrap=True)
