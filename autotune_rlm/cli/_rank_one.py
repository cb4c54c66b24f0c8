"""``autotune-rlm rank`` for one kernel and one problem."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune_rlm import formats
from autotune_rlm.cli._app import new_console, new_table

if TYPE_CHECKING:
    from autotune_rlm.integrations.triton.offline.kernel import OfflineKernel
    from autotune_rlm.measure.triton.compile import CompileResult
    from autotune_rlm.types import Candidate, Device, Observation, Task


def rank_one(
    where: str,
    name: str,
    *,
    target: str | None = None,
    given: str = "",
    grid: Sequence[str] = (),
    guess: bool = False,
    configs: str | None = None,
    top: int = 10,
    compiles: bool = False,
    surrogate: str | None = None,
    store: str | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """The ranking for the device of a ``name`` as plain JSON; the rest are the command's options."""
    from autotune_rlm.devices import completed, lookup
    from autotune_rlm.integrations.triton.offline.kernel import (
        load_file,
        parse_problem,
        parse_space,
    )
    from autotune_rlm.integrations.triton.offline.recommend import read_offline, recommendation
    from autotune_rlm.store.config_file import ConfigFile
    from autotune_rlm.surrogate import load

    told = parse_problem(given)
    device = lookup(name)
    if target is not None:
        device = completed(dataclasses.replace(device, target=target))
    kernel = load_file(where, parse_space(configs) if configs else None)
    task = kernel.task(told, device)
    problem, assumed = _whole_problem(kernel, told, guess)
    if grid:
        kernel.launches(problem, grid=grid)(kernel.candidates[0])  # tells of a wrong one
    model = load(surrogate, store=store)
    read = read_offline(kernel, problem, task, model, grid=grid)
    prediction = model.predict(task, read.candidates, observed=_measured(store, task))
    order = prediction.order(minimize=task.minimize)[:top].tolist()
    if out is not None:
        ConfigFile([recommendation(kernel, task, prediction, top)]).save(out)
    rows: list[dict[str, Any]] = [
        {
            "rank": place,
            "config": dict(kernel.candidates[i].config),
            "predicted_ms": float(prediction.median[i]),
            "low_ms": float(prediction.low[i]),
            "high_ms": float(prediction.high[i]),
            "p_fails": 1.0 - float(prediction.p_valid[i]),
        }
        for place, i in enumerate(order, 1)
    ]
    if compiles:
        results = _compiled(kernel, problem, device, [kernel.candidates[i] for i in order])
        for row, result in zip(rows, results, strict=True):
            row["compiled"] = {
                "status": result.status.value,
                "reason": result.reason,
                "compile_s": result.compile_s,
                **result.facts,
            }
    return {
        "kernel": task.kernel,
        "device": device.to_json(),
        "problem": told,
        "assumed": [*assumed, *read.assumed],
        "unfamiliar": list(prediction.unfamiliar),
        "not_read": dict(read.reasons),
        "n_configs": len(kernel.candidates),
        "read": {"distinct": read.distinct, "read": read.read, "seconds": read.seconds},
        "known_device": len(device.to_json()) > 2,
        "ranking": rows,
    }


def _measured(store: str | None, task: Task) -> list[Observation]:
    """What the store that was named knows of this very problem."""
    if store is None:
        return []
    from autotune_rlm.measure.errors import remembered
    from autotune_rlm.store import Store

    with Store(store) as opened:
        return remembered(opened.observations(task))


def show_one(answer: Mapping[str, Any]) -> None:
    """The ranking as a table, and below it what it rests on."""
    sizes = formats.config(answer["problem"])
    rows = answer["ranking"]
    name = answer["device"]["name"]
    count = formats.count(answer["n_configs"], "configuration")
    title = f"{answer['kernel']} ({sizes}) on {name}: {count}"
    names = list(dict.fromkeys(name for row in rows for name in row["config"]))
    facts = ["status", "shared_bytes", "registers", "spills"] if "compiled" in rows[0] else []
    columns = ("", *names, "time", "90 % interval", "fails", *facts)
    out = new_console(min_width=16 * len(columns))
    table = new_table(right=tuple(c.removesuffix("_bytes") for c in columns), title=title)
    for row in rows:
        table.add_row(
            str(row["rank"]),
            *(str(row["config"].get(name, "")) for name in names),
            formats.milliseconds(row["predicted_ms"]),
            f"{formats.milliseconds(row['low_ms'])} to {formats.milliseconds(row['high_ms'])}",
            f"{row['p_fails']:.1%}",
            *(str(row["compiled"].get(name, "")) for name in facts),
        )
    out.print(table)
    for line in _notes(answer):
        out.print(line)


def _whole_problem(
    kernel: OfflineKernel, given: Mapping[str, Any], guess: bool
) -> tuple[dict[str, Any], list[str]]:
    """Every argument that is needed, and what of it was assumed."""
    assumed: list[str] = []
    if guess:
        whole = kernel.default_problem(given)
        said = {n: v.get("dtype", v) if isinstance(v, dict) else v for n, v in whole.items()}
        assumed = [
            f"{n}={'*' if isinstance(whole[n], dict) else ''}{v}"
            for n, v in said.items()
            if n not in given
        ]
        return {**given, **whole}, assumed
    kernel.arguments(given, assumed=assumed)
    return dict(given), assumed


def _compiled(
    kernel: OfflineKernel,
    problem: Mapping[str, Any],
    device: Device,
    candidates: Sequence[Candidate],
) -> list[CompileResult]:
    from autotune_rlm.measure.triton.compile import CompilePool

    specs = [kernel.spec(problem, device, candidate) for candidate in candidates]
    with CompilePool() as pool:
        pending = [pool.submit(spec) for spec in specs]
        return [future.result() for future in pending]


def _notes(answer: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the ranking, a sentence a line."""
    notes = []
    if answer["assumed"]:
        notes.append(f"Assumed: {'; '.join(answer['assumed'])}.")
    if answer["unfamiliar"]:
        notes.append(f"Unfamiliar, so the times are rough: {'; '.join(answer['unfamiliar'])}.")
    notes += [
        f"Not read ({formats.count(count, 'configuration')}): {reason}"
        for reason, count in answer["not_read"].items()
    ]
    failed: dict[str, list[str]] = {}
    for row in answer["ranking"]:
        reason = row.get("compiled", {}).get("reason")
        if reason:
            failed.setdefault(f"{row['compiled']['status']}: {reason}", []).append(str(row["rank"]))
    notes += [f"Number {', '.join(places)}: {reason}" for reason, places in failed.items()]
    if not answer["known_device"]:
        notes.append(
            f"Nothing is known of {answer['device']['name']!r}: the ranking rests on the kernel alone. "
            "`autotune-rlm devices` lists the names that are known."
        )
    return notes
