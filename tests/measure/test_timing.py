"""Timers and benches, with calls whose times are known."""

import os
import time

import numpy as np
import pytest

from autotune_rlm.measure.compile import CompileResult
from autotune_rlm.measure.job import Bench, BenchSettings, Job
from autotune_rlm.measure.statistics import StoppingRule
from autotune_rlm.measure.timing import Call, WallTimer, default_timer, measure_call, race_calls
from autotune_rlm.measure.triton import TritonMeasurer
from autotune_rlm.types import Candidate, Device, Status, Task

TASK = Task(kernel="k", device=Device(name="CPU", target="cpu"))


class FakeTimer:
    """Gives times from a table instead of a clock."""

    name = "fake"

    def __init__(self, noise=0.0):
        self.samples = 0
        self.noise = np.random.default_rng(0)
        self.width = noise

    def sample(self, call, n):
        self.samples += n
        times = []
        for _ in range(n):
            call()
            value = call.run()
            times.append(value * (1 + self.width * self.noise.standard_normal()))
        return times


def fake(value):
    return Call(lambda: value)


def bench(**settings):
    return Bench(BenchSettings(**settings), timer=FakeTimer(), state=dict)


def test_only_the_run_is_timed():
    order = []
    call = Call(
        run=lambda: order.append("run"),
        setup=lambda: (order.append("setup"), time.sleep(0.02)),
        teardown=lambda error: (order.append("teardown"), time.sleep(0.02)),
    )
    times = WallTimer().sample(call, 2)
    assert order == ["setup", "run", "teardown"] * 2
    assert max(times) < 15


def test_teardown_hears_of_the_exception():
    heard = []

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        WallTimer().sample(Call(fail, teardown=heard.append), 1)
    assert isinstance(heard[0], ValueError)


def test_sampling_adapts_to_the_noise():
    rule = StoppingRule(min_samples=8)
    calm = measure_call(fake(1.0), timer=FakeTimer(0.0001), rule=rule, budget_s=10)
    noisy = measure_call(fake(1.0), timer=FakeTimer(0.05), rule=rule, budget_s=10)
    assert len(calm.samples) == 8
    assert len(noisy.samples) > 50
    assert noisy.interval.half_width <= 0.01
    assert abs(noisy.interval.median - 1) < 0.02


def test_sampling_ends_with_the_budget_but_takes_one():
    slow = Call(lambda: time.sleep(0.05))
    timing = measure_call(slow, timer=WallTimer(), budget_s=0.01, warmup=0)
    assert len(timing.samples) == 1
    assert timing.interval.low == timing.interval.high


def test_the_hopeless_are_dropped_early():
    timing = measure_call(fake(10.0), timer=FakeTimer(0.05), best_ms=1.0, budget_s=10)
    assert timing.dropped
    assert len(timing.samples) <= 8
    assert timing.to_measurement().state["dropped"] is True
    assert not measure_call(fake(2.0), timer=FakeTimer(0.05), best_ms=1.0, budget_s=10).dropped


def test_finalists_are_raced_in_turn():
    timer = FakeTimer(0.02)
    timings, raced = race_calls([fake(1.1), fake(1.0), fake(2.0)], timer=timer, budget_s=30)
    assert raced.order[0] == 1
    assert [round(t.interval.median, 1) for t in timings] == [1.1, 1.0, 2.0]
    assert len(timings[2].samples) <= len(timings[1].samples)


def test_bench_flags_a_drifting_clock(monkeypatch):
    speed = [1.0]
    own = bench(drift_every_s=0.001)
    steady = Job(Call(lambda: speed[0]))
    assert "drift" not in own.measure(lambda: steady).state
    time.sleep(0.002)
    assert "drift" not in own.measure(lambda: steady).state
    speed[0] = 1.5
    time.sleep(0.002)
    assert own.measure(lambda: steady).state["drift"] == pytest.approx(1.5)
    speed[0] = 1.0
    time.sleep(0.002)
    assert "drift" not in own.measure(lambda: steady).state


