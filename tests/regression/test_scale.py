from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune_rlm.regression._scale import TargetScale

FINITE = st.floats(allow_nan=False, min_value=-1e300, max_value=1e300)
SCALES = [
    TargetScale.fit(np.linspace(-1, 1, 50)),
    TargetScale.fit(np.exp(np.linspace(0, 18, 50))),
    TargetScale.fit(np.exp(np.linspace(-18, 0, 50))),
    TargetScale.fit(np.concatenate([-np.exp(np.linspace(0, 9, 50)), np.zeros(5)])),
    TargetScale.fit(np.zeros(3)),
]


@pytest.mark.parametrize("scale", SCALES)
@given(value=FINITE)
def test_any_finite_number_has_a_place_and_comes_back(scale, value):
    z = scale.to_scale(np.array([value]))
    assert np.isfinite(z).all()
    back = float(scale.from_scale(z)[0])
    unit = scale.unit if np.isfinite(scale.unit) else scale.spread + abs(scale.center)
    assert back == pytest.approx(max(value, scale.least), rel=1e-6, abs=1e-6 * unit)


@pytest.mark.parametrize("scale", SCALES)
@given(a=FINITE, b=FINITE)
def test_the_order_is_kept(scale, a, b):
    low, high = scale.to_scale(np.array([min(a, b), max(a, b)]))
    assert low <= high


@given(z=st.floats(allow_nan=False, min_value=-1e6, max_value=1e6))
@pytest.mark.parametrize("scale", SCALES)
def test_every_place_is_a_finite_number(scale, z):
    assert np.isfinite(scale.from_scale(np.array([z]))).all()


def test_wide_numbers_count_by_ratio_and_narrow_ones_by_difference():
    assert np.isinf(SCALES[0].unit)
    z = SCALES[1].to_scale(np.array([1e2, 1e4, 1e6]))
    assert z[1] - z[0] == pytest.approx(z[2] - z[1], rel=1e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_the_slope_is_that_of_the_scale(scale):
    x = np.array([-3.0, 0.0, 0.5, 20.0])
    step = 1e-5 * np.maximum(np.abs(x), min(scale.unit, 1.0))
    slope = (scale.to_scale(x + step) - scale.to_scale(x - step)) / (2 * step)
    assert np.exp(scale.log_slope(x)) == pytest.approx(slope, rel=1e-3)


def test_settings_round_trip():
    for scale in SCALES:
        assert TargetScale.from_json(scale.to_json()) == scale


@pytest.mark.parametrize("scale", SCALES[1:3])
@given(z=st.floats(allow_nan=False, min_value=-1e6, max_value=1e6))
def test_what_was_always_positive_stays_so(scale, z):
    assert (scale.from_scale(np.array([z])) > 0).all()
