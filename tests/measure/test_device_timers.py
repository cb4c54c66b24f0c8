"""Event timers on a device whose clock, queue and launch costs are simulated, and on a real one."""

import types

import pytest
import torch

from autotune_rlm.measure.statistics import device_timers
from autotune_rlm.measure.statistics.device_timers import EventTimer, GraphTimer
from autotune_rlm.measure.statistics.timing import Call, measure_call

CYCLES_PER_MS = 1_500_000


class FakeDevice:
    """A queue that is worked off on a clock of its own, while launching takes time on the CPU's.

    It is the torch module of the device too, as far as the timers use it.
    """

    def __init__(self, *, can_sleep=True, flush_ms=0.025, launch_ms=0.004):
        self.now = 0.0  # of the CPU
        self.free_at = 0.0  # when the device has worked off its queue
        self.flush_ms, self.launch_ms = flush_ms, launch_ms
        self.flushes = self.slept_ms = 0
        device = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                device.now += 0.001
                self.at = max(device.now, device.free_at)

            def query(self):
                device.now += 0.001
                return device.now >= self.at

            def elapsed_time(self, end):
                assert max(self.at, end.at) <= device.now, "not synchronised"
                return end.at - self.at

        self.Event = Event
        if can_sleep:
            self._sleep = self.sleep

    def launch(self, busy_ms, *, cost_ms=None):
        self.now += self.launch_ms if cost_ms is None else cost_ms
        self.free_at = max(self.now, self.free_at) + busy_ms

    def sleep(self, cycles):
        self.slept_ms += cycles / CYCLES_PER_MS
        self.launch(cycles / CYCLES_PER_MS)

    def synchronize(self, device=None):
        self.now = max(self.now, self.free_at)

    def get_device_properties(self, device):
        return types.SimpleNamespace(L2_cache_size=2**20)

    def zero_(self):
        self.flushes += 1
        self.launch(self.flush_ms)


@pytest.fixture
def simulate(monkeypatch):
    def make(**options):
        device = FakeDevice(**options)
        monkeypatch.setattr(torch, "get_device_module", lambda _: device)
        monkeypatch.setattr(torch, "empty", lambda *a, **k: device)
        clock = types.SimpleNamespace(perf_counter=lambda: device.now / 1e3)
        monkeypatch.setattr(device_timers, "time", clock)
        return device, EventTimer("cuda")

    return make


@pytest.mark.parametrize("can_sleep", [True, False])
@pytest.mark.parametrize("cost_ms", [0.005, 0.06, 0.4])
@pytest.mark.parametrize("busy_ms", [0.002, 0.05, 3.0])
def test_a_kernel_shorter_than_its_launch_is_timed_without_it(
    simulate, can_sleep, cost_ms, busy_ms
):
    device, timer = simulate(can_sleep=can_sleep)
    call = Call(lambda: device.launch(busy_ms, cost_ms=cost_ms))
    for n in (1, 7, 200):
        assert timer.sample(call, n) == pytest.approx([busy_ms] * n)
        assert not timer.launch_bound
    assert device.flushes >= 208


def test_a_launch_that_takes_longer_at_times_is_repeated(simulate):
    device, timer = simulate()
    costs = iter([2.0] + [0.03, 0.03, 0.5, 0.03] * 200)  # the first one compiles
    call = Call(lambda: device.launch(0.01, cost_ms=next(costs)))
    assert timer.sample(call, 1) + timer.sample(call, 100) == pytest.approx([0.01] * 101)


def test_hooks_that_wait_for_the_device_do_not_spoil_the_times(simulate):
    device, timer = simulate()
    call = Call(
        lambda: device.launch(0.01, cost_ms=0.06),
        setup=device.synchronize,
        teardown=lambda error: device.synchronize(),
    )
    assert timer.sample(call, 20) == pytest.approx([0.01] * 20)


def test_a_call_that_waits_for_the_device_is_launch_bound_and_ends(simulate):
    device, timer = simulate()

    def run():
        device.launch(0.01, cost_ms=0.06)
        device.synchronize()

    runs = []
    waits = Call(lambda: (runs.append(1), run()))
    timing = measure_call(waits, timer=timer, budget_s=0.005)
    assert timing.launch_bound
    assert timing.to_measurement().state["launch_bound"] is True
    assert len(runs) <= len(timing.samples) + 5
    quick = measure_call(Call(lambda: device.launch(0.01)), timer=timer, budget_s=0.005)
    assert not quick.launch_bound
    assert "launch_bound" not in quick.to_measurement().state


