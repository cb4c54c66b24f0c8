"""What a search gives: its progress, its result, and how many measurements its budget allows."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from autotune_rlm.store.accuracy import TuningEvent
from autotune_rlm.types import Observation, Task

__all__ = ["Progress", "TuningError", "TuningResult", "resolve_budget"]


class TuningError(RuntimeError):
    """No measured candidate worked."""


@dataclass(frozen=True, kw_only=True)
class TuningResult:
    """The result of a tuning run.

    Attributes:
        task: What was tuned.
        best: The best measured candidate; None where none worked.
        observations: All observations of the candidates: reused ones first, then in the order of
            measuring, failures and skipped ones included.
        event: The run's entry in the accuracy log.
    """

    task: Task
    best: Observation | None
    observations: tuple[Observation, ...]
    event: TuningEvent

    def raise_if_failed(self) -> None:
        """Raise one error that lists the failures by reason, if nothing worked.

        Raises:
            TuningError: ``best`` is None.
        """
        if self.best is not None:
            return
        reasons = Counter(
            (o.measurement.status.value, o.measurement.reason) for o in self.observations
        )
        lines = [
            f"  {count} x {status}" + (f": {reason}" if reason else "")
            for (status, reason), count in reasons.most_common()
        ]
        raise TuningError(
            f"none of the {len(self.observations)} candidates tried for {self.task.kernel!r} on "
            f"{self.task.device.name!r} worked; raise the budget or change the candidates"
            + "".join("\n" + line for line in lines)
        )


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a search.

    Attributes:
        task: What is tuned.
        measured: Number of candidates with a measurement, those of earlier runs included.
        planned: That number when the budget is spent.
        candidates: Number of all candidates.
        best: The best observation so far; None where none worked.
        default: The default's value; None where it is not known.
        seconds: Seconds since the start, simulated ones included.
        stop: Why the search ended; None while it goes on.
    """

    task: Task
    measured: int
    planned: int
    candidates: int
    best: Observation | None
    default: float | None
    seconds: float
    stop: str | None = None


def resolve_budget(budget: int | float | None, n: int) -> int:
    """The number of measurements that ``budget`` allows of ``n`` candidates.

    Args:
        budget: A number (int, at least 1), a fraction of the candidates (float in (0, 1]), or None
            for all of them.
        n: Number of candidates.

    Raises:
        ValueError: ``budget`` is neither.
    """
    if budget is None:
        return n
    if isinstance(budget, bool) or not isinstance(budget, (int, float)):
        raise ValueError(f"budget must be an int, a float in (0, 1] or None, got {budget!r}")
    if isinstance(budget, int):
        if budget < 1:
            raise ValueError(
                f"budget must be at least 1 measurement, got {budget}; to choose without measuring "
                "rank the candidates with the surrogate"
            )
        return min(budget, n)
    if not 0.0 < budget <= 1.0:
        raise ValueError(
            f"a float budget is a fraction of the candidates in (0, 1], got {budget!r}; "
            "pass an int for a number of measurements"
        )
    return max(1, math.ceil(budget * n))
