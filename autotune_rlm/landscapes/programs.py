"""Recordings of programs as landscapes of texts.

A recording (``autotune-rlm record --programs``) has one landscape for each program, whose candidates are
its inputs. What is learnt is how programs differ, so here all programs of a language are the candidates
of one landscape for each metric: the program is a candidate's text, the sizes of its input are its
parameters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from autotune_rlm._json import is_drawn
from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.types import Candidate, Measurement, Observation, Status, Task

__all__ = ["is_reserved_program", "program_landscapes", "program_task"]

_GROUP = "group"
_SIZES = ("items", "characters", "largest", "depth")
"""What every input has; the lengths of single arguments have the names of one program's."""


def program_task(task: Task, metric: str) -> Task:
    """What is asked of programs, whatever program it is: language, metric and machine."""
    return Task(kernel="program", device=task.device, language=task.language, metric=metric)


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
    tasks: dict[tuple[str, str], Task] = {}
    found: dict[tuple[str, str], list[Observation]] = defaultdict(list)
    for landscape in recorded:
        task = landscape.task
        text = task.source
        if statements and task.problem.get("statement"):
            text = f"{task.problem['statement']}\n\n{text}"
        for metric in metrics:
            key = task.language, metric
            tasks.setdefault(key, program_task(task, metric))
            for seen in landscape.observations:
                measured, config = seen.measurement, seen.candidate.config
                value = measured.value if metric == task.metric else measured.facts.get(metric)
                if measured.ok and isinstance(value, (int, float)):
                    sizes = {k: config[k] for k in _SIZES if k in config}
                    candidate = Candidate(sizes, text, payload=landscape.id)
                    again = Measurement(status=Status.OK, value=float(value))
                    found[key].append(Observation(candidate, again))
    return [
        Landscape.from_observations(tasks[key], rows, id="/".join(("program", *key)))
        for key, rows in found.items()
    ]


def is_reserved_program(task: Task, share: float) -> bool:
    """Whether a program belongs to the share that is never trained on, drawn by a hash.

    Programs of one group (solutions of one problem) are drawn together.
    """
    return is_drawn(str(task.problem.get(_GROUP, task.kernel)), share)