def test_rivals_are_timed_in_turn_so_that_a_drift_of_the_clock_does_not_decide():
    class Drifting(FakeTimer):
        clock = 0

        def sample(self, call, n):
            times = []
            for _ in range(n):
                Drifting.clock += 1
                slower = 1 + 0.05 * (Drifting.clock > 60)  # the clock drops for good
                times.append(call.run() * slower * (1 + 0.03 * self.noise.standard_normal()))
            return times

    own = Bench(BenchSettings(budget_s=2.0, max_samples=50), timer=Drifting(), state=dict)
    first = own.measure(lambda: Job(fake(1.0)))
    better = own.measure(lambda: Job(fake(0.985)))
    assert better.state["beside_best"] is True
    assert better.value == pytest.approx(0.985 * first.value, rel=0.02)
    assert "beside_best" not in own.measure(lambda: Job(fake(2.0))).state


def test_bench_times_identical_binaries_on_equal_grids_once():
    own = bench()
    same = CompileResult(status=Status.OK, compile_s=0.5, facts={"binary_hash": "a"})
    runs = []

    def job(grid):
        return lambda: Job(Call(lambda: runs.append(1) or 1.0), grid=grid)

    first = own.measure(job((4,)), same)
    count = len(runs)
    twin = own.measure(job((4,)), same)
    assert len(runs) == count
    assert twin.value == first.value
    assert twin.state["same_binary"] is True
    assert "same_binary" not in own.measure(job((8,)), same).state
    assert len(runs) > count


def test_bench_takes_what_compiling_said():
    refused = CompileResult(status=Status.OUT_OF_RESOURCES, reason="too much", facts={"a": 1})
    measurement = bench().measure(lambda: 1 / 0, refused)
    assert measurement.status is Status.OUT_OF_RESOURCES
    assert measurement.facts == {"a": 1}


def test_bench_stops_after_a_sticky_error():
    own = bench()

    def broken():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert own.measure(lambda: Job(Call(broken))).status is Status.RUNTIME_ERROR
    after = own.measure(lambda: Job(fake(1.0)))
    assert after.status is Status.SKIPPED
    assert "illegal memory access" in after.reason


def test_wrong_results_are_vetoed():
    torch = pytest.importorskip("torch")
    out = torch.zeros(100)
    right = torch.arange(100.0)

    def job(values):
        return lambda: Job(
            Call(lambda: out.copy_(values)),
            outputs=lambda: {"out": out},
            prepare=lambda: out.fill_(float("nan")),
        )

    def nothing():
        return Job(Call(lambda: None), outputs=lambda: {"out": out}, prepare=lambda: out.fill_(0))

    by_default = Bench(timer=WallTimer(), state=dict)
    assert by_default.measure(job(right)).ok
    assert by_default.measure(job(right * 1.0001)).ok
    wrong = by_default.measure(job(right * 1.2))
    assert wrong.status is Status.WRONG_RESULT
    assert "of the elements" in wrong.reason
    assert by_default.measure(nothing).status is Status.WRONG_RESULT
    by_reference = Bench(timer=WallTimer(), state=dict, expected=lambda: {"out": right})
    assert by_reference.measure(job(right + 50)).status is Status.WRONG_RESULT
    assert by_reference.measure(job(right)).ok


def test_triton_measurer_yields_every_candidate_and_never_raises():
    def make(candidate):
        if candidate.config["i"] == 2:
            raise ValueError("cannot be made")
        return Job(fake(float(candidate.config["i"] + 1)))

    measurer = TritonMeasurer(make, timer=FakeTimer())
    results = list(measurer.measure(TASK, (Candidate({"i": i}) for i in range(4))))
    assert [c.config["i"] for c, _ in results] == [0, 1, 2, 3]
    assert [m.status for _, m in results].count(Status.OK) == 3
    assert results[2][1].reason == "ValueError: cannot be made"
    assert results[1][1].state["device"]


def test_interpreter_and_cpu_use_the_wall_clock(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setitem(os.environ, "TRITON_INTERPRET", "1")
    assert default_timer().name == "wall"
    monkeypatch.setitem(os.environ, "TRITON_INTERPRET", "0")
    assert default_timer("cpu").name == "wall"


def test_settings_are_checked():
    with pytest.raises(ValueError, match="budget_s"):
        measure_call(fake(1.0), timer=FakeTimer(), budget_s=0)
    with pytest.raises(ValueError, match="confidence"):
        BenchSettings(confidence=2).rule()
