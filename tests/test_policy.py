import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_rlm.learn.columns import encode_configs
from autotune_rlm.search.policy import Policy, Slot
from autotune_rlm.types import Candidate, Device, Measurement, Observation, Prediction, Task

TASK = Task(kernel="k", device=Device(name="NVIDIA A100"))


def grid(n=64):
    return [
        Candidate({"BLOCK": 2 ** (i % 8), "num_warps": 2 ** (i // 8 % 4), "z": i // 32})
        for i in range(n)
    ]


def predict(median, *, spread=0.1, p_valid=1.0, log_scale=True):
    median = np.asarray(median, dtype=np.float64)
    ones = np.ones(len(median))
    return Prediction(
        metric="time_ms",
        median=median,
        low=median * 0.8,
        high=median * 1.25,
        spread=spread * ones,
        p_valid=p_valid * ones,
        log_scale=log_scale,
    )


def ok(candidate, value):
    return Observation(candidate, Measurement(status="ok", value=value))


def failed(candidate):
    return Observation(candidate, Measurement(status="compile_error", reason="no"))


def choice(policy, task, candidates, prediction, observed, n, **more):
    return policy.choose(_slot(policy, task, candidates, prediction, observed, **more), n)


def should_stop(policy, task, candidates, prediction, observed, **more):
    return policy.should_stop(_slot(policy, task, candidates, prediction, observed, **more))


def _slot(policy, task, candidates, prediction, observed, **more):
    return Slot(
        policy=policy,
        task=task,
        candidates=candidates,
        prediction=prediction,
        observed=observed,
        **more,
    )


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**16),
    n=st.integers(0, 70),
    n_measured=st.integers(0, 64),
    minimize=st.booleans(),
    familiar=st.booleans(),
)
def test_chooses_distinct_unmeasured_candidates_whatever_is_predicted(
    seed, n, n_measured, minimize, familiar
):
    rng = np.random.default_rng(seed)
    candidates = grid()
    observed = [
        ok(candidates[i], 1.0 + rng.random()) if rng.random() < 0.5 else failed(candidates[i])
        for i in rng.permutation(64)[:n_measured]
    ]
    prediction = predict(
        10 ** rng.uniform(-6, 6, 64),
        spread=rng.choice([0, 1e-9, 0.3, 20], 64),
        p_valid=rng.random(64),
    )
    prediction = dataclasses.replace(prediction, familiar=familiar)
    task = dataclasses.replace(TASK, minimize=minimize)
    chosen = choice(
        Policy(draws=64), task, candidates, prediction, observed, n, zero_shot=prediction
    )
    measured = {o.candidate.key for o in observed}
    assert len(chosen) == len(set(chosen)) == min(n, 64 - n_measured)
    assert all(candidates[i].key not in measured for i in chosen)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_confident_model_is_followed_at_tiny_budgets(n):
    median = np.random.default_rng(0).permutation(np.geomspace(1, 100, 64))
    chosen = choice(Policy(), TASK, grid(), predict(median, spread=0.01), [], n)
    assert chosen == np.argsort(median)[:n].tolist()


def test_larger_is_better_where_the_task_says_so():
    task = dataclasses.replace(TASK, minimize=False)
    median = np.linspace(1, 2, 64)
    assert choice(Policy(), task, grid(), predict(median, spread=0.01), [], 1) == [63]
    assert choice(Policy(), task, grid(), predict(median, spread=0.01, log_scale=False), [], 1) == [
        63
    ]


def test_a_likely_failure_is_not_the_first_choice():
    median = np.full(64, 2.0)
    median[5], median[9] = 1.0, 1.05
    p_valid = np.ones(64)
    p_valid[5] = 0.2
    assert choice(Policy(), TASK, grid(), predict(median, p_valid=p_valid), [], 1) == [9]


def test_a_first_batch_does_not_consist_of_near_twins_that_may_all_fail():
    candidates = [
        Candidate({"BLOCK": b, "note": n}) for b in (16, 32, 64, 512, 1024) for n in range(16)
    ]
    block = np.array([c.config["BLOCK"] for c in candidates])
    median = np.where(block == 1024, 1.0, 1.2) + np.arange(80) * 1e-4
    p_valid = np.where(block == 1024, 0.5, 0.95)
    chosen = choice(
        Policy(), TASK, candidates, predict(median, spread=0.05, p_valid=p_valid), [], 4
    )
    assert 1024 in block[chosen]
    assert (block[chosen] != 1024).any()


def test_of_equal_promise_the_batch_takes_what_is_far_apart():
    candidates = [Candidate({"x": x}) for x in (0.0, 0.01, 0.02, 1.0)]
    prediction = predict([1.0, 1.001, 1.001, 1.002], spread=0.3)
    assert set(choice(Policy(), TASK, candidates, prediction, [], 2)) == {0, 3}


def test_must_haves_come_first_and_count():
    chosen = choice(
        Policy(), TASK, grid(), predict(np.linspace(1, 9, 64), spread=0.01), [], 3, must=[40, 7]
    )
    assert chosen == [40, 7, 0]
    assert choice(Policy(), TASK, grid(), predict(np.ones(64)), [], 1, must=[40, 7]) == [40]
    known = [ok(grid()[40], 1.0)]
    assert choice(Policy(), TASK, grid(), predict(np.ones(64)), known, 1, must=[40, 7]) == [7]


def test_uncertain_candidates_are_explored_before_certain_ones_that_cannot_win():
    candidates = grid(3)
    observed = [ok(candidates[0], 1.0)]
    prediction = predict([1.0, 1.05, 1.1], spread=np.array([0.01, 0.001, 0.5]))
    assert choice(Policy(), TASK, candidates, prediction, observed, 1) == [2]


def test_equal_seeds_choose_equally():
    rng = np.random.default_rng(1)
    prediction = predict(rng.uniform(1, 1.3, 64), spread=0.3, p_valid=0.7)
    pick = choice(Policy(seed=3), TASK, grid(), prediction, [], 12)
    assert pick == choice(Policy(seed=3), TASK, grid(), prediction, [], 12)


def test_candidates_that_have_no_parameters_can_be_chosen():
    candidates = [Candidate({}, text=f"net {i}") for i in range(9)]
    assert len(choice(Policy(), TASK, candidates, predict(np.arange(1, 10)), [], 4)) == 4


class TestStop:
    def test_stops_when_no_better_one_is_likely(self):
        candidates = grid()
        observed = [ok(candidates[0], 1.0)]
        sure = predict(np.r_[1.0, np.full(63, 2.0)], spread=0.05)
        assert should_stop(Policy(patience=0), TASK, candidates, sure, observed)
        unsure = predict(np.r_[1.0, np.full(63, 1.02)], spread=0.1)
        assert not should_stop(Policy(patience=0), TASK, candidates, unsure, observed)

    def test_many_small_chances_together_keep_the_search_going(self):
        candidates = grid()
        observed = [ok(candidates[0], 1.0)]
        prediction = predict(np.r_[1.0, np.full(63, 1.12)], spread=0.1)
        eager = Policy(patience=0, min_gain=0.003)
        assert should_stop(eager, TASK, candidates[:2], prediction.take([0, 1]), observed)
        assert not should_stop(eager, TASK, candidates, prediction, observed)

    def test_never_before_anything_worked_nor_without_a_threshold(self):
        candidates = grid()
        hopeless = predict(np.full(64, 5.0), spread=1e-3)
        assert not should_stop(Policy(patience=0), TASK, candidates, hopeless, [])
        assert not should_stop(
            Policy(patience=0), TASK, candidates, hopeless, [failed(candidates[0])]
        )
        known = [ok(candidates[0], 1.0)]
        assert not should_stop(Policy(patience=0, min_gain=None), TASK, candidates, hopeless, known)

    def test_stops_when_nothing_is_left(self):
        candidates = grid(2)
        observed = [ok(c, 1.0) for c in candidates]
        assert should_stop(Policy(patience=0), TASK, candidates, predict([1.0, 1.0]), observed)

    @pytest.mark.parametrize("minimize", [True, False])
    def test_metrics_that_are_not_positive(self, minimize):
        task = dataclasses.replace(TASK, minimize=minimize)
        candidates = grid(3)
        observed = [ok(candidates[0], 0.0)]
        prediction = predict([0.0, -1.0, 1.0], spread=0.1, log_scale=False)
        policy = Policy(patience=0)
        best = [1 if minimize else 2]
        assert choice(policy, task, candidates, prediction, observed, 1) == best
        assert not should_stop(policy, task, candidates, prediction, observed)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch", 0),
        ("min_gain", -1),
        ("exploration", 0),
        ("length", -1),
        ("shortlist", 0),
        ("draws", 3),
    ],
)
def test_wrong_options_are_named(option, value):
    with pytest.raises(ValueError, match=option):
        Policy(**{option: value})


