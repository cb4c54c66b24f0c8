"""``autotune-rlm devices``: the devices whose figures are known."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from autotune_rlm.cli._app import fail, new_app, new_console, new_table

app = new_app()


@app.command()
def devices(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only the device that this name means.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the devices that `--device` of other commands knows, with their public figures.

    A device that is not listed can be added: see `autotune_rlm.devices.register`, or write
    its figures into `devices.json` in the folder that the last line names.
    """
    from autotune_rlm.devices import known, lookup, user_file

    found = [lookup(name)] if name else [lookup(each) for each in known()]
    if name and len(found[0].to_json()) == 1:
        fail(f"nothing is known of {name!r}; `autotune-rlm devices` lists what is known", 1)
    if as_json:
        print(json.dumps([device.to_json() for device in found], indent=1))
        return
    console = new_console()
    if name:
        table = new_table(box=None, show_header=False)
        for label, field in _FIGURES.items():
            table.add_row(label, _text(getattr(found[0], field)))
    else:
        table = new_table(*list(_SHORT)[:2], right=tuple(_SHORT)[2:])
        for device in found:
            table.add_row(*(_text(getattr(device, field)) for field in _SHORT.values()))
    console.print(table)
    if not name:
        console.print("`autotune-rlm devices NAME` tells all figures of one.")
        console.print(f"Your own: {user_file()}")


_SHORT = {
    "device": "name",
    "target": "target",
    "SMs": "sms",
    "GB/s": "mem_gb_s",
    "fp16 TFLOPS": "fp16_tensor_tflops",
}
_FIGURES = {
    "name": "name",
    "architecture": "arch",
    "target": "target",
    "multiprocessors": "sms",
    "memory, GB/s": "mem_gb_s",
    "fp32, TFLOPS": "fp32_tflops",
    "dense fp16 in the matrix units, TFLOPS": "fp16_tensor_tflops",
    "L2, MiB": "l2_mb",
    "shared memory of a multiprocessor, KiB": "shared_kb_per_sm",
    "shared memory of a program at most, KiB": "max_shared_kb_per_block",
    "boost clock, MHz": "clock_mhz",
}


def _text(figure: Any) -> str:
    return "" if figure is None else figure if isinstance(figure, str) else f"{figure:g}"
