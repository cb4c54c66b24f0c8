import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from autotune_rlm.landscapes import Landscape
from autotune_rlm.measure.replay import ReplayMeasurer
from autotune_rlm.search.policy import Policy
from autotune_rlm.search.tuner import Tuner, TuningError, resolve_budget
from autotune_rlm.store import Store
from autotune_rlm.store.accuracy import TuningEvent
from autotune_rlm.types import Candidate, Device, Measurement, Observation, Prediction, Task

TASK = Task(kernel="k", device=Device(name="NVIDIA A100"), problem={"n": 1024})
CANDIDATES = [Candidate({"BLOCK": 2**b, "warps": w}) for b in range(4, 12) for w in (1, 2, 4, 8)]


def time_ms(candidate):
    """The best is BLOCK 256, 4 warps (1.0 ms); BLOCK 2048 fails."""
    block, warps = candidate.config["BLOCK"], candidate.config["warps"]
    if block == 2048:
        return None
    return 1.0 + abs(math.log2(block / 256)) + 0.3 * abs(math.log2(warps / 4))


def measure(candidate, **more):
    value = time_ms(candidate)
    if value is None:
        return Measurement(status="out_of_resources", reason="shared memory", compile_s=0.5, **more)
    return Measurement(
        status="ok", value=value, low=value * 0.99, high=value * 1.01, compile_s=0.5, **more
    )


LANDSCAPE = Landscape(TASK, tuple(CANDIDATES), tuple(map(measure, CANDIDATES)))


class Model:
    """Knows the truth up to seeded noise; what is observed it knows exactly."""

    def __init__(self, noise=0.3, spread=0.3):
        self.noise, self.spread, self.asked = noise, spread, []

    def predict(self, task, candidates, *, observed=()):
        self.asked.append(list(observed))
        rng = np.random.default_rng(0)
        truth = np.array([time_ms(c) or 8.0 for c in candidates])
        median = truth * np.exp(self.noise * rng.standard_normal(len(truth)))
        spread = np.full(len(truth), self.spread)
        known = {o.candidate.key: o.measurement for o in observed}
        for i, c in enumerate(candidates):
            if c.key in known:
                spread[i] = 1e-3
                median[i] = known[c.key].value or median[i]
        p_valid = np.array([0.3 if time_ms(c) is None else 0.95 for c in candidates])
        width = np.exp(1.64 * spread)
        return Prediction(
            metric="time_ms",
            median=median,
            low=median / width,
            high=median * width,
            spread=spread,
            p_valid=p_valid,
        )


class Replay(ReplayMeasurer):
    """Counts what it was asked."""

    def __init__(self, landscape=LANDSCAPE):
        super().__init__(landscape)
        self.asked = []

    def measure(self, task, candidates):
        for pair in super().measure(task, candidates):
            self.asked.append(pair[0])
            yield pair


def tuner(measurer=None, *, store=None, surrogate=None, **policy):
    policy.setdefault("min_gain", None)
    return Tuner(
        surrogate=surrogate or Model(),
        measurer=measurer or Replay(),
        store=store,
        policy=Policy(**policy),
    )


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store.db")


