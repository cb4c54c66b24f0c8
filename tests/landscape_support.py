"""Landscapes for tests: one of one parameter, and when two are alike."""

import pytest

from autotune_rlm.landscapes import Landscape
from autotune_rlm.types import Candidate, Device, Measurement, Task


def landscape(values, *, minimize=True, **task):
    measured = tuple(
        Measurement(status="ok", value=v) if v is not None else Measurement(status="timeout")
        for v in values
    )
    return Landscape(
        task=Task(kernel="k", device=Device(name="d"), minimize=minimize, **task),
        candidates=tuple(Candidate({"BLOCK": 2**i}) for i in range(len(measured))),
        measurements=measured,
    )


def close(a: Landscape, b: Landscape) -> None:
    """Equal up to the last digits of times, which foreign formats keep in other units."""
    assert (a.id, a.task, a.candidates) == (b.id, b.task, b.candidates)
    for x, y in zip(a.measurements, b.measurements, strict=True):
        assert (x.status, x.value, x.low, x.high) == (y.status, y.value, y.low, y.high)
        assert (x.reason, x.samples, x.facts, x.state) == (y.reason, y.samples, y.facts, y.state)
        assert (x.compile_s or 0.0) == pytest.approx(y.compile_s or 0.0, rel=1e-9)
        assert x.cost_s == pytest.approx(y.cost_s, rel=1e-9)
