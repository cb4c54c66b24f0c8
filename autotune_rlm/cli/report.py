"""``autotune-rlm report``: how right the surrogate was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from autotune_rlm import formats
from autotune_rlm.cli._app import StoreOption, failing, new_app, new_console, new_table
from autotune_rlm.cli.store import open_store

app = new_app()
_out = new_console()


@app.command()
def report(
    html: Annotated[Path | None, typer.Option(help="Write one HTML page.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures' data.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write the figures into a folder.")] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(help="Write the runs as scalars into a log folder of TensorBoard."),
    ] = None,
    kernel: Annotated[str | None, typer.Option(help="Only this kernel.")] = None,
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
    store: StoreOption = None,
) -> None:
    """Show how accurate the surrogate was: tables here, and a page, JSON or PNG where asked."""
    from autotune_rlm.report import (
        read_rounds,
        summarize,
        write_html,
        write_json,
        write_png,
        write_tensorboard,
    )
    from autotune_rlm.store import weights_folder, weights_version

    with open_store(store) as opened:
        events = opened.events(kernel=kernel, device=device)
        source = opened.info().name
        folder = weights_folder(opened)
    found = summarize(events, rounds=read_rounds(folder))
    _show(found, source)
    version = weights_version(folder)
    weights = "as shipped" if version is None else f"version {version}, fine-tuned on this store"
    _out.print(f"Weights in use: {weights} (autotune-rlm store weights)")
    with failing(ImportError, OSError, status=1):
        if html is not None:
            _wrote(write_html(found, html, source=source))
        if json is not None:
            _wrote(write_json(found, json))
        if png is not None:
            for file in write_png(found, png):
                _wrote(file)
        if tensorboard is not None:
            runs = len(write_tensorboard(found, tensorboard))
            _out.print(f"wrote {runs} runs; look: tensorboard --logdir {tensorboard}")


def _wrote(path: Path) -> None:
    _out.print(f"wrote {path} ({path.stat().st_size / 1024:,.0f} KiB)")


def _show(found: Any, source: str) -> None:
    if not found.events:
        _out.print(f"No tuning run is recorded in {source} yet.")
        _out.print("Try: autotune-rlm demo; or use @rlm_autotune in your program.")
        return
    verdicts = Table.grid(padding=(0, 2))
    for verdict in found.verdicts[:10]:
        where = f"{verdict.kernel} on {verdict.device}"
        verdicts.add_row(verdict.trust, f"{where}: {verdict.text}.")
    _out.print(verdicts)
    if found.apart is not None:
        _out.print(
            f"{found.apart.runs:,} of {len(found.events):,} runs are on kernels or devices that the "
            'model was never told of; "all" below leaves them out where there are others.'
        )
    if found.total.saved_s > 0:
        _out.print(
            f"Saved about {formats.seconds(found.total.saved_s)} against measuring everything."
        )
    _out.print(_accuracy("kernel", [*found.by_kernel[:30], found.total]))
    _out.print(_accuracy("device", found.by_device[:30]))
    _out.print(_accuracy("when", found.over_time[-14:]))
    _out.print(_seconds([*found.by_kernel[:30], found.total]))
    if found.failures:
        failures = _plain_table("failed or skipped because", "times")
        for failure in found.failures[:15]:
            failures.add_row(failure.reason, f"{failure.count:,}")
        _out.print(failures)
    ended = ", ".join(f"{n:,} x {stop}" for stop, n in found.stops.items())
    _out.print(f"Runs ended by: {ended}")
    if found.rounds:
        kept = sum(bool(r.get("accepted")) for r in found.rounds)
        _out.print(f"Fine-tuning: {kept} of {len(found.rounds)} rounds accepted")


def _accuracy(title: str, groups: Sequence[Any]) -> Table:
    table = _plain_table(title, "runs", "measured", "failed", "Spearman", "regret", "in 90 %")
    for g in groups:
        table.add_row(
            formats.short(g.name, 40),
            formats.thousands(g.runs),
            f"{formats.thousands(g.measured)}/{formats.thousands(g.candidates)}",
            formats.thousands(g.failed),
            formats.score(g.spearman),
            formats.percent(g.regret),
            formats.percent(g.coverage, 0),
        )
    return table


def _seconds(groups: Sequence[Any]) -> Table:
    table = _plain_table("where the time went", "model", "compile", "measure", "saved")
    for g in groups:
        spent = (g.model_s, g.compile_s, g.measure_s, g.saved_s)
        table.add_row(formats.short(g.name, 40), *map(formats.seconds, spent))
    return table


def _plain_table(title: str, *columns: str) -> Table:
    table = new_table(title, right=columns)
    table.columns[0].overflow, table.columns[0].min_width = "fold", 14
    return table