class TestBudget:
    @pytest.mark.parametrize(
        ("budget", "measured"),
        [(1, 1), (5, 5), (0.25, 8), (1.0, 32), (None, 32), (1000, 32), (1e-9, 1)],
    )
    def test_counts_and_fractions(self, budget, measured):
        replay = Replay()
        result = tuner(replay).tune(TASK, CANDIDATES, budget=budget)
        assert len(replay.asked) == len(result.observations) == result.event.n_measured == measured

    @pytest.mark.parametrize("budget", [0, -3, 0.0, 1.5, -0.1, "8", True, math.nan])
    def test_wrong_ones_are_refused(self, budget):
        with pytest.raises(ValueError, match="budget"):
            resolve_budget(budget, 10)

    def test_seconds_count_the_simulated_clock(self):
        result = tuner().tune(TASK, CANDIDATES, budget_s=3.0)
        assert 3 <= result.event.n_measured <= 7
        assert result.event.stop == "seconds"
        assert result.event.total_s >= 3.0

    def test_the_default_is_measured_when_the_seconds_are_over(self):
        class LastFirst(ReplayMeasurer):
            """As a pool does that is done with the last one first."""

            def measure(self, task, candidates):
                return super().measure(task, reversed(list(candidates)))

        search = Tuner(surrogate=None, measurer=LastFirst(LANDSCAPE), policy=Policy(batch=8))
        for default in (0, 17):
            found = search.tune(TASK, CANDIDATES, budget=8, budget_s=1e-9, default=default)
            assert CANDIDATES[default] in [o.candidate for o in found.observations]
            assert found.event.stop == "seconds"
            assert found.event.n_measured == 2

    def test_at_least_one_is_measured_however_few_the_seconds(self):
        result = tuner().tune(TASK, CANDIDATES, budget_s=1e-9)
        assert result.event.n_measured == 1

    def test_whichever_ends_first(self):
        assert tuner().tune(TASK, CANDIDATES, budget=2, budget_s=1e6).event.stop == "budget"

    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            ({"candidates": []}, "candidates"),
            ({"default": 32}, "default"),
            ({"budget_s": 0}, "budget_s"),
        ],
    )
    def test_bad_arguments_are_named(self, arguments, word):
        arguments = {"candidates": CANDIDATES, **arguments}
        with pytest.raises(ValueError, match=word):
            tuner().tune(TASK, **arguments)


class TestSearch:
    def test_finds_the_best_with_a_quarter_of_the_measurements(self):
        result = tuner().tune(TASK, CANDIDATES, budget=8)
        assert result.best.candidate.config == {"BLOCK": 256, "warps": 4}
        assert result.best.measurement.value == 1.0

    def test_the_best_is_always_a_measured_one_and_the_smallest(self):
        result = tuner().tune(TASK, CANDIDATES, budget=6)
        values = [o.measurement.value for o in result.observations if o.measurement.ok]
        assert result.best in result.observations
        assert result.best.measurement.value == min(values)

    def test_larger_is_better_where_the_task_says_so(self):
        task = Task(kernel="k", device=TASK.device, metric="gb_s", minimize=False)
        rates = [
            Measurement(status="ok", value=1 / m.value) if m.ok else m
            for m in LANDSCAPE.measurements
        ]
        landscape = Landscape(task, tuple(CANDIDATES), tuple(rates))
        result = tuner(Replay(landscape)).tune(task, CANDIDATES, budget=1.0)
        assert result.best.candidate.config == {"BLOCK": 256, "warps": 4}

    @pytest.mark.parametrize("default", [0, 31])
    @pytest.mark.parametrize("budget", [1, 2, 4])
    def test_the_default_is_always_measured(self, default, budget):
        replay = Replay()
        tuner(replay).tune(TASK, CANDIDATES, budget=budget, default=default)
        assert replay.asked[0] == CANDIDATES[default]

    def test_without_a_default_the_model_has_the_first_word(self):
        replay = Replay()
        tuner(replay, surrogate=Model(noise=0)).tune(TASK, CANDIDATES, budget=1, default=None)
        assert replay.asked[0].config == {"BLOCK": 256, "warps": 4}

    def test_equal_seeds_choose_equally(self):
        def order(seed):
            replay = Replay()
            tuner(replay).tune(TASK, CANDIDATES, budget=20, seed=seed)
            return [c.key for c in replay.asked]

        assert order(4) == order(4)

    def test_equal_candidates_are_measured_once(self):
        replay = Replay()
        result = tuner(replay).tune(TASK, CANDIDATES * 2)
        assert len(replay.asked) == 32
        assert result.event.n_candidates == 32

    def test_stops_when_no_better_one_is_likely(self):
        model = Model(noise=0.01, spread=0.01)
        result = tuner(surrogate=model, min_gain=0.003, batch=2).tune(TASK, CANDIDATES)
        assert result.event.stop == "no better one is likely"
        assert result.event.n_measured < 8
        assert result.best.measurement.value == 1.0

    def test_a_model_that_was_just_wrong_does_not_stop_the_search(self):
        class Wrong(Model):
            """As sure as can be that everything takes as long as the slowest one seen."""

            def predict(self, task, candidates, *, observed=()):
                right = super().predict(task, candidates, observed=observed)
                slow = np.where(right.spread > 0.005, 20.0, right.median)
                bounds = {"low": slow * 0.99, "high": slow * 1.01}
                return dataclasses.replace(right, median=slow, **bounds)

        model = Wrong(noise=0.0, spread=0.01)
        result = tuner(surrogate=model, min_gain=0.003, batch=2).tune(TASK, CANDIDATES, budget=12)
        assert result.event.stop == "budget"
        assert result.event.n_measured == 12

    def test_the_surrogate_is_told_what_was_measured(self):
        model = Model()
        tuner(surrogate=model, batch=4).tune(TASK, CANDIDATES, budget=12, default=None)
        assert [len(observed) for observed in model.asked] == [0, 4, 8, 12]


