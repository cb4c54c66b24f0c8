"""``autotune-rlm bench kernels``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from autotune_rlm.cli._app import check_folder, failing, new_console, new_table, write_json
from autotune_rlm.progress import ProgressLine

if TYPE_CHECKING:
    from autotune_rlm.bench import Bench, Run, Skipped
    from autotune_rlm.landscapes import Landscape

_METHODS = "rlm", "rlm-zero-shot", "random", "xgboost", "random-forest", "gp", "tpe"
_BUDGETS = 1, 2, 4, 8, 16, 32, 64


def kernels(
    files: list[Path] = typer.Argument(
        ..., metavar="FILE...", exists=True, dir_okay=False, help="Recorded landscapes."
    ),
    method: list[str] = typer.Option(
        list(_METHODS),
        help="Repeatable: rlm, rlm-zero-shot, trees, random, xgboost, random-forest, gp, tpe, "
        "nearest, analytical.",
    ),
    budget: list[int] = typer.Option(
        list(_BUDGETS), min=1, help="Repeatable: measurements at which regret is read."
    ),
    seeds: int = typer.Option(1, min=1, help="Searches per landscape and method."),
    landscapes: int = typer.Option(
        None, min=1, help="A random subset of this many, spread over files, kernels and devices."
    ),
    train: list[Path] = typer.Option(
        [], exists=True, dir_okay=False, help="Repeatable: landscapes known before, for 'nearest'."
    ),
    programs: Path = typer.Option(
        None,
        exists=True,
        dir_okay=False,
        help="A Python file with PROGRAMS = {kernel name: function(problem, config)}, which returns "
        "the kernel, its arguments and its grid: the compiler's facts of them are read.",
    ),
    surrogate: str = typer.Option(None, help="Name or path of the surrogate; default: bundled."),
    out: Path = typer.Option(None, "--json", dir_okay=False, help="Write the results here."),
    plot: Path = typer.Option(None, dir_okay=False, help="Plot regret over measurements."),
    plot_time: Path = typer.Option(
        None, dir_okay=False, help="Plot regret over simulated wall clock, where recorded."
    ),
    jobs: int = typer.Option(None, min=1, help="Processes; default: one per core."),
) -> None:
    """Compare tuning methods on recorded kernel landscapes.

    FILE holds landscapes as CSV (.csv, .csv.gz), Kernel Tuner cache, T4 or JSON lines. Regret at n
    is the best of the first n measured over the best of the landscape, minus 1.
    """
    bench, output = _prepare(files, method, budget, seeds, landscapes, train, surrogate, programs)
    for file in (out, plot, plot_time):
        check_folder(file)
    runs, skipped = _run(bench, jobs or os.cpu_count() or 1)
    results = output(bench, runs, skipped)
    write_json(out, results)
    _plot(results, runs, plot, plot_time)
    _show(results, bench)
    if any(s.failed for s in skipped):
        raise typer.Exit(1)


def _prepare(
    files: Sequence[Path],
    methods: Sequence[str],
    budgets: Sequence[int],
    seeds: int,
    number: int | None,
    train: Sequence[Path],
    surrogate: str | None,
    programs: Path | None = None,
) -> tuple[Bench, Any]:
    try:
        from autotune_rlm.bench import METHODS, Bench, pick_landscapes, results_json
        from autotune_rlm.bench.registry import SURROGATE_METHODS, TRAIN_METHODS
        from autotune_rlm.landscapes import read_landscapes
    except ImportError as error:
        raise typer.BadParameter(
            f"{error}; install with: pip install 'autotune-rlm[bench]'"
        ) from error
    for name in methods:
        if name not in METHODS:
            raise typer.BadParameter(f"--method must be one of {', '.join(METHODS)}; got {name!r}")
    if TRAIN_METHODS & set(methods) and not train:
        raise typer.BadParameter("--method nearest looks problems up: give it --train FILE")
    with failing(ValueError, OSError):
        if SURROGATE_METHODS & set(methods):
            from autotune_rlm.surrogate import load

            load(surrogate or "nano")
        bench = Bench(
            landscapes=tuple(_with_facts(pick_landscapes(files, number), programs)),
            methods=tuple(dict.fromkeys(methods)),
            budgets=tuple(sorted(set(budgets))),
            seeds=seeds,
            train=tuple(one for file in train for one in read_landscapes(file)),
            surrogate=surrogate,
        )
    return bench, results_json


def _with_facts(landscapes: Sequence[Landscape], programs: Path | None) -> Sequence[Landscape]:
    """The landscapes with what the compiler says of their candidates, where there is a program."""
    if programs is None:
        return landscapes
    from autotune_rlm.surrogate.programs import load_programs

    known = load_programs(programs)
    if not any(one.task.kernel in known for one in landscapes):
        names = ", ".join(sorted({one.task.kernel for one in landscapes}))
        raise ValueError(f"{programs} has no program of the kernels of the landscapes: {names}")
    found = []
    with ProgressLine(total=len(landscapes)) as line:
        for one in landscapes:
            found.append(known.read(one))
            line(f"facts of {len(found)} of {len(landscapes)} landscapes read", len(found))
    return found


def _run(bench: Bench, jobs: int) -> tuple[list[Run], list[Skipped]]:
    from autotune_rlm.bench import Skipped, run

    runs: list[Run] = []
    skipped: list[Skipped] = []
    total = len(bench.landscapes) * len(bench.methods)
    with ProgressLine(total=total) as line:
        try:
            for count, done in enumerate(run(bench, jobs=jobs), 1):
                if isinstance(done, Skipped):
                    skipped.append(done)
                else:
                    runs.extend(done)
                line(f"{count:,} of {total:,} searches", count)
        except KeyboardInterrupt:
            line.print("interrupted: what follows is what was done so far")
    order = {landscape.id: i for i, landscape in enumerate(bench.landscapes)}
    method = {name: i for i, name in enumerate(bench.methods)}
    runs.sort(key=lambda r: (order[r.landscape], method[r.method], r.seed))
    skipped.sort(key=lambda s: (order[s.landscape], method[s.method]))
    return runs, skipped


def _plot(
    results: dict[str, Any], runs: Sequence[Run], plot: Path | None, time: Path | None
) -> None:
    if plot is None and time is None:
        return
    from autotune_rlm.bench import plot_measurements, plot_time

    if plot is not None and results["summary"]:
        plot_measurements(results["summary"], plot)
    if time is not None and not plot_time(runs, results["time"]["full_s"], time):
        typer.echo(f"{time} not written: no landscape has recorded compile seconds", err=True)


def _show(results: dict[str, Any], bench: Bench) -> None:
    from collections import Counter

    import numpy as np

    console = new_console()
    if not console.is_terminal:
        console = new_console(width=200)
    title = f"Regret in % after n measurements, {len(bench.landscapes)} landscapes"
    numbers = *map(str, bench.budgets), "Spearman", "s/search"
    table = new_table("method", "regret", right=numbers, title=title, padding=(0, 1, 0, 0))
    for method in bench.methods:
        runs = [r for r in results["runs"] if r["method"] == method]
        if not runs:
            continue
        rows = [r for r in results["summary"] if r["method"] == method]
        ranks = [r["spearman"] for r in runs if r["spearman"] is not None]
        rank = f"{np.median(ranks):.3f}" if ranks else "-"
        seconds = np.mean([r["surrogate_s"] for r in runs])
        for name, more in (("mean", (rank, f"{seconds:.2f}")), ("median", ("", ""))):
            cells = [_percent(row[f"{name}_regret"]) for row in rows]
            cells = cells or ["-"] * len(bench.budgets)
            table.add_row(method if name == "mean" else "", name, *cells, *more)
    console.print(table)
    _show_time(results["time"], console)
    reasons = Counter((s["method"], s["reason"], s["failed"]) for s in results["skipped"])
    for (method, reason, failed), count in reasons.items():
        verb = "failed on" if failed else "skipped"
        console.print(f"{method} {verb} {count} of {len(bench.landscapes)} landscapes: {reason}")


def _show_time(time: dict[str, Any], console: Any) -> None:
    """Performance over time, where compile seconds are recorded: a table that Markdown takes."""
    import numpy as np
    from rich.box import MARKDOWN

    if not time["reach"]:
        return
    regrets = list(dict.fromkeys(row["regret"] for row in time["reach"]))
    full = float(np.median(list(time["full_s"].values())))
    console.print(
        f"Simulated seconds, method included, until within so much of the best: median over runs "
        f"(runs that came there); full search: {full:,.0f} s"
    )
    numbers = *(f"{regret:.0%}" for regret in regrets), f"times faster than full, {regrets[1]:.0%}"
    table = new_table("method", right=numbers, box=MARKDOWN, pad_edge=True, show_edge=True)
    for method in dict.fromkeys(row["method"] for row in time["reach"]):
        rows = {row["regret"]: row for row in time["reach"] if row["method"] == method}
        cells = (
            f"{'-' if row['median_s'] is None else format(row['median_s'], ',.1f')} "
            f"({row['reached']}/{row['runs']})"
            for row in rows.values()
        )
        faster = rows[regrets[1]]["times_faster"]
        table.add_row(method, *cells, "-" if faster is None else f"{faster:,.0f}")
    console.print(table)


def _percent(fraction: float) -> str:
    percent = 100 * fraction
    return f"{percent:.1f}" if percent < 99.95 else f"{percent:.0f}"
