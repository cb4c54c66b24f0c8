from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_rlm.surrogate.online import Prior, correct


def make_prior(n: int = 200, *, seed: int = 0) -> tuple[Prior, np.ndarray]:
    """A prior and a truth that differs from it by an offset and by a smooth function."""
    rng = np.random.default_rng(seed)
    parameters = rng.standard_normal((n, 3))
    mean = 0.3 * parameters[:, 0] ** 2
    truth = mean + 1.5 + 0.4 * np.sin(2 * parameters[:, 1])
    prior = Prior(
        mean=mean,
        spread=np.full(n, 0.4),
        p_valid=np.full(n, 0.9),
        hidden=np.tanh(parameters @ rng.standard_normal((3, 16))),
        parameters=parameters,
    )
    return prior, truth


def test_measurements_correct_the_others():
    prior, truth = make_prior()
    index = np.arange(40)
    posterior = correct(prior, index, truth[index])
    rest = np.arange(40, 200)
    before = np.abs(prior.mean[rest] + 1.5 - truth[rest]).mean()
    after = np.abs(posterior.mean[rest] - truth[rest]).mean()
    assert after < 0.5 * before


def test_an_offset_is_learned_from_one_measurement():
    prior, truth = make_prior()
    posterior = correct(prior, np.array([0]), truth[:1])
    assert np.abs(posterior.mean - truth).mean() < 0.6
    assert posterior.spread.mean() < 1.0


def test_measured_candidates_are_known():
    prior, truth = make_prior()
    index = np.arange(0, 60, 3)
    posterior = correct(prior, index, truth[index])
    rest = np.setdiff1d(np.arange(200), index)
    assert np.abs(posterior.mean[index] - truth[index]).mean() < 0.15
    assert posterior.spread[index].mean() < posterior.spread[rest].mean()


def test_intervals_cover_what_was_not_measured():
    inside = []
    for seed in range(10):
        prior, truth = make_prior(seed=seed)
        posterior = correct(prior, np.arange(30), truth[:30])
        z = np.abs(posterior.mean[30:] - truth[30:]) / posterior.spread[30:]
        inside.append((z < 1.645).mean())
    assert 0.8 < np.mean(inside) <= 1.0


def test_an_order_that_is_not_trusted_is_not_followed():
    prior, truth = make_prior()
    index = np.arange(3)
    slopes = []
    for trust in (0.0, 1.0):
        believed = correct(dataclasses.replace(prior, trust=trust), index, truth[index]).mean
        slopes.append(np.polyfit(prior.mean[3:], believed[3:], 1)[0])
    assert slopes[0] < 0.35
    assert slopes[1] > 0.7


def test_where_a_guess_failed_a_forest_takes_turns():
    prior, truth = make_prior()
    doubted = dataclasses.replace(prior, trust=0.3)

    def answers(prior, n, failed):
        value = np.r_[truth[:n], np.full(failed, np.nan)]
        return len(np.unique(correct(prior, np.arange(n + failed), value).mean.round(9)))

    assert all(answers(doubted, n, 1) == 200 for n in (3, 8, 20))  # the process
    assert all(answers(doubted, n, 1) < 200 for n in (9, 21))
    assert answers(doubted, 9, 0) == answers(prior, 9, 1) == 200
    assert answers(doubted, 18, 0) == answers(prior, 19, 0) == 200
    assert answers(doubted, 19, 0) < 200  # from the sixteenth on without failures too


def test_a_guesss_hidden_states_soon_count_no_more():
    prior, truth = make_prior()
    noise = np.random.default_rng(1).standard_normal((200, 16))

    def changes(trust, n, failed=False):
        value = np.r_[truth[:n], [np.nan] * failed]
        several = (dataclasses.replace(prior, trust=trust, hidden=h) for h in (prior.hidden, noise))
        one, other = (correct(p, np.arange(len(value)), value).mean for p in several)
        return bool(np.abs(one - other).max() > 1e-9)

    assert changes(0.3, 6)
    assert not changes(0.3, 8)
    assert changes(0.3, 8, failed=True)
    assert changes(0.9, 8)


def test_failures_teach_their_neighbours():
    prior, truth = make_prior()
    bad = prior.parameters[:, 0] > 0.5
    index = np.arange(60)
    posterior = correct(prior, index, np.where(bad[:60], np.nan, truth[:60]))
    rest = np.arange(60, 200)
    worse, better = rest[bad[60:]], rest[~bad[60:]]
    assert posterior.p_valid[worse].mean() < 0.7 * posterior.p_valid[better].mean()


def test_only_failures_leave_the_values_alone():
    prior, _ = make_prior()
    posterior = correct(prior, np.array([0, 1]), np.array([np.nan, np.nan]))
    assert (posterior.mean == prior.mean).all()
    assert posterior.p_valid[0] < 0.01


@settings(max_examples=50)
@given(
    n=st.integers(1, 12),
    data=st.data(),
)
def test_any_measurements_give_finite_beliefs(n, data):
    numbers = st.floats(-50, 50)
    columns = [data.draw(st.lists(numbers, min_size=n, max_size=n)) for _ in range(3)]
    prior = Prior(
        mean=np.array(columns[0]),
        spread=np.abs(columns[1]),
        p_valid=np.clip(np.abs(columns[2]), 0, 1),
        hidden=np.zeros((n, 4)),
        parameters=np.array(columns).T,
    )
    k = data.draw(st.integers(1, n))
    values = data.draw(st.lists(numbers | st.just(float("nan")), min_size=k, max_size=k))
    posterior = correct(prior, np.arange(k), np.array(values))
    assert np.isfinite(posterior.mean).all()
    assert (posterior.spread > 0).all() or not np.isfinite(values).any()
    assert ((posterior.p_valid >= 0) & (posterior.p_valid <= 1)).all()


def test_the_same_measurements_give_the_same_beliefs():
    prior, truth = make_prior()
    one, two = (correct(prior, np.arange(9), truth[:9]) for _ in range(2))
    assert (one.mean == two.mean).all()
    assert (one.spread == two.spread).all()


def test_more_than_the_limit_is_cut_not_refused():
    prior, truth = make_prior(1200)
    posterior = correct(prior, np.arange(1200), truth)
    assert np.isfinite(posterior.mean).all()
    assert np.abs(posterior.mean - truth).mean() == pytest.approx(0, abs=0.2)


def test_on_an_unknown_kernel_what_failed_tells_of_all_that_share_a_value_with_it():
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 4), axis=-1).reshape(-1, 4)
    large = grid[:, 0] == 4
    rng = np.random.default_rng(0)
    index = np.concatenate([rng.permutation(np.flatnonzero(some))[:6] for some in (large, ~large)])
    value = np.where(large[index], np.nan, rng.standard_normal(12))
    told = {}
    for trust in (0.3, 0.9):
        prior = dataclasses.replace(
            make_prior(len(grid))[0], parameters=grid, p_valid=np.full(len(grid), 0.99), trust=trust
        )
        told[trust] = correct(prior, index, value).p_valid
    rest = np.setdiff1d(np.arange(len(grid)), index)
    apart = {t: p[rest][~large[rest]].mean() - p[rest][large[rest]].mean() for t, p in told.items()}
    assert apart[0.3] > 0.3
    assert apart[0.3] > 1.25 * apart[0.9]
    worked = correct(dataclasses.replace(prior, trust=0.3), index[6:], value[6:]).p_valid
    assert worked[rest].min() > 0.95
