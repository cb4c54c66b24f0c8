"""Statistics against distributions whose medians are known."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune_rlm.measure.statistics import StoppingRule, is_hopeless, median_interval, race

DISTRIBUTIONS = {  # name: (draw, true median)
    "normal": (lambda rng, n: rng.normal(10, 1, n), 10.0),
    "exponential": (lambda rng, n: rng.exponential(1, n), np.log(2)),
    "lognormal": (lambda rng, n: rng.lognormal(0, 1, n), 1.0),
    "cauchy": (lambda rng, n: 5 + rng.standard_cauchy(n), 5.0),
    "bimodal": (lambda rng, n: np.where(rng.random(n) < 0.7, 1, 2) + rng.random(n), 1 + 5 / 7),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("n", [6, 15, 40])
def test_interval_covers_the_true_median(name, n):
    draw, median = DISTRIBUTIONS[name]
    rng = np.random.default_rng(7)
    trials = 1500
    covered = 0
    for _ in range(trials):
        interval = median_interval(draw(rng, n))
        covered += interval.low <= median <= interval.high
    slack = 3 * np.sqrt(0.05 * 0.95 / trials)
    assert covered / trials >= 0.95 - slack
    assert abs(covered / trials - interval.confidence) <= 0.04


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0.5, 0.999))
def test_interval_is_made_of_samples_around_the_median(samples, confidence):
    interval = median_interval(samples, confidence=confidence)
    assert interval.low <= interval.median <= interval.high
    assert interval.low in samples
    assert interval.high in samples
    assert len(samples) < 12 or interval.confidence >= confidence


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [float("inf")]])
def test_bad_samples_are_refused(bad):
    with pytest.raises(ValueError, match="samples"):
        median_interval(bad)


def test_stopping_rule_stops_at_the_wanted_width_and_covers():
    rng = np.random.default_rng(3)
    rule = StoppingRule(relative=0.02, min_samples=8, max_samples=2000)
    covered, trials = 0, 300
    for _ in range(trials):
        samples = list(rng.normal(10, 0.5, 8))
        while not rule.enough(samples):
            samples += list(rng.normal(10, 0.5, len(samples) // 2))
        interval = median_interval(samples)
        assert interval.half_width <= 0.02 or len(samples) >= 2000
        covered += interval.low <= 10 <= interval.high
    assert covered / trials > 0.88  # looking often costs a little of the 95 %


def test_stopping_rule_needs_no_more_than_the_least_of_a_constant():
    assert StoppingRule().enough([1.0] * 7)
    assert not StoppingRule().enough([1.0] * 6)


@pytest.mark.parametrize("name", ["lognormal", "exponential", "cauchy", "bimodal"])
def test_dropping_spares_the_best_at_the_stated_confidence(name):
    """The worst case: a candidate exactly at the limit, looked at many times."""
    draw, median = DISTRIBUTIONS[name]
    rng = np.random.default_rng(5)
    best = median / 3  # the candidate is exactly three times as slow
    dropped, trials = 0, 1500
    for _ in range(trials):
        samples = draw(rng, 200)
        sizes = (8, 13, 20, 31, 47, 71, 107, 160, 200)
        dropped += any(
            is_hopeless(samples[:n], best, confidence=0.95, look=look)
            for look, n in enumerate(sizes, start=1)
        )
    assert dropped / trials <= 0.05


def test_dropping_is_quick_with_the_hopeless():
    rng = np.random.default_rng(0)
    assert is_hopeless(rng.normal(10, 1, 8), best=1.0)
    assert not is_hopeless(rng.normal(2, 0.1, 100), best=1.0)
    assert not is_hopeless([], best=1.0)


def test_race_finds_the_best_with_drift_and_tails():
    rng = np.random.default_rng(11)
    found = 0
    for trial in range(60):
        true = 1 + 0.04 * np.arange(8)
        rng.shuffle(true)
        clock = iter(range(10_000))

        def run(i, true=true, clock=clock, trial=trial):
            drift = 1 + 0.3 * np.sin(next(clock) / 40 + trial)
            return true[i] * drift * rng.lognormal(0, 0.02)

        found += race(8, run).order[0] == int(np.argmin(true))
    assert found >= 57


def test_race_keeps_the_best_at_the_stated_confidence():
    """All equal but one that is barely better: it must hardly ever be eliminated."""
    rng = np.random.default_rng(2)
    lost = 0
    for _ in range(200):
        result = race(
            5,
            lambda i: rng.lognormal(0.0 if i else -0.002, 0.1),
            confidence=0.9,
            tolerance=0.0,
            max_rounds=48,
        )
        lost += 0 not in result.order[: result.undecided]
    assert lost / 200 <= 0.1


def test_race_stops_when_the_rest_do_not_differ():
    rng = np.random.default_rng(0)
    result = race(3, lambda i: rng.normal(1, 1e-4), max_rounds=500)
    assert result.undecided == 3
    assert result.runs < 60


def test_race_obeys_its_limits():
    assert race(4, lambda i: 1.0 + i % 2, max_runs=10, tolerance=0.0).runs <= 10
    assert race(1, lambda i: 1 / 0).order == [0]
    with pytest.raises(ValueError, match="n must be at least 1"):
        race(0, lambda i: 1.0)


def test_racing_saves_half_the_runs_on_a_recorded_landscape():
    path = Path(__file__).resolve().parents[3] / "shared/data/gpu/hub_convolution.csv.gz"
    if not path.exists():
        pytest.skip("the recorded landscapes are not here")
    from autotune_rlm.landscapes import read_landscapes

    rng = np.random.default_rng(1)
    for landscape in itertools.islice(read_landscapes(path), 3):
        times = landscape.values[landscape.ok]
        pick = rng.permutation(len(times))[:64]
        times = times[pick]
        result = race(
            len(times), lambda i, times=times: times[i] * rng.lognormal(0, 0.03), max_rounds=32
        )
        assert result.runs <= 0.5 * 32 * len(times)
        assert times[result.order[0]] <= 1.01 * times.min()
