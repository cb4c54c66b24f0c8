"""The accuracy log as scalars for TensorBoard."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from autotune_rlm._checks import of_extra
from autotune_rlm.report._summary import Report, when
from autotune_rlm.store.accuracy import TuningEvent

_SUFFIX = ".autotune_rlm"


def write_tensorboard(report: Report, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the tuning runs as scalars: one TensorBoard run per kernel and device.

    A step is a tuning run, at the time at which it started; fine-tuning rounds are a run of their
    own. Writing again replaces what was written before, and no other file.

    Args:
        report: What to write.
        folder: The log folder that TensorBoard is pointed at (``--logdir``).

    Returns:
        The folders written, one per TensorBoard run.

    Raises:
        ImportError: tensorboard is missing.
    """
    with of_extra("tensorboard", "writing scalars for TensorBoard"):
        from torch.utils.tensorboard import SummaryWriter
    steps: dict[Path, list[tuple[datetime | None, dict[str, Any]]]] = defaultdict(list)
    for event in report.events:
        run = Path(folder) / _name(event.kernel) / _name(event.device)
        steps[run].append((when(event.when), _scalars(event)))
    for record in report.rounds:
        at = when(str(record.get("when")))
        steps[Path(folder) / "fine-tuning"].append((at, _of_a_round(record)))
    for run, found in steps.items():
        for old in run.glob(f"events.out.tfevents.*{_SUFFIX}"):
            old.unlink()
        with SummaryWriter(str(run), filename_suffix=_SUFFIX) as writer:
            for step, (at, scalars) in enumerate(found, start=1):
                seconds = at.timestamp() if at else None
                for name, value in scalars.items():
                    if isinstance(value, (int, float)) and math.isfinite(value):
                        writer.add_scalar(name, float(value), step, walltime=seconds)
    return list(steps)


def _scalars(event: TuningEvent) -> dict[str, Any]:
    return {
        "accuracy/spearman": event.spearman,
        "accuracy/kendall": event.kendall,
        "accuracy/regret of the first choice": event.first_choice_regret,
        "accuracy/inside the 90 % interval": event.coverage,
        "seconds/model": event.model_s,
        "seconds/compile": event.compile_s,
        "seconds/measure": event.measure_s,
        "seconds/saved": event.saved_s,
        "configurations/candidates": event.n_candidates,
        "configurations/measured": event.n_measured,
        "configurations/failed": sum(event.n_failed.values()),
        f"best/{event.metric}": event.best_value,
    }


def _of_a_round(record: Mapping[str, Any]) -> dict[str, Any]:
    names = ("before", "after", "accepted", "measurements", "seconds")
    return {f"fine-tuning/{name}": record.get(name) for name in names}


def _name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "unnamed"
