"""``autotune-rlm store``: look at, export, import or clear the measurements."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from autotune_rlm.cli._app import StoreOption, failing, new_app, new_console, new_table

app = new_app(no_args_is_help=True)
_out = new_console()

_Kernel = Annotated[str | None, typer.Option("--kernel", help="Only this kernel.")]
_Device = Annotated[str | None, typer.Option("--device", help="Only this device.")]
_Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="csv, jsonl, kernel-tuner, t4 or configs; default: from the name."
    ),
]
_ReadFormat = Annotated[
    str | None,
    typer.Option(
        "--format", help="csv, jsonl, kernel-tuner, t4, ktt or triton; default: found out."
    ),
]
_MeasuredOn = Annotated[
    str | None,
    typer.Option("--device", help="What Triton's autotuner measured on; its files do not say it."),
]


def open_store(store: str | None) -> Any:
    """The store that a command names; exits with one line where it cannot be opened."""
    from autotune_rlm.store import Store, StoreError

    with failing(StoreError, status=1):
        return Store(store)


@app.command()
def info(store: StoreOption = None) -> None:
    """What the store holds: measurements by status, kernel and device, events, requests."""
    with open_store(store) as opened:
        found = opened.info()
    table = new_table(show_header=False, box=None)
    table.add_row("store", found.name)
    table.add_row("size", _size(found.size_bytes))
    table.add_row("schema version", str(found.schema_version))
    table.add_row("tasks", f"{found.n_tasks:,}")
    table.add_row("measurements", _counts(found.n_measurements))
    table.add_row("measured", _span(found.first, found.last))
    table.add_row("tuning events", f"{found.n_events:,}")
    table.add_row("waiting requests", f"{found.n_requests:,}")
    _out.print(table)
    for title, counts in (("kernel", found.kernels), ("device", found.devices)):
        if counts:
            _out.print(_ranking(title, counts))
    if not found.n_measurements:
        _out.print("Nothing measured yet. Try: autotune-rlm demo")


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="File to write; a folder for several T4 files.")],
    format: _Format = None,
    kernel: _Kernel = None,
    device: _Device = None,
    store: StoreOption = None,
) -> None:
    """Write measurements to a file: csv, t4, kernel-tuner, or jsonl, which keeps everything.

    With --format configs the fastest configurations of each kernel, device and problem, for
    configs_from= and for packages of kernels to ship as autotune_rlm.json.
    """
    from autotune_rlm.store import export_store

    with open_store(store) as opened, failing(ValueError, OSError, status=1):
        files, n = export_store(opened, path, format, kernel=kernel, device=device)
    where = str(files[0]) if len(files) == 1 else f"{len(files)} files in {path}"
    _out.print(f"wrote {n:,} measurements to {where}")


@app.command(name="import")
def import_(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders, plain or gzipped.")],
    format: _ReadFormat = None,
    device: _MeasuredOn = None,
    store: StoreOption = None,
) -> None:
    """Add measurements: landscape CSVs, Kernel Tuner, T4, KTT, jsonl, Triton's cache folder."""
    from autotune_rlm.store import import_file

    with open_store(store) as opened, failing(ValueError, OSError, status=1):
        for path in paths:
            added, there = import_file(opened, path, format, device=device)
            known = f" ({there:,} were there already)" if there else ""
            _out.print(f"added {added:,} measurements from {path}{known}")


@app.command()
def clear(
    kernel: _Kernel = None,
    device: _Device = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: StoreOption = None,
) -> None:
    """Delete measurements, events and requests: all, or those of a kernel or a device."""
    from autotune_rlm.store import StoreError

    with open_store(store) as opened:
        name = opened.info().name
        chosen = [
            f"{k} {v!r}" for k, v in (("kernel", kernel), ("device", device)) if v is not None
        ]
        what = " and ".join(chosen) if chosen else "everything"
        if not yes and (not chosen or opened.tasks(kernel=kernel, device=device)):
            typer.confirm(f"Delete {what} from {name}?", abort=True)
        with failing(StoreError, status=1):
            gone = opened.clear(kernel=kernel, device=device)
    _out.print(f"deleted {gone:,} measurements from {name}")


@app.command()
def weights(
    use: Annotated[
        str | None,
        typer.Option(help="Version to use from now on: a number, or 'bundled' for those shipped."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Show the weights that were fine-tuned on this store, or choose which are used.

    What is in use ranks everywhere: in the decorator, `rank`, `tune`, `watch`, searches and samplers.
    """
    from autotune_rlm.training.finetune import Versions

    with open_store(store) as opened:
        versions, name = Versions(store=opened), opened.name
    if use is not None:
        with failing(ValueError, status=1):
            versions.use(None if use == "bundled" else int(use))
    numbers = ("held-out Spearman", "measurements")
    table = new_table("version", "in use", "fine-tuned", right=numbers)
    rounds = {one.get("version"): one for one in versions.history()}
    for number in (None, *versions.numbers()):
        record = rounds.get(number, {}) if number is not None else {}
        table.add_row(
            "bundled" if number is None else str(number),
            "yes" if number == versions.current else "",
            str(record.get("when", "")),
            f"{record['before']:.3f} -> {record['after']:.3f}" if record else "",
            f"{record['measurements']:,}" if record else "",
        )
    _out.print(table)
    _out.print(f"of {name}, in {versions.folder}")


def _size(size: int | None) -> str:
    if size is None:
        return "on a server or in memory"
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


def _counts(counts: Any) -> str:
    total = f"{sum(counts.values()):,}"
    return total + (
        f" ({', '.join(f'{n:,} {name}' for name, n in counts.items())})" if counts else ""
    )


def _span(first: float | None, last: float | None) -> str:
    if first is None or last is None:
        return "never"
    ends = (datetime.fromtimestamp(t).strftime("%Y-%m-%d %H:%M") for t in (first, last))
    return " to ".join(dict.fromkeys(ends))


def _ranking(title: str, counts: Any) -> Table:
    table = new_table(title, right=("measurements",))
    rows = list(counts.items())
    for name, n in rows[:20]:
        table.add_row(name, f"{n:,}")
    if len(rows) > 20:
        table.add_row(f"{len(rows) - 20} more", f"{sum(n for _, n in rows[20:]):,}")
    return table
