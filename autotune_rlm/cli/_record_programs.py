"""``autotune-rlm record --programs``: its progress, its summary, its table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune_rlm.cli._app import new_console
from autotune_rlm.cli.record import print_summary
from autotune_rlm.progress import ProgressLine

if TYPE_CHECKING:
    from autotune_rlm.record.programs import ProgramProgress

_console = new_console(stderr=True)


def record_programs(
    place: Path,
    log: Any,
    *,
    timeout_s: float,
    memory_mb: int,
    repeats: int,
    minutes: float,
    max_points: int | None,
) -> None:
    """Measure the programs of a folder or table and say how it goes."""
    from autotune_rlm.record import programs

    found = list(programs.read_programs(place))  # a bad row is told before anything runs
    limits = programs.Limits(timeout_s=timeout_s, memory_mb=memory_mb)
    total = sum(len(one.inputs) for one in found)
    with (
        programs.ProgramMeasurer(limits=limits, repeats=repeats) as measurer,
        ProgressLine(total=total, every_s=30) as line,
    ):
        if measurer.has_network:
            line.print("this system allows no namespace without a network: programs can reach it")
        done = programs.record_programs(
            found,
            log,
            measurer=measurer,
            seconds=minutes * 60,
            max_points=max_points,
            show=lambda progress: line(_line(progress), progress.known + progress.points),
        )
    print_summary(_line(done), done, log)


def make_table(record: Path, out: Path, *, per: str, texts: bool) -> None:
    """Write the programs of a record as a table."""
    from autotune_rlm.record.log import read_record
    from autotune_rlm.record.programs import program_table, write_table

    if per not in ("input", "program"):
        raise ValueError(f"--per must be input or program, got {per!r}")
    table = program_table(read_record(record), per=per, texts=texts)  # type: ignore[arg-type]
    if not len(table):
        raise ValueError(f"{record} holds no measured program; record some with --programs")
    write_table(table, out)
    _console.print(f"wrote {len(table):,} rows of {table['program'].nunique():,} programs to {out}")


def _line(progress: ProgramProgress) -> str:
    known = f", {progress.known:,} known before" if progress.known else ""
    return (
        f"{progress.points:,} points ({progress.ok:,} ok), {progress.rate:.1f}/s, "
        f"{progress.programs:,} programs{known}, {progress.bytes / 1e6:.1f} MB"
    )