def test_a_stop_waits_longer_the_less_is_known():
    candidates = grid()
    sure = predict(np.r_[1.0, np.full(63, 2.0)], spread=0.01)
    guess = dataclasses.replace(sure, familiar=False)
    other_device = dataclasses.replace(sure, unfamiliar=("another device",))
    observed = [ok(c, 1.0) for c in candidates]

    def stops(prediction, n, **more):
        return should_stop(Policy(patience=3), TASK, candidates, prediction, observed[:n], **more)

    assert [stops(sure, n) for n in (1, 3, 4)] == [False, False, True]
    many = [Candidate({"x": i}) for i in range(4096)]
    flat = predict(np.r_[1.0, np.full(4095, 9.0)], spread=0.01)
    seen = [ok(many[0], 1.0), *(ok(c, 9.0) for c in many[1:20])]
    flat_stops = [should_stop(Policy(), TASK, many, flat, seen[:n]) for n in (11, 12)]
    assert flat_stops == [False, True]
    assert [stops(other_device, n) for n in (4, 6, 7)] == [False, False, True]
    assert [stops(guess, n) for n in (7, 12, 13)] == [False, False, True]
    wrong, right = predict(np.full(64, 10.0)), predict(np.full(64, 1.1))  # all were predicted slow
    assert [stops(sure, n, zero_shot=wrong) for n in (4, 12, 13)] == [False, False, True]
    assert stops(sure, 4, zero_shot=right)


