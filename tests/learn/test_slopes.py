"""Derivatives of predictions and of what a point is worth; the hypervolume that a point may add."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from autotune_rlm.learn.acquisition import (
    feasible_slopes,
    free_boxes,
    hypervolume_slopes,
    improvement_slopes,
    log_expected_improvement,
    non_dominated,
)
from autotune_rlm.learn.gaussian_process import Points, fit
from autotune_rlm.learn.prior_mean import PriorMean, fit_correction

_STEP = 1e-5


def _points(x):
    d = x.shape[1]
    return Points(x, 2.0 * x - 1.0, np.arange(d), np.arange(d))


def _moved(x, j):
    ahead, behind = x.copy(), x.copy()
    ahead[:, j] += _STEP
    behind[:, j] -= _STEP
    return ahead, behind


def test_a_process_knows_how_its_prediction_changes():
    rng = np.random.default_rng(0)
    x, at = rng.random((40, 3)), rng.random((5, 3))
    process = fit(_points(x), np.sin(5 * x).sum(1))
    found = process.slopes(_points(at))
    mean, deviation = process.predict(_points(at))
    np.testing.assert_allclose(found.mean, mean, atol=1e-10)
    np.testing.assert_allclose(found.deviation, deviation, atol=1e-10)
    for j in range(3):
        ahead, behind = (process.predict(_points(p)) for p in _moved(at, j))
        in_mean = found.mean_spread[:, j] + 2.0 * found.mean_linear[:, j]
        in_deviation = found.deviation_spread[:, j] + 2.0 * found.deviation_linear[:, j]
        np.testing.assert_allclose(in_mean, (ahead[0] - behind[0]) / 2 / _STEP, atol=1e-6)
        np.testing.assert_allclose(in_deviation, (ahead[1] - behind[1]) / 2 / _STEP, atol=1e-6)


def test_a_corrected_prior_also_knows_it_of_the_predictions():
    rng = np.random.default_rng(1)
    x, at = rng.random((30, 2)), rng.random((4, 2))
    predictions, there = rng.standard_normal((30, 2)), rng.standard_normal((4, 2))
    corrected = fit_correction(_points(x), predictions[:, 0] + x[:, 0], PriorMean(predictions))
    found = corrected.slopes(_points(at), PriorMean(there))
    np.testing.assert_allclose(
        found.mean, corrected.predict(_points(at), PriorMean(there))[0], atol=1e-10
    )
    for j in range(2):
        ahead, behind = (corrected.predict(_points(at), PriorMean(w))[0] for w in _moved(there, j))
        slope = (ahead - behind) / 2 / _STEP
        np.testing.assert_allclose(found.mean_linear[:, 2 + j], slope, atol=1e-6)


@pytest.mark.parametrize("mean", [-400.0, -30.0, -5.0, -1.0, 0.0, 2.0, 40.0])
def test_improvement_and_feasibility_have_slopes_far_from_the_best(mean):
    m, s = np.array([mean]), np.array([0.7])
    for found, value in (
        (improvement_slopes(m, s, 0.3), lambda m, s: log_expected_improvement(m, s, 0.3)),
        (feasible_slopes(m, s, 0.3), lambda m, s: norm.logcdf(0.3, m, s)),
    ):
        assert found.value == pytest.approx(value(m, s))
        in_mean = (value(m + 1e-6, s) - value(m - 1e-6, s)) / 2e-6
        in_deviation = (value(m, s + 1e-6) - value(m, s - 1e-6)) / 2e-6
        np.testing.assert_allclose(found.in_mean, in_mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.in_deviation, in_deviation, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_expected_hypervolume_is_that_of_samples(k):
    rng = np.random.default_rng(k)
    front = rng.random((30, k))
    front = front[non_dominated(front)]
    boxes = free_boxes(front, np.zeros(k))
    means, deviations = 0.6 + 0.6 * rng.random((4, k)), np.full((4, k), 0.2)
    found = hypervolume_slopes(means, deviations, boxes)
    drawn = means[:, None] + deviations[:, None] * rng.standard_normal((4, 100_000, k))
    added = sum(
        np.maximum(np.minimum(drawn, up) - low, 0.0).prod(-1)
        for low, up in zip(boxes.lower, boxes.upper, strict=True)
    )
    np.testing.assert_allclose(np.exp(found.value), added.mean(1), rtol=0.06)
    for j in range(k):
        ahead, behind = (hypervolume_slopes(p, deviations, boxes).value for p in _moved(means, j))
        np.testing.assert_allclose(found.in_mean[:, j], (ahead - behind) / 2 / _STEP, atol=1e-4)
        ahead, behind = (hypervolume_slopes(means, p, boxes).value for p in _moved(deviations, j))
        np.testing.assert_allclose(
            found.in_deviation[:, j], (ahead - behind) / 2 / _STEP, atol=1e-4
        )


@pytest.mark.parametrize("k", [2, 3])
def test_boxes_fill_what_a_front_leaves_free(k):
    rng = np.random.default_rng(k)
    front = rng.random((12, k))
    front = front[non_dominated(front)]
    lower, upper = free_boxes(front, np.zeros(k))
    points = rng.random((2000, k))
    inside = ((points[:, None] > lower) & (points[:, None] <= upper)).all(-1).sum(1)
    dominated = (points[:, None] <= front).all(-1).any(1)
    assert (inside == ~dominated).all()


def test_far_below_the_front_the_logarithm_still_rises():
    boxes = free_boxes(np.array([[0.2, 0.8], [0.7, 0.3]]), np.zeros(2))
    means = np.linspace(-60.0, -1.0, 30)[:, None] * np.ones(2)
    value = hypervolume_slopes(means, np.full((30, 2), 0.1), boxes).value
    assert np.isfinite(value).all()
    assert (np.diff(value) > 0).all()


def test_a_process_knows_what_it_would_say_of_an_observation_without_it():
    rng = np.random.default_rng(3)
    x = rng.random((12, 2))
    y = np.sin(5 * x).sum(1) + 0.3 * rng.standard_normal(12)
    process = fit(_points(x), y)
    for i, found in enumerate(process.left_out()):
        rest = np.delete(np.arange(12), i)
        alone = fit(_points(x[rest]), y[rest], start=process.theta, iterations=0)
        mean, deviation = alone.predict(_points(x[[i]]))
        error = (y[i] - mean[0]) / np.sqrt(deviation[0] ** 2 + process.noise)
        assert found == pytest.approx(error, rel=1e-4)
