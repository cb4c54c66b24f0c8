"""A landscape of one parameter, for tests."""

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
