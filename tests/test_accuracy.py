import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune_rlm.store.accuracy import (
    PredictedVsMeasured,
    TuningEvent,
    coverage,
    first_choice_regret,
    kendall,
    regret,
    spearman,
)


def test_rank_correlations_of_known_orders():
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1.0)
    assert kendall([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    assert kendall([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert spearman([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)


@pytest.mark.parametrize("statistic", [spearman, kendall])
def test_no_correlation_of_too_few_or_constant_values(statistic):
    assert statistic([], []) is None
    assert statistic([1, 2], [1, 2]) is None
    assert statistic([1, 1, 1], [1, 2, 3]) is None
    assert statistic([1, 2, 3], np.ones(3)) is None
    with pytest.raises(ValueError, match="2 and 3"):
        statistic([1, 2], [1, 2, 3])


def test_coverage_counts_ends_as_inside():
    assert coverage([1, 1, 1, 1], [2, 2, 2, 2], [1, 2, 1.5, 3]) == 0.75
    assert coverage([], [], []) is None


def test_regret_both_ways():
    assert regret(1.1, 1.0) == pytest.approx(0.1)
    assert regret(90.0, 100.0, minimize=False) == pytest.approx(0.1)
    assert regret(-1.0, -2.0) == pytest.approx(0.5)
    assert regret(0.0, 0.0) == 0.0
    assert regret(1.0, 0.0) == float("inf")


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=20), st.booleans())
def test_a_right_first_choice_has_no_regret(values, minimize):
    assert first_choice_regret(values, values, minimize=minimize) == 0.0
    worst = max(values) if minimize else min(values)
    wrong = [-v for v in values]
    best = min(values) if minimize else max(values)
    assert first_choice_regret(wrong, values, minimize=minimize) == regret(
        worst, best, minimize=minimize
    )


def test_no_first_choice_of_nothing():
    assert first_choice_regret([], []) is None


def test_an_event_survives_json():
    point = PredictedVsMeasured(
        config={"BLOCK": 64}, median=1.0, low=0.5, high=2.0, p_valid=0.9, status="ok", value=1.1
    )
    event = TuningEvent(
        task_key="0123",
        kernel="k",
        device="d",
        n_failed={"timeout": 2},
        spearman=None,
        points=(point,),
    )
    text = json.dumps(event.to_json(), allow_nan=False)
    assert TuningEvent.from_json(json.loads(text)) == event
    assert TuningEvent.from_json({**json.loads(text), "from_the_future": 1}) == event
