import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_rlm.learn.gaussian_process import Points
from autotune_rlm.learn.prior_mean import PriorMean, differences, extend, fit_correction
from autotune_rlm.learn.transform import PowerTransform, standardised


def points(x):
    x = np.asarray(x, dtype=float).reshape(len(x), -1)
    groups = np.arange(x.shape[1])
    return Points(x, np.zeros((len(x), 0)), groups, np.zeros(0, dtype=int))


def test_a_wrong_prior_is_believed_at_first_and_not_for_long():
    rng = np.random.default_rng(0)
    x = rng.random((80, 3))
    truth = standardised(np.sin(7 * x[:, 0]) + x[:, 1])
    wrong = PriorMean.of(rng.standard_normal(80), trust=0.8)

    def predict(rows):
        corrected = fit_correction(points(x[rows]), truth[rows], wrong.take(rows))
        return corrected.predict(points(x), wrong)[0]

    middle = np.argsort(np.abs(wrong.predictions[:, 0]))[:1]
    assert np.corrcoef(predict(middle), wrong.mean)[0, 1] > 0.9
    assert np.mean((predict(np.arange(60)) - truth) ** 2) < 0.1


def test_a_right_lead_beats_none_when_little_is_seen():
    rng = np.random.default_rng(1)
    x = rng.random((100, 4))
    truth = standardised(np.sin(9 * x[:, 0]) + x[:, 1] * x[:, 2])
    prior, rows = PriorMean.of(truth + 0.1 * rng.standard_normal(100)), np.arange(4)
    corrected = fit_correction(points(x[rows]), truth[rows], prior.take(rows)).predict(
        points(x), prior
    )[0]
    alone = fit_correction(points(x[rows]), truth[rows]).predict(points(x))[0]
    assert np.mean((corrected - truth) ** 2) < 0.5 * np.mean((alone - truth) ** 2)


def test_inertia_halves_the_first_corrections():
    x, truth = np.array([0.0, 1.0]), np.array([2.0, -2.0])
    prior = PriorMean(np.zeros((2, 1)), trust=1.0, inertia=2.0)
    plain = fit_correction(points(x), truth, PriorMean(np.zeros((2, 1)), trust=1.0)).predict(
        points(x), prior
    )
    slow = fit_correction(points(x), truth, prior).predict(points(x), prior)
    np.testing.assert_allclose(slow[0], plain[0] / 2)


def test_predictions_become_one_group_of_inputs():
    more = extend(points(np.zeros((3, 2))), np.ones((3, 2)), distance=0.5)
    assert more.linear_groups.tolist() == [0, 0]
    assert more.spread_groups.tolist() == [0, 1, 2, 2]
    assert differences(np.ones((3, 1))).shape == (3, 1)


@settings(max_examples=60)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_the_transform_keeps_the_order_and_comes_back(values):
    values = np.array(values)
    transform = PowerTransform(values)
    score = transform.normal
    assert np.isfinite(score).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(score[order]) >= -1e-9).all()
    if score.any():
        back = transform.back(score)
        np.testing.assert_allclose(back, values, atol=1e-4 * max(1.0, float(np.ptp(values))))


def test_hopeless_values_are_drawn_in():
    values = np.r_[np.linspace(0, 1, 20), -1e6]
    assert PowerTransform(values, reach=4.0).normal.min() > -6
    assert PowerTransform(np.full(5, 3.0)).normal.tolist() == [0.0] * 5
    assert standardised(np.full(4, 7.0)) == pytest.approx(np.zeros(4))
