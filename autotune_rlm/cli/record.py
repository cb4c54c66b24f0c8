"""``autotune-rlm record``: fill a file with landscapes of real kernels."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune_rlm.cli._app import fail, failing, new_app, new_console
from autotune_rlm.cli._ray import DEVICE, RAY, WORKERS, open_cluster
from autotune_rlm.devices import Target, parse_target
from autotune_rlm.progress import ProgressLine
from autotune_rlm.types import Device

if TYPE_CHECKING:
    from autotune_rlm.integrations.ray import Cluster

app = new_app()

_console = new_console(stderr=True)
_TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")


@app.command()
def record(
    out: Path = typer.Option(
        ..., "--out", help="Record to write or go on with: .jsonl or .jsonl.gz."
    ),
    suite: str = typer.Option("all", help="Folder of suite modules; all: benchmarks/kernels."),
    kernel: list[str] = typer.Option([], help="Only this kernel; may be given several times."),
    minutes: float = typer.Option(9.0, min=0.01, help="Stop after so many minutes."),
    compile_only: bool = typer.Option(
        False, "--compile-only", help="Record what compilation tells; needs no GPU."
    ),
    target: list[str] = typer.Option(
        [], help="With --compile-only: cuda:90, hip:gfx942, sm_80, ...; may be repeated."
    ),
    interpreter: bool = typer.Option(
        False, "--interpreter", help="Small problems on Triton's interpreter, wall clock."
    ),
    program: Path | None = typer.Option(
        None, exists=True, dir_okay=False, help="Run this script and record its autotuned kernels."
    ),
    argument: list[str] = typer.Option([], help="With --program: an argument for the script."),
    programs: Path | None = typer.Option(
        None,
        exists=True,
        help="Measure the memory and time of these programs: a folder, or a .jsonl, .csv or .parquet.",
    ),
    timeout_s: float = typer.Option(10.0, min=0.1, help="With --programs: seconds for each run."),
    memory_mb: int = typer.Option(1024, min=16, help="With --programs: memory of each run."),
    repeats: int = typer.Option(
        1, min=1, help="With --programs: runs of each input, for the median."
    ),
    table: Path | None = typer.Option(
        None, help="Write programs of OUT as a table for `fit` (.csv, .jsonl, .parquet) and stop."
    ),
    per: str = typer.Option("input", help="Rows of --table: one per input, or one per program."),
    texts: bool = typer.Option(True, help="Whether --table holds the programs' texts."),
    workers: int | None = typer.Option(None, min=1, help="Compilers; by default all cores."),
    sample_ms: float = typer.Option(10.0, min=0.1, help="Milliseconds of samples per point."),
    max_points: int | None = typer.Option(None, min=1, help="Stop after so many points."),
    problems: int | None = typer.Option(
        None, min=1, help="Only so many problems of each kernel, spread over its list."
    ),
    max_mb: float = typer.Option(15.0, min=0.2, help="Stop when the file is about this large."),
    seed: int = typer.Option(0, help="Of values and of the order of configurations."),
    verify: bool = typer.Option(True, help="Compare outputs with the kernels' references."),
    merge: list[Path] = typer.Option(
        [], exists=True, dir_okay=False, help="Add this record to OUT and stop; may be repeated."
    ),
    convert: Path | None = typer.Option(
        None, help="Write OUT as a landscape file (.csv.gz) and stop."
    ),
    ray: Annotated[str | None, RAY] = None,
    ray_workers: Annotated[int | None, WORKERS] = None,
    device: Annotated[str | None, DEVICE] = None,
) -> None:
    """Record landscapes of the kernel suite on the device at hand, or on a Ray cluster's."""
    from autotune_rlm.measure.interpreter import interpreted
    from autotune_rlm.record.log import RecordLog
    from autotune_rlm.record.log import convert as to_csv
    from autotune_rlm.record.log import merge as add_records

    if compile_only and interpreter:
        fail("--compile-only does not go with --interpreter")
    if compile_only and program and len(target) != 1:
        fail("--compile-only --program needs one --target: a program runs for one device")
    if target and not compile_only:
        fail("--target needs --compile-only; without it the device at hand is measured")
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        fail(f"--out must end in .jsonl or .jsonl.gz, got {out.name}; --convert writes a CSV")
    if programs is not None and (compile_only or interpreter or program is not None):
        fail("--programs does not go with --program, --compile-only or --interpreter")
    if ray is not None and (program is not None or programs is not None):
        fail("--ray records a suite; --program and --programs run on this machine")
    with failing(FileNotFoundError, ValueError, BlockingIOError):
        if merge:
            added = add_records(merge, out)
            _console.print(f"added {added:,} points to {out}")
        elif programs is not None:
            from autotune_rlm.cli._record_programs import record_programs

            with RecordLog(out, max_bytes=int(max_mb * 1e6)) as log:
                record_programs(
                    programs,
                    log,
                    timeout_s=timeout_s,
                    memory_mb=memory_mb,
                    repeats=repeats,
                    minutes=minutes,
                    max_points=max_points,
                )
        elif convert is None and table is None:
            with (
                interpreted() if interpreter else contextlib.nullcontext(),
                open_cluster(
                    ray, workers=ray_workers, device=device, cpus=interpreter or compile_only
                ) as cluster,
                RecordLog(out, max_bytes=int(max_mb * 1e6)) as log,
            ):
                if log.rows:
                    _console.print(f"{out} has {log.rows:,} points; going on with it")
                targets = _targets((target or _TARGETS) if compile_only else ())
                options: dict[str, Any] = {
                    "interpreter": interpreter,
                    "workers": workers,
                    "sample_ms": sample_ms,
                    "minutes": minutes,
                }
                if program is not None:
                    wanted = targets[0] if targets else None
                    _record_program(log, program, argument, target=wanted, **options)
                else:
                    _record_suite(
                        log,
                        suite=suite,
                        only=kernel,
                        problems=problems,
                        max_points=max_points,
                        targets=targets,
                        seed=seed,
                        verify=verify,
                        cluster=cluster,
                        **options,
                    )
        if convert is not None:
            rows = to_csv([out], convert)
            _console.print(f"wrote {rows:,} rows to {convert}")
        if table is not None:
            from autotune_rlm.cli._record_programs import make_table

            make_table(out, table, per=per, texts=texts)


