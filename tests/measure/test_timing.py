"""Timers and benches, with calls whose times are known."""

import os
import threading
import time
import types
from concurrent.futures import Future

import numpy as np
import pytest

from autotune_rlm.measure.statistics import StoppingRule, timing
from autotune_rlm.measure.statistics.timing import (
    Call,
    WallTimer,
    default_timer,
    measure_call,
    race_calls,
)
from autotune_rlm.measure.triton import TritonMeasurer
from autotune_rlm.measure.triton import job as job_module
from autotune_rlm.measure.triton.compile import CompileResult
from autotune_rlm.measure.triton.job import Bench, BenchSettings, Busy, Job
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

    settings = BenchSettings(budget_s=2.0, max_samples=50, warm_s=0.0)
    own = Bench(settings, timer=Drifting(), state=dict)
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
            raise RuntimeError("Triton Error [CUDA]: invalid argument")
        return Job(fake(float(candidate.config["i"] + 1)))

    measurer = TritonMeasurer(make, timer=FakeTimer())
    results = list(measurer.measure(TASK, (Candidate({"i": i}) for i in range(4))))
    assert [c.config["i"] for c, _ in results] == [0, 1, 2, 3]
    assert [m.status for _, m in results].count(Status.OK) == 3
    assert results[2][1].reason == "RuntimeError: Triton Error [CUDA]: invalid argument"
    assert results[1][1].state["device"]


def test_an_exception_of_the_caller_ends_measuring_and_is_kept():
    def make(candidate):
        if candidate.config["i"] == 2:
            raise ValueError("a bug in a hook")
        return Job(fake(1.0))

    measurer = TritonMeasurer(make, timer=FakeTimer())
    results = list(measurer.measure(TASK, (Candidate({"i": i}) for i in range(4))))
    assert [c.config["i"] for c, _ in results] == [0, 1]
    assert str(measurer.bench.fatal) == "a bug in a hook"


def test_a_full_memory_is_waited_for(monkeypatch):
    monkeypatch.setattr(job_module, "_PAUSES_S", (0.0, 0.0, 0.0))
    left = [2]

    def run():
        if left[0]:
            left[0] -= 1
            raise RuntimeError("CUDA error: out of memory")
        return 1.0

    own = Bench(timer=FakeTimer(), state=dict)
    assert own.measure(lambda: Job(Call(run))).value == 1.0
    left[0] = 99
    skipped = own.measure(lambda: Job(Call(run)))
    assert skipped.status is Status.SKIPPED
    assert left[0] == 97  # the waits are used up


class Claims:
    """A compile pool that says of each configuration what it is told to say."""

    workers = 2

    def __init__(self, statuses):
        self._statuses = statuses

    def submit(self, spec):
        future = Future()
        future.set_result(CompileResult(status=self._statuses[spec], reason="the pool says so"))
        return future


@pytest.mark.parametrize("right", [True, False])
def test_a_pool_that_finds_no_binary_is_believed_once_it_was_right(right):
    made = []

    def make(candidate):
        made.append(candidate.config["i"])
        if right:
            raise RuntimeError("PassManager::run failed")
        return Job(fake(1.0))

    pool = Claims([Status.COMPILE_ERROR] * 3)
    measurer = TritonMeasurer(make, spec=lambda c: c.config["i"], pool=pool, timer=FakeTimer())
    results = list(measurer.measure(TASK, [Candidate({"i": i}) for i in range(3)]))
    assert [m.ok for _, m in results] == [not right] * 3
    assert made == ([0] if right else [0, 1, 2])


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


