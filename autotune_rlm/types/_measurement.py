"""What trying a candidate gave."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from autotune_rlm._checks import check_number
from autotune_rlm._json import known_fields
from autotune_rlm.types._task import Candidate

__all__ = ["Measurement", "Observation", "Status"]


class Status(str, Enum):
    """How the measurement of one candidate ended."""

    OK = "ok"
    COMPILE_ERROR = "compile_error"
    OUT_OF_RESOURCES = "out_of_resources"
    RUNTIME_ERROR = "runtime_error"
    WRONG_RESULT = "wrong_result"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    SKIPPED = "skipped"

    @classmethod
    def _missing_(cls, value: object) -> Any:
        known = ", ".join(status.value for status in cls)
        raise ValueError(f"status must be one of {known}, got {value!r}")

    @property
    def is_failure(self) -> bool:
        """Whether the candidate was tried and did not work (``skipped`` was never tried)."""
        return self not in (Status.OK, Status.SKIPPED)

    @property
    def is_of_the_binary(self) -> bool:
        """Whether every launch of the compiled candidate fails, whatever its arguments."""
        return self in (Status.COMPILE_ERROR, Status.OUT_OF_RESOURCES)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The result of trying one candidate.

    Attributes:
        status: How it ended.
        value: The task's metric (median over the samples); None unless ``status`` is ``ok``.
        low: Lower end of the interval of the median (95 % unless said otherwise in ``state``).
        high: Upper end.
        samples: The single readings in the metric's unit.
        reason: One line on why it is not ``ok``.
        compile_s: Seconds that compilation took; None where unknown or cached.
        cost_s: Wall-clock seconds that the measurement cost in all, ``compile_s`` included.
        facts: What the compiler reported: ``shared_bytes``, ``registers``, ``spills``,
            ``binary_bytes``, ``binary_hash``.
        state: Where it was taken: device, clocks, temperature, driver, package versions.
    """

    status: Status
    value: float | None = None
    low: float | None = None
    high: float | None = None
    samples: tuple[float, ...] = ()
    reason: str = ""
    compile_s: float | None = None
    cost_s: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.status, Status):
            object.__setattr__(self, "status", Status(self.status))
        if not isinstance(self.value, (float, type(None))):
            check_number("value", self.value, none=True)
        object.__setattr__(self, "samples", tuple(float(s) for s in self.samples))
        if self.status is Status.OK and (self.value is None or not math.isfinite(self.value)):
            raise ValueError(
                f"value must be a finite number where status is 'ok', got {self.value!r}; "
                "use status 'runtime_error' with a reason for a run that gave none"
            )
        if self.status is not Status.OK and self.value is not None:
            raise ValueError(f"value must be None where status is {self.status.value!r}")

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.status is Status.OK

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        data = dataclasses.asdict(self)
        data["status"] = self.status.value
        data["samples"] = list(self.samples)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """The inverse of ``to_json``."""
        known = known_fields(cls, data)
        known["samples"] = tuple(known.get("samples") or ())
        return cls(**known)


@dataclass(frozen=True)
class Observation:
    """A candidate with its measurement."""

    candidate: Candidate
    measurement: Measurement
