"""Recordings of programs as landscapes of texts.

A recording (``autotune-rlm record --programs``) has one landscape for each program, whose candidates are
its inputs. What is learnt is how programs differ, so here all programs of a language are the candidates
of one landscape for each metric: the program is a candidate's text, the sizes of its input are its
parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from autotune_rlm._json import is_drawn
from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.types import Candidate, Measurement, Status, Task

__all__ = ["is_reserved_program", "program_landscapes", "program_task"]

_GROUP = "group"
_SIZES = ("items", "characters", "largest", "depth")
"""What every input has; the lengths of single arguments have the names of one program's."""


@dataclass(eq=False)
class _Rows:
    task: Task
    candidates: list[Candidate] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)


def program_task(task: Task, metric: str) -> Task:
    """What is asked of programs, whatever program it is: language, metric and machine."""
    return Task(
        kernel="program",
        device=task.device,
        language=task.language,
        metric=metric,
        minimize=True,
    )


def program_landscapes(
    recorded: Iterable[Landscape],
    *,
    metrics: Sequence[str] = ("peak_bytes",),
    statements: bool = False,
) -> list[Landscape]:
    """One landscape for each language and metric.

    Args:
        recorded: One landscape for each program, its text as the task's source.
        metrics: What is read: the recording's own metric, and names of a measurement's facts.
        statements: Whether a program's problem statement (``problem["statement"]``) stands before it.
    """
    found: dict[tuple[str, str], _Rows] = {}
    for landscape in recorded:
        task = landscape.task
        text = task.source
        if statements and task.problem.get("statement"):
            text = f"{task.problem['statement']}\n\n{text}"
        for metric in metrics:
            rows = found.setdefault((task.language, metric), _Rows(program_task(task, metric)))
            for candidate, measured in zip(
                landscape.candidates, landscape.measurements, strict=True
            ):
                value = measured.value if metric == task.metric else measured.facts.get(metric)
                if not measured.ok or not isinstance(value, (int, float)):
                    continue
                sizes = {k: candidate.config[k] for k in _SIZES if k in candidate.config}
                rows.candidates.append(Candidate(sizes, text, payload=landscape.id))
                rows.measurements.append(Measurement(status=Status.OK, value=float(value)))
    return [
        Landscape(
            rows.task,
            tuple(rows.candidates),
            tuple(rows.measurements),
            f"program/{language}/{metric}",
        )
        for (language, metric), rows in found.items()
        if rows.candidates
    ]


def is_reserved_program(task: Task, share: float) -> bool:
    """Whether a program belongs to the share that is never trained on, drawn by a hash.

    Programs of one group (solutions of one problem) are drawn together.
    """
    return is_drawn(str(task.problem.get(_GROUP, task.kernel)), share)
