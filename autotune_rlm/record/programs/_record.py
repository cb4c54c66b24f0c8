"""Records programs: every input of every program, into a record that a kill cannot corrupt."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune_rlm.measure.detect import cpu_device
from autotune_rlm.measure.errors import failed
from autotune_rlm.record._progress import Progress
from autotune_rlm.record.programs._measure import NotPrepared, ProgramMeasurer
from autotune_rlm.record.programs._program import Program, sizes
from autotune_rlm.types import Candidate, Measurement, Status, Task

METRIC = "peak_bytes"
"""Of the landscapes that programs are recorded as."""
INPUT = "input #"
"""Name of an input's place among its program's inputs, beside its sizes."""


@dataclass
class ProgramProgress(Progress):
    """How far a recording of programs is."""

    programs: int = 0  # met, those that the record has included
    known: int = 0  # inputs that the record had already


def record_programs(
    programs: Iterable[Program],
    log: Any,
    *,
    measurer: ProgramMeasurer,
    seconds: float | None = None,
    max_points: int | None = None,
    show: Callable[[ProgramProgress], None] = lambda progress: None,
) -> ProgramProgress:
    """Measure what the record has not.

    A program is a landscape: its text is the task's source, its inputs are the candidates.

    Args:
        programs: What to measure, in this order.
        log: An open ``RecordLog``.
        measurer: Runs them.
        seconds: Time after which it stops; None for no end.
        max_points: Measurements after which it stops.
        show: Called after each measurement.

    Raises:
        ValueError: The record has another program, or another device, under a program's name.
    """
    device, started = cpu_device(), time.monotonic()
    progress = ProgramProgress()

    def ended() -> bool:
        progress.elapsed_s = time.monotonic() - started
        return (
            log.full
            or (seconds is not None and progress.elapsed_s >= seconds)
            or (max_points is not None and progress.points >= max_points)
        )

    for program in programs:
        if ended():
            break
        progress.programs += 1
        candidates = [Candidate({INPUT: i, **sizes(x)}) for i, x in enumerate(program.inputs)]
        missing = [i for i, c in enumerate(candidates) if (program.id, c.key) not in log.done]
        progress.known += len(candidates) - len(missing)
        if not missing:
            continue
        log.open_landscape(program.id, _task(program, device))
        measure = _prepared(program, measurer)
        for i, found in zip(missing, measure([program.inputs[i] for i in missing]), strict=False):
            if found.status is Status.SKIPPED:  # says something about this machine only
                progress.leave_out(found.reason)
                continue
            log.add(program.id, candidates[i], found)
            progress.count(found)
            progress.bytes = log.size
            show(progress)
            if ended():
                break
    log.flush()
    progress.bytes = log.size
    ended()
    return progress


def _prepared(
    program: Program, measurer: ProgramMeasurer
) -> Callable[[Sequence[Any]], Iterable[Measurement]]:
    try:
        return measurer.prepare(program)
    except NotPrepared as error:
        fault = error.fault
        return lambda inputs: [failed(fault) for _ in inputs]


def _task(program: Program, device: Any) -> Task:
    known: Mapping[str, Any] = {"group": program.group or program.id, **program.fields}
    if program.call:
        known = {"call": program.call, **known}
    return Task(
        kernel=program.id,
        device=device,
        language=program.language,
        problem=known,
        source=program.text,
        metric=METRIC,
        versions={"python": platform.python_version()} if program.language == "python" else {},
    )