def test_pauses_are_as_long_as_launches(simulate):
    device, timer = simulate()
    call = Call(lambda: device.launch(1.0, cost_ms=0.02))
    timer.sample(call, 1)
    before = device.slept_ms
    timer.sample(call, 100)
    assert 0.02 < (device.slept_ms - before) / 100 < 0.08


def test_without_a_flush_nothing_is_written(simulate):
    device, _ = simulate()
    timer = EventTimer("cuda", flush=False)
    call = Call(lambda: device.launch(0.5))
    assert timer.sample(call, 5) == pytest.approx([0.5] * 5)
    assert device.flushes == 0


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA or AMD GPU")


@pytest.mark.gpu
@needs_cuda
def test_launch_cost_does_not_count_on_a_gpu():
    import time

    x = torch.zeros(1024, device="cuda")

    def slow_launch():
        until = time.perf_counter() + 200e-6
        while time.perf_counter() < until:
            pass
        x.add_(1)

    timer = EventTimer()
    quick = measure_call(Call(lambda: x.add_(1)), timer=timer)
    slow = measure_call(Call(slow_launch), timer=timer)
    assert not slow.launch_bound
    assert slow.interval.median < quick.interval.median + 0.01
    unpaused = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    unpaused[0].record()
    slow_launch()
    unpaused[1].record()
    torch.cuda.synchronize()
    assert unpaused[0].elapsed_time(unpaused[1]) > 0.15


@pytest.mark.gpu
@needs_cuda
def test_a_call_that_waits_is_launch_bound_on_a_gpu():
    x = torch.zeros(1024, device="cuda")
    timing = measure_call(Call(lambda: x.add_(1).sum().item()), timer=EventTimer())
    assert timing.launch_bound


@pytest.mark.gpu
@needs_cuda
def test_events_and_graphs_agree_on_a_gpu():
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)
    call = Call(lambda: a @ a)
    events = measure_call(call, timer=EventTimer())
    graph = measure_call(call, timer=GraphTimer())
    assert graph.interval.median == pytest.approx(events.interval.median, rel=0.5)
    with pytest.raises(ValueError, match="setup"):
        GraphTimer().sample(Call(lambda: None, setup=lambda: None), 1)


@pytest.mark.parametrize(
    ("arch", "l2_mib", "mib"),
    [
        ("", 50, 50),  # H100
        ("", 0, 64),  # unknown
        ("gfx942:sramecc+:xnack-", 4, 256),  # MI300X: L2 of one die, Infinity Cache of the whole
        ("gfx90a", 8, 8),  # MI250X has none
        ("gfx1100", 6, 96),
        ("gfx9999", 4, 256),
    ],
)
def test_the_last_level_cache_is_flushed_whole(arch, l2_mib, mib):
    properties = types.SimpleNamespace(L2_cache_size=l2_mib * 2**20, gcnArchName=arch)
    assert device_timers.last_level_bytes(properties) == mib * 2**20


def test_a_full_device_flushes_less_and_fails_nothing(simulate, monkeypatch):
    device, _ = simulate()
    asked = []

    def empty(size, **_):
        asked.append(size)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "empty", empty)
    timer = EventTimer("cuda")
    assert timer.sample(Call(lambda: device.launch(0.01)), 3) == pytest.approx([0.01] * 3)
    assert asked[0] > asked[1]
    assert device.flushes == 0


@pytest.mark.parametrize("cycles_per_ms", [100_000, 2_400_000])
def test_a_pause_lasts_as_long_whatever_counts_its_cycles(simulate, monkeypatch, cycles_per_ms):
    device, timer = simulate()
    monkeypatch.setattr(
        device, "_sleep", lambda cycles: device.launch(cycles / cycles_per_ms), raising=False
    )
    device_timers._speed.cache_clear()
    before = device.now
    timer.sample(Call(lambda: device.launch(0.01, cost_ms=0.02)), 1)
    begun = device.now
    timer.sample(Call(lambda: device.launch(0.01, cost_ms=0.02)), 100)
    assert begun > before
    assert (device.now - begun) / 100 < 0.3
    assert device_timers._speed(device, timer._device) == pytest.approx(cycles_per_ms, rel=0.01)
