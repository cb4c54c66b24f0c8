import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from autotune_rlm.learn.acquisition import (
    feasible_slopes,
    log_expected_improvement,
    log_hypervolume_improvement,
    non_dominated,
)


def log_ei(u):
    return log_expected_improvement(np.atleast_1d(float(u)), np.ones(1), 0.0)[0]


@given(st.lists(st.floats(-1e12, 1e3), min_size=2, max_size=30))
def test_rises_with_the_mean_over_the_whole_range(us):
    us = np.sort(us)
    values = log_expected_improvement(us, np.ones(len(us)), 0.0)
    assert np.isfinite(values).all()
    assert (np.diff(values) >= -1e-9 * np.abs(values[1:])).all()


@given(st.floats(-30, 5), st.floats(1.001, 3))
def test_rises_with_the_deviation(mean, factor):
    narrow, wide = np.array([0.5]), np.array([0.5 * factor])
    mean = np.array([mean])
    less = log_expected_improvement(mean, narrow, 0.0)
    assert log_expected_improvement(mean, wide, 0.0) >= less - 1e-9


@pytest.mark.parametrize("u", [-1.0, -5.0, -1e6])
def test_the_pieces_meet(u):
    step = 1e-9 * abs(u)
    slope = abs(u) + 1.0  # of log EI, about
    assert log_ei(u + step) - log_ei(u - step) == pytest.approx(2 * step * slope, rel=1.0, abs=1e-3)


@pytest.mark.parametrize("u", [3.0, 0.0, -0.9, -2.0, -5.0, -8.0])
def test_equals_the_integral(u):
    exact = quad(lambda x: x * norm.pdf(x - u), 0, max(u, 0) + 12, epsabs=0, epsrel=1e-10)[0]
    assert log_ei(u) == pytest.approx(math.log(exact), abs=1e-6)


# log phi(u) - 2 log|u| + log(1 - 3/u^2 + 15/u^4 - 105/u^6 ...), the expansion of Mills' ratio
@pytest.mark.parametrize("u", [-50.0, -1e3, -1e5])
def test_the_tail_is_the_one_of_the_asymptotic_expansion(u):
    series = 1 - 3 / u**2 + 15 / u**4 - 105 / u**6
    expected = -0.5 * u * u - 0.5 * math.log(2 * math.pi) - 2 * math.log(-u) + math.log(series)
    assert log_ei(u) == pytest.approx(expected, rel=1e-9, abs=1e-5)


def test_feasibility_falls_with_the_violated_constraint():
    told = feasible_slopes(np.array([-1.0, 0.0, 40.0]), np.ones(3), 0.0).value
    assert (np.diff(told) < 0).all()
    assert told[1] == pytest.approx(math.log(0.5))
    assert np.isfinite(told).all()


def test_the_gain_in_hypervolume_prefers_what_dominates():
    observed = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.2]])
    assert non_dominated(observed).tolist() == [True, True, True]
    assert non_dominated(np.array([[0.0, 0.0], [1.0, 1.0]])).tolist() == [False, True]
    means = np.array([[1.0, 1.0], [0.2, 0.2], [-3.0, -3.0]])
    gain = log_hypervolume_improvement(
        means, np.full((3, 2), 0.1), observed, np.random.RandomState(0)
    )
    assert (np.diff(gain) < 0).all()
