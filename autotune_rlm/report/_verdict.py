"""What the accuracy log means for its reader: how far to trust the model on each kernel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune_rlm import formats
from autotune_rlm.store.accuracy import TuningEvent

# A first choice within 5 % of the best is what the benchmarks count as reached; one that takes half
# as long again as the best is no help.
_GOOD = 0.05
_POOR = 0.5


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How far to trust the model on one kernel and device.

    Attributes:
        kernel: Kernel's name.
        device: Device's name.
        runs: Tuning runs that it rests on.
        trust: ``"trust"``, ``"check"``, ``"not yet"``, or ``"unknown"`` where nothing was compared.
        text: The verdict in a sentence.
    """

    kernel: str
    device: str
    runs: int
    trust: str
    text: str


def verdicts(events: Sequence[TuningEvent]) -> tuple[Verdict, ...]:
    """One verdict for each kernel and device, most runs first."""
    groups: dict[tuple[str, str], list[TuningEvent]] = defaultdict(list)
    for event in events:
        groups[event.kernel, event.device].append(event)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(_verdict(kernel, device, runs) for (kernel, device), runs in ordered)


def _verdict(kernel: str, device: str, runs: Sequence[TuningEvent]) -> Verdict:
    lost = [e.first_choice_regret for e in runs if e.first_choice_regret is not None]
    regret = float(np.median(lost)) if lost else None
    familiar = any(event.familiar is not False for event in runs)
    if regret is None:
        trust, text = "unknown", "nothing was measured beside the model's first choice"
    elif regret <= _GOOD:
        trust = "trust"
        text = f"the model's first choice was within {formats.percent(regret)} of the best measured"
    else:
        trust = "check" if regret <= _POOR else "not yet"
        text = (
            f"the model's first choice took {formats.percent(regret, 0)} longer than the best "
            "measured; let it measure"
        )
    if not familiar:
        text += "; the model was never told of such kernels on such a device"
        trust = "not yet" if trust == "trust" else trust
    return Verdict(kernel=kernel, device=device, runs=len(runs), trust=trust, text=text)