def test_a_prediction_of_other_candidates_is_refused():
    with pytest.raises(ValueError, match="64 candidates, got 3"):
        choice(Policy(), TASK, grid(), predict([1.0, 2.0, 3.0]), [], 1)


def test_asking_for_more_only_adds_to_what_is_asked_first():
    rng = np.random.default_rng(2)
    prediction = predict(rng.uniform(1, 1.3, 64), spread=0.3, p_valid=0.7)
    known = [ok(c, 1.2) for c in grid()[:6]]
    many = choice(Policy(), TASK, grid(), prediction, known, 12, must=[50], zero_shot=prediction)
    for n in (1, 2, 5):
        fewer = choice(
            Policy(), TASK, grid(), prediction, known, n, must=[50], zero_shot=prediction
        )
        assert fewer == many[:n]


class TestEncoding:
    def test_numbers_span_the_unit_interval_and_octaves_are_even_steps(self):
        x = encode_configs([{"b": b} for b in (16, 32, 64, 128)])
        np.testing.assert_allclose(x[:, 0], [0, 1 / 3, 2 / 3, 1])

    def test_names_are_one_apart_and_constants_vanish(self):
        x = encode_configs([{"a": "x", "c": 1}, {"a": "y", "c": 1}, {"a": None, "c": 1}])
        assert np.linalg.norm(x[0] - x[1]) == pytest.approx(1.0)
        assert encode_configs([{"c": 1}, {"c": 1}]).shape == (2, 0)

    def test_missing_numbers_are_told_apart(self):
        x = encode_configs([{"a": 1}, {"a": 3}, {}])
        assert np.isfinite(x).all()
        assert len(np.unique(x, axis=0)) == 3

    def test_huge_numbers_stay_finite(self):
        x = encode_configs([{"a": 10**400}, {"a": 1.7e308}, {"a": -1e299}, {"a": 5e-324}])
        assert np.isfinite(x).all()

    @settings(max_examples=60)
    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from("abc"),
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            ),
            min_size=1,
            max_size=8,
        )
    )
    def test_any_json_scalars_give_finite_columns(self, configs):
        x = encode_configs(configs)
        assert x.shape[0] == len(configs)
        assert np.isfinite(x).all()


