"""``autotune-rlm rank`` for a whole file, module or package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from autotune_rlm.cli._app import new_console, new_table
from autotune_rlm.progress import ProgressLine

if TYPE_CHECKING:
    from autotune_rlm.integrations.triton.offline.recommend import Ranked
    from autotune_rlm.store.config_file import ConfigFile
    from autotune_rlm.types import Device


def rank_everything(
    where: str,
    devices: Sequence[Device],
    problems: Sequence[dict[str, Any]],
    *,
    surrogate: str | None,
    top: int,
) -> tuple[list[Ranked], dict[str, str]]:
    """What was ranked, and the modules that could not be imported with their reasons."""
    from autotune_rlm.integrations.triton.offline.discover import find_kernels
    from autotune_rlm.integrations.triton.offline.kernel import OfflineKernel
    from autotune_rlm.integrations.triton.offline.recommend import rank_all
    from autotune_rlm.surrogate import load

    found = find_kernels(where)
    if not found.kernels:
        why = f"; not imported: {dict(found.failed)}" if found.failed else ""
        raise ValueError(f"{where} defines no kernel under triton.autotune or rlm_autotune{why}")
    kernels = {name: OfflineKernel.of(kernel) for name, kernel in found.kernels.items()}
    known = {n for kernel in kernels.values() for n in kernel.argument_names} | {"dtype"}
    unknown = sorted({name for problem in problems for name in problem} - known)
    if unknown:
        raise ValueError(f"--problem names {', '.join(unknown)}, which no kernel in {where} has")
    total = len(kernels) * max(1, len(problems)) * len(devices)
    ranked = []
    with ProgressLine(total=total) as line:
        for one in rank_all(found.kernels, devices, problems, surrogate=load(surrogate), top=top):
            ranked.append(one)
            line(f"{len(ranked)} of {total} ranked", len(ranked))
    return ranked, found.failed


def show_everything(
    ranked: Sequence[Ranked], failed: dict[str, str], file: ConfigFile, out: Path | None
) -> None:
    """The table of kernels, their key arguments and the first recommended configuration."""
    console = new_console(min_width=160)
    table = new_table("kernel", "key", "configurations", "device", "recommended", right=("ms",))
    for row in ranked:
        key = ", ".join(f"{n}={row.problem.get(n, '')}" for n in row.kernel.key) or "none"
        counted = str(len(row.kernel.candidates))
        if row.recommendation is None:
            table.add_row(row.where, key, counted, row.device.name, Text(row.reason, "dim"), "")
            continue
        best = row.recommendation.configs[0]
        config = ", ".join(f"{n}={v}" for n, v in best.config.items())
        table.add_row(row.where, key, counted, row.device.name, config, f"{best.time_ms:.3g}")
    console.print(table)
    counts = Counter(row.recommendation is not None for row in ranked)
    console.print(f"{counts[True]} ranked, {counts[False]} not")
    for module, reason in failed.items():
        console.print(f"not imported: {module}: {reason}")
    if out is not None:
        console.print(f"{len(file)} recommendations in {out}")
