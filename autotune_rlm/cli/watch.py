"""``autotune-rlm watch``: benchmark noted problems whenever the device is idle."""

from __future__ import annotations

import logging
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from autotune_rlm import formats
from autotune_rlm.cli._app import StoreOption, failing, new_app, new_console
from autotune_rlm.cli.store import open_store

app = new_app()


@app.command()
def watch(
    store: StoreOption = None,
    kernels: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder below which kernels may be run; may be given several times. Kernels elsewhere "
            "are left alone: whoever writes to a shared store does not choose what runs here."
        ),
    ] = None,
    duty: Annotated[float, typer.Option(help="Share of the time to spend measuring.")] = 0.25,
    busy: Annotated[
        float, typer.Option(help="Wait while others use more than this share; 1 to never wait.")
    ] = 0.3,
    top: Annotated[int, typer.Option(help="Candidates to measure per problem.")] = 8,
    once: Annotated[bool, typer.Option(help="Stop when no problem is left.")] = False,
    seconds: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    surrogate: Annotated[
        str | None, typer.Option(help="Surrogate to rank with; 'none' for the noted order.")
    ] = None,
    fine_tune_after: Annotated[
        int, typer.Option(help="Fine-tune the surrogate after so many measurements; 0 for never.")
    ] = 64,
) -> None:
    """Benchmark noted problems whenever the device is idle.

    Programs that tune with mode="predict" note what they met. This takes the most used problems,
    measures their best candidates and writes to the store, where the programs find them at their
    next launch. Ctrl-C stops it after the candidate in hand.
    """
    from autotune_rlm.search.watch import AlreadyWatchedError, Served, Watcher

    console = new_console()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with open_store(store) as opened:
        versions, model = _model(surrogate, fine_tune_after > 0, opened)
        with failing(ValueError):
            watcher = Watcher(
                opened,
                kernels=kernels or (),
                duty=duty,
                busy=busy,
                top=top,
                surrogate=model,
                fine_tune=_fine_tuning(versions, console) if versions is not None else None,
                fine_tune_after=max(fine_tune_after, 1),
                quiet=False,
            )

        def show(served: Served) -> None:
            best = "nothing works"
            if served.best_value is not None:
                best = f"best {formats.measured(served.best_value, served.task.metric)}"
            end = "" if served.finished else " (stopped)"
            console.print(f"{served.task.kernel}: {served.measured} measured, {best}{end}")

        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: watcher.stop())
        console.print(f"Watching {watcher.device.name}; Ctrl-C to stop.")
        with failing(AlreadyWatchedError, status=1):
            begin = time.monotonic()
            count = watcher.run(once=once, seconds=seconds, told=show)
    took = formats.seconds(time.monotonic() - begin)
    console.print(f"{formats.count(count, 'problem')} served in {took}.")


def _model(name: str | None, learns: bool, store: Any) -> tuple[Any, Any]:
    """Versions to fine-tune (or None) and the surrogate to begin with (or None)."""
    if name == "none":
        return None, None
    from autotune_rlm.surrogate import load

    if name is not None or not learns:
        return None, load(name, store=store)
    from autotune_rlm.training.finetune import Versions

    versions = Versions(store=store)
    return versions, versions.load()


def _fine_tuning(versions: Any, console: Any) -> Any:
    def fine_tune(store: Any) -> tuple[Any, dict[str, Any]]:
        record = versions.round(store.landscapes())
        verdict = "accepted" if record.accepted else "rejected"
        console.print(
            f"Fine-tuning {verdict} after {formats.seconds(record.seconds)}: held-out Spearman "
            f"{record.before:.3f} -> {record.after:.3f}"
        )
        return versions.load(), record.to_json()

    return fine_tune