class TestFailures:
    def test_if_all_fail_one_error_lists_them_by_reason(self):
        candidates = [c for c in CANDIDATES if time_ms(c) is None]
        result = tuner().tune(TASK, candidates)
        assert result.best is None
        assert result.event.n_failed == {"out_of_resources": 4}
        with pytest.raises(TuningError, match="4 x out_of_resources: shared memory"):
            result.raise_if_failed()
        tuner().tune(TASK, CANDIDATES, budget=3).raise_if_failed()

    def test_a_measurer_that_raises_costs_only_the_rest_of_its_batch(self):
        class Flaky(Replay):
            def measure(self, task, candidates):
                for i, pair in enumerate(super().measure(task, candidates)):
                    if i == 2 and len(self.asked) < 8:
                        raise RuntimeError("device lost\nlong story")
                    yield pair

        result = tuner(Flaky(), batch=4).tune(TASK, CANDIDATES)
        assert result.best is not None
        assert result.event.n_skipped > 0
        assert result.event.n_measured + result.event.n_skipped == 32
        assert result.event.reasons["the measurer raised RuntimeError: device lost"] > 0

    def test_a_measurer_that_always_raises_ends_the_run_with_its_reason(self):
        class Dead(Replay):
            def measure(self, task, candidates):
                raise OSError("no such device")

        result = tuner(Dead()).tune(TASK, CANDIDATES)
        assert result.best is None
        assert result.event.stop == "measurer failed"
        with pytest.raises(TuningError, match="no such device"):
            result.raise_if_failed()

    def test_what_the_measurer_leaves_out_or_adds_does_no_harm(self):
        class Odd(Replay):
            def measure(self, task, candidates):
                for i, pair in enumerate(super().measure(task, candidates)):
                    if i % 2 == 0:
                        yield pair
                        yield pair
                yield Candidate({"BLOCK": 1}), Measurement(status="ok", value=1e-9)

        result = tuner(Odd(), batch=4).tune(TASK, CANDIDATES)
        assert result.best.measurement.value >= 1.0
        assert result.event.n_measured + result.event.n_skipped == 32

    def test_skipped_candidates_are_neither_learned_nor_stored_nor_asked_again(self, store):
        class Skips(Replay):
            def measure(self, task, candidates):
                for candidate, _ in super().measure(task, candidates):
                    yield candidate, Measurement(status="skipped", reason="no time")

        replay, model = Skips(), Model()
        result = tuner(replay, surrogate=model, store=store).tune(TASK, CANDIDATES)
        assert len(replay.asked) == result.event.n_skipped == 32
        assert all(observed == [] for observed in model.asked)
        assert list(store.observations(TASK)) == []

    def test_a_store_that_cannot_be_written_costs_a_warning(self, store, caplog, monkeypatch):
        def full(*args):
            raise OSError("disk full")

        monkeypatch.setattr(store, "add", full)
        monkeypatch.setattr(store, "add_event", full)
        result = tuner(store=store).tune(TASK, CANDIDATES, budget=5)
        assert result.event.n_measured == 5
        assert "disk full" in caplog.text