def test_one_in_four_hedges_against_a_misled_correction():
    known = [ok(c, 1.0) for c in grid()[:9]]
    before = predict(np.r_[np.ones(60), 0.9, 0.8, 0.7, 0.6], spread=0.01)
    misled = predict(
        np.r_[np.full(9, 1.0), np.linspace(1.01, 1.02, 51), np.full(4, 3.0)], spread=0.01
    )

    def choose(n_known, n, **more):
        return choice(Policy(), TASK, grid(), misled, known[:n_known], n, **more)

    assert not {60, 61, 62, 63} & set(choose(9, 4))
    assert {60, 61, 62, 63} & set(choose(9, 4, zero_shot=before)) == {63}
    assert {60, 61, 62, 63} & set(choose(9, 8, zero_shot=before)) == {62, 63}
    assert not {60, 61, 62, 63} & set(choose(5, 3, zero_shot=before))
    known[:9] = [ok(c, 1.0 + i) for i, c in enumerate(grid()[:9])]
    opposite = predict(np.r_[np.arange(9, 0, -1), np.ones(51), 0.9, 0.8, 0.7, 0.6], spread=0.01)
    assert not {60, 61, 62, 63} & set(choose(9, 8, zero_shot=opposite))


def test_of_few_candidates_the_third_and_the_fifth_hedge_too():
    before = predict(np.r_[np.ones(60), 0.9, 0.8, 0.7, 0.6], spread=0.01)
    misled = predict(np.r_[np.ones(9), np.linspace(1.01, 1.02, 51), np.full(4, 3.0)], spread=0.01)
    known = [ok(c, 1.0) for c in grid()[:4]]

    def favourites(n_known, **more):
        chosen = choice(
            Policy(), TASK, grid(), misled, known[:n_known], 1, zero_shot=before, **more
        )
        return {60, 61, 62, 63} & set(chosen)

    assert [favourites(k) for k in (1, 2, 3, 4)] == [set(), {63}, set(), {63}]
    many = [Candidate({"x": i}) for i in range(200)]
    flat = predict(np.r_[np.ones(199), 3.0], spread=0.01)
    order = predict(np.r_[np.ones(199), 0.5], spread=0.01)
    two = [ok(c, 1.0) for c in many[:2]]
    assert 199 not in choice(Policy(), TASK, many, flat, two, 1, zero_shot=order)


@pytest.mark.parametrize(
    ("n", "familiar", "at"),
    [(64, True, {3, 5, 7}), (200, True, {0, 2, 4}), (64, False, {0, 1, 2, 4, 6})],
)
def test_the_best_of_near_problems_are_copied(n, familiar, at):
    candidates = [Candidate({"x": i}) for i in range(n)]
    worst_first = dataclasses.replace(predict(np.linspace(2.0, 1.0, n)), familiar=familiar)
    near = [8, 9]
    copied = {
        k
        for k in range(8)
        if choice(
            Policy(),
            TASK,
            candidates,
            worst_first,
            [ok(c, 1.0) for c in candidates[:k]],
            1,
            near=near,
        )
        == [8]
    }
    assert copied == at


def test_the_next_near_problem_follows_and_the_default_comes_first():
    candidates = [Candidate({"x": i}) for i in range(200)]
    guess = dataclasses.replace(predict(np.ones(200)), familiar=False)
    chosen = choice(Policy(), TASK, candidates, guess, [], 3, must=[5], near=[5, 8, 9])
    assert chosen == [5, 8, 9]


def test_an_unfamiliar_order_is_no_hedge():
    known = [ok(c, 1.0) for c in grid()[:11]]
    before = predict(np.r_[np.ones(63), 0.5], spread=0.01)
    now = predict(np.r_[np.full(11, 1.0), np.full(52, 1.01), 3.0], spread=0.01)
    guess = dataclasses.replace(now, familiar=False)
    assert choice(Policy(), TASK, grid(), now, known, 1, zero_shot=before) == [63]
    assert choice(Policy(), TASK, grid(), guess, known, 1, zero_shot=before) != [63]


def test_where_a_guess_failed_some_must_work_before_a_model_of_them_chooses():
    candidates = grid()
    ordered = predict(np.linspace(1.0, 2.0, 64), spread=0.01)
    guess = dataclasses.replace(ordered, familiar=False)

    def chosen(prediction, observed):
        return {
            choice(Policy(seed=s), TASK, candidates, prediction, observed, 1)[0] for s in range(9)
        }

    some, bad = [ok(c, 1.0) for c in candidates[:4]], failed(candidates[4])
    assert chosen(guess, some[:3]) == {3}
    assert len(chosen(guess, [bad])) > 4
    assert len(chosen(guess, [*some[:3], bad])) > 4
    assert chosen(guess, [*some, bad]) == {5}
    assert chosen(ordered, [bad]) == {0}
