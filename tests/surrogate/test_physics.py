"""Predicted times that physics does not allow are raised, and the order stays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune_rlm.devices import lookup
from autotune_rlm.ir import LAUNCH_MS
from autotune_rlm.surrogate.physics import physical
from autotune_rlm.types import Candidate, Prediction, Task

TASK = Task(kernel="k", device=lookup("H100"))
TIMES = st.lists(st.floats(1e-12, 1e3), min_size=1, max_size=20)


def _prediction(times):
    median = np.array(times)
    return Prediction(
        metric="time_ms", median=median, low=median / 2, high=median * 3,
        spread=np.ones(len(median)), p_valid=np.ones(len(median)),
    )  # fmt: skip


@given(TIMES, st.floats(0, 10))
def test_no_time_is_below_its_floor_and_the_order_stays(times, floor):
    candidates = [Candidate({"x": i}, facts={"floor_ms": floor}) for i in range(len(times))]
    found = physical(_prediction(times), TASK, candidates)
    least = max(floor, LAUNCH_MS)
    assert (found.low >= least * (1 - 1e-9)).all()
    assert (found.low <= found.median).all()
    assert (found.median <= found.high).all()
    before = np.array(times)
    assert (np.diff(found.median[np.argsort(before, kind="stable")]) >= 0).all()


def test_possible_times_are_left_alone():
    told = _prediction([1.0, 2.0])
    found = physical(
        told, TASK, [Candidate({"x": 1}, facts={"floor_ms": 0.4}), Candidate({"x": 2})]
    )
    assert found is told


@pytest.mark.parametrize("metric", ["registers", "score"])
def test_only_times_are_looked_at(metric):
    told = _prediction([1e-9])
    task = Task(kernel="k", device=lookup("H100"), metric=metric)
    assert physical(told, task, [Candidate({})]) is told