class TestStore:
    def test_what_is_known_costs_nothing(self, store):
        first = tuner(store=store).tune(TASK, CANDIDATES, budget=8)
        replay, model = Replay(), Model()
        second = tuner(replay, store=store, surrogate=model).tune(TASK, CANDIDATES, budget=8)
        assert replay.asked == model.asked == []
        assert second.best == first.best
        assert (second.event.n_measured, second.event.n_reused) == (0, 8)
        assert len(list(store.events())) == 1

    def test_a_larger_budget_goes_on_where_the_smaller_ended(self, store):
        tuner(store=store).tune(TASK, CANDIDATES, budget=8)
        replay = Replay()
        result = tuner(replay, store=store).tune(TASK, CANDIDATES, budget=12)
        assert len(replay.asked) == 4
        assert len(result.observations) == 12

    def test_failures_are_remembered(self, store):
        failing = [c for c in CANDIDATES if time_ms(c) is None]
        tuner(store=store).tune(TASK, failing)
        replay = Replay()
        assert tuner(replay, store=store).tune(TASK, failing).best is None
        assert replay.asked == []

    def test_measurements_of_other_lists_are_learned_from(self, store):
        tuner(store=store).tune(TASK, CANDIDATES[:16])
        model = Model()
        result = tuner(store=store, surrogate=model).tune(TASK, CANDIDATES[16:], budget=1)
        assert len(model.asked[-1]) == 16 + 1
        assert result.event.n_reused == 0
        assert result.best.candidate in CANDIDATES[16:]

    def test_the_best_of_the_nearest_problem_is_among_the_first(self, store):
        near = Task(kernel="k", device=Device(name="NVIDIA H100"), problem=TASK.problem)
        far = Task(kernel="k", device=TASK.device, problem={"n": 2})
        store.add(near, CANDIDATES[7], Measurement(status="ok", value=1.0))
        store.add(near, CANDIDATES[8], Measurement(status="ok", value=2.0))
        store.add(far, CANDIDATES[9], Measurement(status="ok", value=1.0))
        replay = Replay()
        tuner(replay, store=store).tune(TASK, CANDIDATES, budget=4, default=5)
        assert [replay.asked[0], replay.asked[3]] == [CANDIDATES[5], CANDIDATES[7]]

    def test_kill_9_in_mid_search_loses_nothing_and_resumes(self, tmp_path):
        script = tmp_path / "search.py"
        script.write_text(
            textwrap.dedent(
                """
                import sys, time
                sys.path.insert(0, sys.argv[2])
                from test_tuner import CANDIDATES, TASK, Replay, Store, tuner

                class Slow(Replay):
                    def measure(self, task, candidates):
                        for pair in super().measure(task, candidates):
                            yield pair
                            print(pair[0].key, flush=True)
                            time.sleep(float(sys.argv[3]))

                store = Store(sys.argv[1])
                result = tuner(Slow(), store=store).tune(TASK, CANDIDATES, budget=12)
                print(result.event.n_reused, result.event.n_measured, result.best.measurement.value)
                """
            )
        )
        url = tmp_path / "store.db"
        arguments = [sys.executable, str(script), str(url), os.path.dirname(__file__)]
        process = subprocess.Popen([*arguments, "30"], stdout=subprocess.PIPE, text=True)
        first = [process.stdout.readline().strip()]
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert [o.candidate.key for o in Store(url).observations(TASK)] == first
        done = subprocess.run([*arguments, "0"], capture_output=True, text=True, check=True)
        *later, last = done.stdout.split("\n")[:-1]
        assert not set(first) & set(later)
        reused, measured, best = last.split()
        assert (int(reused), int(measured)) == (1, 11)
        assert float(best) == tuner().tune(TASK, CANDIDATES, budget=12).best.measurement.value


