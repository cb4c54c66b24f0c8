"""How far a recording is."""

from __future__ import annotations

from dataclasses import dataclass, field

from autotune_rlm.types import Measurement


@dataclass
class Progress:
    """How far a recording is."""

    points: int = 0  # measurements written by this run
    ok: int = 0  # those that worked
    binaries: int = 0  # compilations that ended
    kernels: int = 0  # those that have a measurement
    elapsed_s: float = 0.0
    busy_s: float = 0.0  # in which kernels were launched, checked and timed
    bytes: int = 0  # of the file
    status: dict[str, int] = field(default_factory=dict)  # measurements by status
    left_out: dict[str, int] = field(default_factory=dict)  # what was not recorded, by reason

    @property
    def rate(self) -> float:
        """Points a second."""
        return self.points / self.elapsed_s if self.elapsed_s else 0.0

    def count(self, measurement: Measurement) -> None:
        self.points += 1
        self.ok += measurement.ok
        name = measurement.status.value
        self.status[name] = self.status.get(name, 0) + 1

    def leave_out(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
