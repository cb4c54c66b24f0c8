"""How far a recording is."""

from __future__ import annotations

from dataclasses import dataclass, field

from autotune_rlm.types import Measurement


@dataclass
class Progress:
    """How far a recording is.

    Attributes:
        points: Measurements written by this run.
        ok: Those that worked.
        binaries: Compilations that ended.
        kernels: Kernels that have a measurement.
        elapsed_s: Seconds since the start.
        busy_s: Seconds in which kernels were launched, checked and timed.
        bytes: Size of the file.
        status: Count of measurements by status.
        left_out: Count of what was not recorded, by reason.
    """

    points: int = 0
    ok: int = 0
    binaries: int = 0
    kernels: int = 0
    elapsed_s: float = 0.0
    busy_s: float = 0.0
    bytes: int = 0
    status: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Points a second."""
        return self.points / self.elapsed_s if self.elapsed_s else 0.0

    def count(self, measurement: Measurement) -> None:
        """Count a measurement that was written."""
        self.points += 1
        self.ok += measurement.ok
        name = measurement.status.value
        self.status[name] = self.status.get(name, 0) + 1

    def leave_out(self, reason: str) -> None:
        """Count what was not recorded."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
