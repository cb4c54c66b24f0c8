"""The engine alone, and that the harness and the decorator ask it for the same."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_rlm.bench.kernels import run_search
from autotune_rlm.landscapes import Landscape
from autotune_rlm.measure.replay import ReplayMeasurer
from autotune_rlm.search.engine import Search
from autotune_rlm.search.policy import Policy
from autotune_rlm.search.tuner import Progress, Tuner
from autotune_rlm.types import (
    Candidate,
    Device,
    Measurement,
    Observation,
    Prediction,
    Preparing,
    Task,
)

TASK = Task(kernel="k", device=Device(name="NVIDIA A100"), problem={"n": 1024})
CANDIDATES = [Candidate({"BLOCK": 2**b, "num_warps": 2**w}) for b in range(4, 12) for w in range(5)]


def value(candidate):
    rng = np.random.default_rng(int(candidate.key[:8], 16))
    block, warps = candidate.config["BLOCK"], candidate.config["num_warps"]
    return 1.0 + abs(np.log2(block / 256)) + 0.3 * abs(np.log2(warps / 4)) + 0.05 * rng.random()


def measured(candidate):
    if candidate.config["BLOCK"] == 2048:
        return Measurement(status="out_of_resources", reason="shared memory", compile_s=0.5)
    return Measurement(status="ok", value=value(candidate), compile_s=0.5)


LANDSCAPE = Landscape(TASK, tuple(CANDIDATES), tuple(map(measured, CANDIDATES)))


class Model:
    """Right up to noise; what is observed it knows, and it errs alike near what it erred on."""

    def __init__(self, *, familiar=True, spread=0.3):
        self.familiar, self.spread = familiar, spread

    def predict(self, task, candidates, *, observed=()):
        rng = np.random.default_rng(0)
        truth = np.array([value(c) for c in candidates])
        median = truth * np.exp(self.spread * rng.standard_normal(len(truth)))
        spread = np.full(len(truth), self.spread)
        known = {o.candidate.key: o.measurement.value for o in observed}
        for i, c in enumerate(candidates):
            if known.get(c.key) is not None:
                median[i], spread[i] = known[c.key], 1e-3
        width = np.exp(1.64 * spread)
        return Prediction(
            metric="time_ms",
            median=median,
            low=median / width,
            high=median * width,
            spread=spread,
            p_valid=np.full(len(truth), 0.9),
            familiar=self.familiar,
        )


def play(search, n=100):
    """Ask and tell one by one; the candidates in the order asked."""
    order = []
    while search.ended is None and len(order) < n:
        [candidate] = search.ask(1)
        assert search.tell(candidate, measured(candidate))
        order.append(candidate)
    return order


@settings(max_examples=15)
@given(st.permutations(range(len(CANDIDATES))), st.integers(0, 9), st.booleans())
def test_any_search_asks_each_candidate_once_and_ends_within_its_budget(order, seed, familiar):
    candidates = [CANDIDATES[i] for i in order]
    search = Search(
        TASK, candidates, Model(familiar=familiar), Policy(seed=seed, draws=64), budget=12
    )
    asked = play(search)
    assert len(set(asked)) == len(asked) <= 12
    assert search.ended in ("budget", "no better one is likely")
    assert search.best.measurement.value == min(measured(c).value or 99 for c in asked)


def test_asking_for_more_begins_with_what_is_asked_alone():
    search = Search(TASK, CANDIDATES, Model(), first=CANDIDATES[3:4])
    for _ in range(10):
        wanted = search.ask(9)
        assert search.ask(1) == wanted[:1]
        assert search.ask(4) == wanted[:4]
        assert search.ask(9) == wanted
        search.tell(wanted[0], measured(wanted[0]))
    assert len(search.ask(1000)) == len(CANDIDATES) - 10


def test_what_is_first_comes_first_and_what_is_known_is_not_asked():
    known = [Observation(c, measured(c)) for c in CANDIDATES[:5]]
    elsewhere = Observation(Candidate({"BLOCK": 3}), Measurement(status="ok", value=9.0))
    search = Search(
        TASK,
        CANDIDATES,
        Model(),
        first=[CANDIDATES[2], CANDIDATES[9]],
        observed=[*known, elsewhere],
    )
    assert search.ask(1) == [CANDIDATES[9]]
    assert len(search.observations) == 5
    assert not search.tell(CANDIDATES[2], measured(CANDIDATES[2]))
    assert not search.tell(elsewhere.candidate, elsewhere.measurement)


def test_without_a_surrogate_all_are_asked_in_order():
    assert play(Search(TASK, CANDIDATES, None)) == CANDIDATES


def test_a_stop_comes_only_after_a_while_without_an_improvement():
    sure = Model(spread=0.01)
    asked = play(Search(TASK, CANDIDATES, sure, Policy(patience=5)))
    values = [measured(c).value or 99 for c in asked]
    assert len(asked) < len(CANDIDATES)
    assert len(values) - 1 - int(np.argmin(values)) >= 5


def test_the_harness_and_the_loop_of_the_decorator_choose_alike():
    pytest.importorskip("triton")
    from autotune_rlm.integrations.triton._select import Selector
    from autotune_rlm.integrations.triton.settings import Settings

    model, budget, order = Model(), 16, np.random.default_rng([0, 0]).permutation(len(CANDIDATES))
    asked = []

    class Replay(ReplayMeasurer):
        def measure(self, task, candidates):
            for pair in super().measure(task, candidates):
                asked.append(pair[0])
                yield pair

    settings_ = dataclasses.replace(Settings(), budget=budget, surrogate=model, store=False)
    tasks = SimpleNamespace(file=__file__)  # nothing recommended stands beside it
    selector = Selector(tasks, ["n"], settings_)
    shuffled = [CANDIDATES[i] for i in order]
    selector._tune(TASK, shuffled, Replay(LANDSCAPE, workers=8), None)
    run = run_search(
        LANDSCAPE, "rlm-default", budgets=[budget], seed=0, load_surrogate=lambda: model
    )
    theirs = [LANDSCAPE.regret(measured(c).value or 1e9) for c in asked]
    assert run.best == pytest.approx(list(np.minimum.accumulate(theirs)))
    assert asked[0] == shuffled[0]


class TestAhead:
    """Compiling ahead must save seconds and cost no measurements."""

    def tune(self, workers, **policy):
        replay = ReplayMeasurer(LANDSCAPE, workers=workers)
        tuner = Tuner(surrogate=Model(), measurer=replay, policy=Policy(min_gain=None, **policy))
        return tuner.tune(TASK, CANDIDATES, budget=20), replay

    def test_is_told_ahead_and_costs_fewer_seconds(self):
        assert isinstance(ReplayMeasurer(LANDSCAPE), Preparing)
        alone, slow = self.tune(0)
        ahead, fast = self.tune(8)
        assert ahead.event.n_measured == alone.event.n_measured == 20
        assert fast.clock_s < 0.6 * slow.clock_s
        assert ahead.best.measurement.value <= 1.02 * alone.best.measurement.value

    def test_a_batch_learns_later(self):
        batched, _ = self.tune(8, batch=8)
        assert batched.event.n_measured == 20

    def test_one_that_was_not_begun_is_waited_for(self):
        replay = ReplayMeasurer(LANDSCAPE, workers=1)
        replay.prepare(TASK, CANDIDATES[:3])
        assert not replay.is_ready(CANDIDATES[0])
        list(replay.measure(TASK, CANDIDATES[2:3]))  # third in the queue of one worker
        assert replay.clock_s == pytest.approx(1.5 + 32e-3 * value(CANDIDATES[2]))
        assert replay.is_ready(CANDIDATES[0])


def test_progress_is_told_after_each_measurement_and_at_the_end():
    told = []
    tuner = Tuner(surrogate=Model(), measurer=ReplayMeasurer(LANDSCAPE), policy=Policy())
    result = tuner.tune(TASK, CANDIDATES, budget=5, progress=told.append)
    assert [p.measured for p in told] == [1, 2, 3, 4, 5, 5]
    assert [p.stop for p in told] == [None] * 5 + ["budget"]
    assert all(isinstance(p, Progress) and p.planned == 5 for p in told)
    assert told[0].default == told[-1].default == value(CANDIDATES[0])
    assert told[-1].best == result.best
