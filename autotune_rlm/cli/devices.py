"""``autotune-rlm devices``: the devices whose figures are known."""

from __future__ import annotations

import json
from typing import Annotated, Optional

import typer

from autotune_rlm.cli._app import new_app, new_console, print_error

app = new_app()


@app.command()
def devices(
    name: Annotated[
        Optional[str],  # noqa: UP045 (typer evaluates it on Python 3.10 too)
        typer.Argument(metavar="NAME", help="Only the device that this name means."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the devices that `--device` of other commands knows, with their public figures.

    A device that is not listed can be added: see `autotune_rlm.devices.register`, or write
    its figures into `devices.json` in the folder that the last line names.
    """
    from rich.table import Table

    from autotune_rlm.devices import known, lookup, user_file

    found = [lookup(name)] if name else [lookup(each) for each in known()]
    if name and len(found[0].to_json()) == 1:
        print_error(f"nothing is known of {name!r}; `autotune-rlm devices` lists what is known")
        raise typer.Exit(1)
    if as_json:
        print(json.dumps([device.to_json() for device in found], indent=1))
        return
    columns = {
        "target": "target",
        "multiprocessors": "sms",
        "memory, GB/s": "mem_gb_s",
        "fp32, TFLOPS": "fp32_tflops",
        "fp16 matrix": "fp16_tensor_tflops",
        "L2, MiB": "l2_mb",
        "shared, KiB": "max_shared_kb_per_block",
        "MHz": "clock_mhz",
    }
    table = Table("device", *columns)
    for place, column in enumerate(table.columns):
        column.no_wrap = place == 0
        column.justify = "right" if place > 1 else "left"
    for device in found:
        values = (getattr(device, field) for field in columns.values())
        table.add_row(
            device.name,
            *("" if v is None else f"{v:g}" if not isinstance(v, str) else v for v in values),
        )
    console = new_console()
    console.print(table)
    console.print(f"Your own: {user_file()}", soft_wrap=True, highlight=False)