class SimulatedDevice:
    """A device with a clock: half its speed at idle, all of it after ``rise_s`` of work."""

    name = "events"

    def __init__(self, monkeypatch, *, rise_s=0.03, idle_s=0.1):
        self.now = self.work_s = 0.0
        self.last = -1e9
        self.rise_s, self.idle_s = rise_s, idle_s
        clock = types.SimpleNamespace(perf_counter=lambda: self.now, monotonic=lambda: self.now)
        monkeypatch.setattr(timing, "time", clock)
        monkeypatch.setattr(job_module, "time", clock)

    def sample(self, call, n):
        return [call.run() for _ in range(n)]

    def job(self, ms):
        return lambda: Job(Call(lambda: self.run(ms)))

    def run(self, ms):
        if self.now - self.last > self.idle_s:
            self.work_s = 0.0
        taken = ms * (2.0 if self.work_s < self.rise_s else 1.0)
        self.now += taken / 1e3
        self.work_s += taken / 1e3
        self.last = self.now
        return taken


@pytest.mark.parametrize("ms", [0.01, 0.2, 12.0])
@pytest.mark.parametrize("gap_s", [0.0, 0.3])
@pytest.mark.parametrize("rise_s", [0.0, 0.03])
def test_nothing_is_timed_before_the_clock_has_risen(monkeypatch, ms, gap_s, rise_s):
    device = SimulatedDevice(monkeypatch, rise_s=rise_s)
    own = Bench(timer=device, state=dict)
    for slower in (1.0, 1.3, 1.0, 1.02):
        assert own.measure(device.job(ms * slower)).value == pytest.approx(ms * slower)
        device.now += gap_s  # compiling


def test_benches_that_take_turns_warm_a_device_up_once(monkeypatch):
    spent = {}
    for busy in (None, Busy()):
        device = SimulatedDevice(monkeypatch)
        benches = [Bench(timer=device, state=dict, busy=busy) for _ in range(6)]
        began = device.now
        for bench in benches * 2:
            assert bench.measure(device.job(0.2)).value == pytest.approx(0.2)
        spent[busy is not None] = device.now - began
    assert spent[True] < spent[False] - 4 * BenchSettings().warm_s


def test_a_clock_that_rises_after_the_default_was_timed_does_not_make_others_win(monkeypatch):
    device = SimulatedDevice(monkeypatch, rise_s=2.0)  # longer than any warm-up
    own = Bench(timer=device, state=dict)
    default = own.measure(device.job(0.2))
    assert default.value == pytest.approx(0.4)
    while device.work_s < 2.0:
        device.run(1.0)
    slower, faster = own.measure(device.job(0.26)), own.measure(device.job(0.1))
    assert slower.state["beside_default"] is True
    assert slower.value == pytest.approx(1.3 * default.value)
    assert faster.value == pytest.approx(0.5 * default.value)


def test_a_timer_that_repeats_by_itself_is_asked_once_a_candidate():
    timer = FakeTimer()
    own = Bench(BenchSettings(max_samples=1, warm_s=None), timer=timer, state=dict)
    for value in (1.0, 0.9, 2.0):
        assert own.measure(lambda value=value: Job(fake(value))).value == value
    assert timer.samples == 3


def test_the_default_is_the_reference_also_where_another_is_compiled_first():
    torch = pytest.importorskip("torch")
    out = torch.zeros(4)

    class Pool:
        workers = 2

        def submit(self, spec):
            future = Future()
            result = CompileResult(status=Status.OK)
            threading.Timer(spec, lambda: future.set_result(result)).start()
            return future

    compile_s = {"default": 0.3, "wrong": 0.01, "right": 0.01}

    def make(candidate):
        value = 7.0 if candidate.config["name"] == "wrong" else 1.0
        return Job(
            Call(lambda: out.fill_(value)),
            outputs=lambda: {"out": out},
            prepare=lambda: out.fill_(float("nan")),
        )

    measurer = TritonMeasurer(
        make, spec=lambda c: compile_s[c.config["name"]], pool=Pool(), timer=WallTimer()
    )
    found = {
        c.config["name"]: m.status
        for c, m in measurer.measure(TASK, [Candidate({"name": name}) for name in compile_s])
    }
    assert next(iter(found)) == "default"
    assert found == {"default": "ok", "wrong": "wrong_result", "right": "ok"}