def _targets(names: Sequence[str]) -> list[Target]:
    """What names of targets mean; ValueError where Triton does not compile for one of them here."""
    targets = [parse_target(name) for name in names]
    if not targets:
        return []
    import triton

    from autotune_rlm.measure.triton.capture import describe_call
    from autotune_rlm.measure.triton.compile import CompilePool

    @triton.jit
    def nothing() -> None:
        pass

    with CompilePool(1) as pool:
        for name, target in zip(names, targets, strict=True):
            spec = describe_call(nothing, target=target)
            if spec is not None and not (found := pool.compile(spec)).ok:
                raise ValueError(f"--target {name}: Triton cannot compile for it: {found.reason}")
    return targets


def _record_suite(
    log: Any,
    *,
    targets: Sequence[Target],
    interpreter: bool,
    minutes: float,
    max_points: int | None,
    cluster: Cluster | None,
    **options: Any,
) -> None:
    from autotune_rlm.record.recorder import Recorder

    recorder = Recorder(
        log,
        make_task=_make_task,
        device=_device(interpreter=interpreter, compile_only=bool(targets), cluster=cluster),
        targets=targets,
        interpreter=interpreter,
        cluster=cluster,
        **options,
    )
    with ProgressLine(total=minutes * 60, every_s=30) as line:
        done = recorder.run(
            seconds=minutes * 60,
            max_points=max_points,
            show=lambda progress: line(_line(progress), progress.elapsed_s),
        )
    print_summary(_line(done), done, log)


def _record_program(
    log: Any,
    script: Path,
    arguments: Sequence[str],
    *,
    target: Target | None,
    interpreter: bool,
    minutes: float,
    **options: Any,
) -> None:
    from autotune_rlm.record.program import record_program
    from autotune_rlm.record.recorder import compile_device

    device = _device(interpreter=interpreter) if target is None else compile_device(target)
    cache: Any = contextlib.nullcontext(None)
    if target is not None:
        cache = tempfile.TemporaryDirectory(prefix="autotune_rlm_record_")
    with cache as cache_dir, ProgressLine(total=minutes * 60, every_s=30) as line:
        done = record_program(
            script,
            arguments,
            log=log,
            make_task=_make_task,
            device=device,
            target=target,
            cache_dir=cache_dir,
            seconds=minutes * 60,
            show=lambda progress: line(_line(progress), progress.elapsed_s),
            **options,
        )
    print_summary(_line(done), done, log)
    for kernel, reason in sorted(done.kernels_left_out.items()):
        _console.print(f"  left out of {kernel}: {reason}")
    if done.never_met:
        names = ", ".join(done.never_met)
        _console.print(f"  {len(done.never_met)} autotuned kernels were never called: {names}")


def _make_task(kernel: Any, args: Mapping[str, Any], device: Any, names: Sequence[str]) -> Any:
    from autotune_rlm.integrations.triton.task import KernelTasks

    return KernelTasks(kernel, names).build(args, device)


def _device(
    *, interpreter: bool, compile_only: bool = False, cluster: Cluster | None = None
) -> Device:
    from dataclasses import replace

    from autotune_rlm.measure.detect import cpu_device, current_device

    if compile_only:
        return Device(name="none", target="none")
    if interpreter:
        cpu = cpu_device() if cluster is None else cluster.device
        return replace(cpu, name=f"Triton interpreter on {cpu.name}", target="interpreter")
    device = current_device() if cluster is None else cluster.device
    if device.target == "cpu":
        raise ValueError(
            "there is no GPU here; --compile-only records what compilation tells, --interpreter "
            "runs the small problems on Triton's interpreter"
        )
    return device


def _line(progress: Any) -> str:
    busy = progress.busy_s / progress.elapsed_s if progress.elapsed_s else 0.0
    return (
        f"{progress.points:,} points ({progress.ok:,} ok), {progress.rate:.1f}/s, "
        f"{progress.binaries:,} binaries, {progress.kernels} kernels, "
        f"device busy {busy:.0%}, {progress.bytes / 1e6:.1f} MB"
    )


def print_summary(line: str, done: Any, log: Any) -> None:
    """How a recording ended: in a line, by status, what was left out, and what the file holds."""
    _console.print(line)
    for status, count in sorted(done.status.items()):
        _console.print(f"  {status}: {count:,}")
    for reason, count in sorted(done.left_out.items(), key=lambda item: -item[1])[:5]:
        _console.print(f"  left out, {count:,}: {reason}")
    _console.print(f"{log.path}: {log.rows:,} points in all")