class TestEvent:
    def test_says_what_was_done_and_how_right_the_model_was(self, store):
        result = tuner(store=store).tune(TASK, CANDIDATES, budget=12, seed=3)
        event = result.event
        assert (event.kernel, event.device, event.problem) == ("k", "NVIDIA A100", {"n": 1024})
        assert (event.n_candidates, event.n_measured, event.n_reused, event.seed) == (32, 12, 0, 3)
        assert event.versions["autotune_rlm"]
        assert event.best_value == result.best.measurement.value
        assert event.first_choice_regret >= 0
        assert -1 <= event.spearman <= 1
        assert event.spearman_final == pytest.approx(1.0)
        assert 0 <= event.coverage <= 1
        assert event.compile_s == pytest.approx(6.0)
        mean_cost = (event.compile_s + event.measure_s) / 12
        assert event.saved_s == pytest.approx(20 * mean_cost)
        assert len(event.points) == 12
        assert [p.value for p in event.points] == [o.measurement.value for o in result.observations]
        assert (
            TuningEvent.from_json(json.loads(json.dumps(event.to_json(), allow_nan=False))) == event
        )

    def test_reused_measurements_are_marked(self, store):
        tuner(store=store).tune(TASK, CANDIDATES, budget=4)
        event = tuner(store=store).tune(TASK, CANDIDATES, budget=6).event
        assert [p.reused for p in event.points] == [True] * 4 + [False] * 2
        assert (event.n_reused, event.n_measured) == (4, 2)

    @pytest.mark.parametrize(
        ("told", "familiar"),
        [
            ({}, True),
            ({"familiar": False}, False),
            ({"unfamiliar": ("the interpreter was not among the devices of training",)}, False),
        ],
    )
    def test_it_says_whether_the_model_was_told_of_such_candidates_and_devices(
        self, told, familiar
    ):
        class Told(Model):
            def predict(self, task, candidates, *, observed=()):
                found = super().predict(task, candidates, observed=observed)
                return dataclasses.replace(found, **told)

        result = tuner(surrogate=Told()).tune(TASK, CANDIDATES, budget=3)
        assert result.event.familiar is familiar


class TestReplay:
    def test_answers_what_was_recorded_and_its_clock_runs(self):
        replay = ReplayMeasurer(LANDSCAPE, repeats=10)
        answers = dict(replay.measure(TASK, CANDIDATES[:2]))
        assert [answers[c].value for c in CANDIDATES[:2]] == [time_ms(c) for c in CANDIDATES[:2]]
        expected = sum(0.5 + 10 * 1e-3 * time_ms(c) for c in CANDIDATES[:2])
        assert replay.clock_s == pytest.approx(expected)

    def test_a_recorded_cost_is_taken_as_it_is(self):
        landscape = Landscape(TASK, (CANDIDATES[0],), (measure(CANDIDATES[0], cost_s=7.0),))
        replay = ReplayMeasurer(landscape)
        list(replay.measure(TASK, CANDIDATES[:1]))
        assert replay.clock_s == 7.0

    def test_what_is_not_recorded_is_skipped(self):
        [(_, answer)] = ReplayMeasurer(LANDSCAPE).measure(TASK, [Candidate({"BLOCK": 3})])
        assert answer.status == "skipped"
        assert "not in the recorded landscape" in answer.reason

    def test_repeats_must_be_positive(self):
        with pytest.raises(ValueError, match="repeats"):
            ReplayMeasurer(LANDSCAPE, repeats=0)


def test_observation_order_of_the_result_is_that_of_measuring():
    replay = Replay()
    result = tuner(replay).tune(TASK, CANDIDATES, budget=7)
    assert [o.candidate for o in result.observations] == replay.asked
    assert all(isinstance(o, Observation) for o in result.observations)
