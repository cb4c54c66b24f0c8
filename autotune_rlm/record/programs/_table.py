"""The measurements of programs as one flat table, which ``autotune-rlm fit`` reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from autotune_rlm.landscapes import Landscape
from autotune_rlm.programs import SIZES
from autotune_rlm.record.programs._record import INPUT, METRIC

if TYPE_CHECKING:
    import pandas

_NUMBERS = ("call_bytes", "rss_bytes", "time_ms", "call_ms")


def program_table(
    landscapes: Iterable[Landscape],
    *,
    per: Literal["input", "program"] = "input",
    texts: bool = True,
) -> pandas.DataFrame:
    """Recorded programs as a table.

    Args:
        landscapes: Those of a record (``read_record``); what is no program is passed over.
        per: ``"input"``: one row a run, failures too. ``"program"``: one row a program that worked on
            at least half of its inputs, with the medians of its numbers and of its inputs' sizes.
        texts: Whether the programs' texts are in it.

    Returns:
        Columns ``program``, ``language``, ``group``, ``text``, ``input``, the sizes of the input,
        ``status``, ``reason``, ``peak_bytes`` and, where they were measured, ``call_bytes``,
        ``rss_bytes``, ``time_ms``, ``call_ms``, and the fields that came with the programs.
    """
    import pandas

    rows: list[dict[str, Any]] = []
    for landscape in landscapes:
        if landscape.task.metric == METRIC:
            rows.extend(_rows(landscape))
    table = pandas.DataFrame(rows)
    if per == "program" and len(table):
        table = _per_program(table)
    return table if texts or not len(table) else table.drop(columns="text")


def _rows(landscape: Landscape) -> Iterable[dict[str, Any]]:
    task = landscape.task
    fields = {k: v for k, v in task.problem.items() if k not in ("group", "call")}
    for seen in landscape.observations:
        given, found = seen.candidate.config, seen.measurement
        yield {
            "program": landscape.id,
            "language": task.language,
            "group": task.problem.get("group", landscape.id),
            "text": task.source,
            "input": given.get(INPUT),
            **{name: given[name] for name in SIZES if name in given},
            "sizes": {k: v for k, v in given.items() if k not in (INPUT, *SIZES)},
            "status": found.status.value,
            "reason": found.reason,
            METRIC: found.value,
            **{name: found.facts[name] for name in _NUMBERS if name in found.facts},
            **fields,
        }


def _per_program(table: pandas.DataFrame) -> pandas.DataFrame:
    numbers = [name for name in (METRIC, *_NUMBERS, *SIZES) if name in table]
    steady = [c for c in table if c not in (*numbers, "input", "sizes", "status", "reason")]
    whole = table.groupby("program", sort=False)
    works = table[table["status"] == "ok"].groupby("program", sort=False)
    found = works[steady].first().drop(columns="program").join(works[numbers].median())
    found["runs"] = works.size()
    return found[found["runs"] >= 0.5 * whole.size().loc[found.index]].reset_index()
