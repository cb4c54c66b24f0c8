"""Timers for accelerators: the device's own events, and replays of CUDA graphs.

An event is a time stamp that the device takes when it comes to it in its queue. The time between two
of them is a kernel's own only if the kernel was in the queue already when the device came to the
first: else the device stands idle in between, and what is timed is the launch on the CPU. A launch
from Python takes 10 to 100 us; short kernels and the flush of a fast memory's cache take less. So
the device pauses before each run for as long as the CPU needs to queue it, and each run is checked:
where its first event has passed when its launch returns, it came too late.
"""

from __future__ import annotations

import contextlib
import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from .timing import Call

_GRAPHS_KEPT = 4
_QUEUED = 64  # runs; a device's queue holds about a thousand launches before it makes them wait
_FIRST_GUESS_MS = 0.1
_MARGIN = 1.5
_MAX_PAUSE_MS = 10.0
_TRIES = 4


class EventTimer:
    """Events of a CUDA, HIP or XPU device, with its last-level cache flushed before each run.

    Runs that came too late are repeated behind a longer pause. Where that does not help, since the
    call waits for the device itself or takes long to launch, they are taken as they are.

    Args:
        device: torch device; None for the current accelerator.
        flush: Whether to flush the cache. Without, a run finds what the last one left there.

    Attributes:
        launch_bound: Whether the times of the last ``sample`` hold time on the CPU.
    """

    name = "events"

    def __init__(self, device: Any = None, *, flush: bool = True) -> None:
        import torch

        self._device = torch.device(device) if device is not None else accelerator()
        self._module = torch.get_device_module(self._device)
        self._flush = flush
        self._launch_ms = _FIRST_GUESS_MS
        self._given_up: Call | None = None
        self.launch_bound = False

    def sample(self, call: Call, n: int) -> list[float]:
        """See ``Timer``."""
        times: list[float] = []
        self.launch_bound = False
        filler = _Filler(self._module, self._device)
        fruitless = 0
        while len(times) < n:
            wanted = min(_QUEUED, n - len(times))
            pause_ms = min(_MARGIN * 2**fruitless * self._launch_ms, _MAX_PAUSE_MS)
            in_time, late = self._batch(call, wanted, filler, pause_ms)
            fruitless = fruitless + 1 if len(in_time) <= wanted // 2 else 0
            if fruitless == _TRIES:
                self._given_up = call
            times += in_time
            if late and self._given_up is call:
                self.launch_bound = True
                times += late
        return times

    def _batch(
        self, call: Call, runs: int, filler: _Filler, pause_ms: float
    ) -> tuple[list[float], list[float]]:
        """Milliseconds of the runs that were in time, and of those that were late."""
        event = self._module.Event
        pairs = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(runs)]
        late: list[bool] = []
        launches: list[float] = []
        for begin, end in pairs:

            def timed(begin: Any = begin, end: Any = end) -> None:
                filler.pause(pause_ms)
                started = time.perf_counter()
                if self._flush:
                    filler.flush()
                begin.record()
                call.run()
                late.append(begin.query())
                end.record()
                launches.append(time.perf_counter() - started)

            call.around(timed)
        self._module.synchronize(self._device)
        self._launch_ms = 1e3 * statistics.median(launches)
        found: tuple[list[float], list[float]] = ([], [])
        for (begin, end), was_late in zip(pairs, late, strict=True):
            found[was_late].append(begin.elapsed_time(end))
        return found


class _Filler:
    """Work for the device that has no effect: a pause of a given length, a flush of its cache.

    Where torch has no ``_sleep`` for a device (XPU), flushes fill the pause.
    """

    def __init__(self, module: Any, device: Any) -> None:
        self._sleep = getattr(module, "_sleep", None)
        self._buffer = _buffer(module, device)
        self._speed = _speed(module, device)

    def pause(self, ms: float) -> None:
        """Queue about ``ms`` milliseconds of nothing."""
        if self._sleep is not None:
            self._sleep(int(ms * self._speed))
            return
        for _ in range(math.ceil(ms * self._speed)):
            self.flush()

    def flush(self) -> None:
        """Queue a write of twice the cache's size."""
        if self._buffer is not None:
            self._buffer.zero_()


_MIB = 2**20
_MIN_FLUSH = 32 * _MIB
_UNKNOWN_CACHE = 64 * _MIB
_MEMORY_SIDE_MIB: Mapping[str, int] = {
    **{"gfx942": 256, "gfx950": 256},
    **{"gfx1030": 128, "gfx1031": 96, "gfx1032": 32, "gfx1034": 16},
    **{"gfx1100": 96, "gfx1101": 64, "gfx1102": 32, "gfx1151": 32, "gfx1200": 32, "gfx1201": 64},
}
"""AMD's Infinity Cache, which lies behind the L2 cache that the driver tells of (data sheets)."""
_NO_MEMORY_SIDE = ("gfx900", "gfx906", "gfx908", "gfx90a")
_WARM_S = 0.05


def last_level_bytes(properties: Any) -> int:
    """Bytes of the last-level cache of a device with torch's ``properties``; a guess where unknown."""
    cache = int(getattr(properties, "L2_cache_size", 0) or 0)
    arch = str(getattr(properties, "gcnArchName", "") or "").partition(":")[0]
    if arch and arch not in _NO_MEMORY_SIDE:
        cache = max(cache, _MEMORY_SIDE_MIB.get(arch, 256) * _MIB)
    return cache or _UNKNOWN_CACHE


def _buffer(module: Any, device: Any) -> Any:
    """Memory of twice the cache's size, or less on a device that is almost full; None on a full one."""
    import torch

    size = max(2 * last_level_bytes(module.get_device_properties(device)), _MIN_FLUSH)
    while size >= _MIN_FLUSH // 8:
        with contextlib.suppress(torch.OutOfMemoryError):
            return torch.empty(size // 4, dtype=torch.int32, device=device)
        size //= 2
    return None


@functools.lru_cache(maxsize=16)
def _speed(module: Any, device: Any) -> float:
    """Cycles of ``_sleep``, or where there is none flushes, in a millisecond.

    What counts the cycles differs: the clock of the multiprocessors, or on RDNA a slower one that never
    changes. So they are timed, once the device has been busy for as long as its clock takes to rise.
    """
    sleep = getattr(module, "_sleep", None)
    if sleep is not None:
        return 1_000_000 / _elapsed(module, device, lambda: sleep(1_000_000))
    buffer = _buffer(module, device)
    return 0.0 if buffer is None else 1 / _elapsed(module, device, buffer.zero_)


def _elapsed(module: Any, device: Any, work: Callable[[], Any]) -> float:
    """Milliseconds of ``work`` on a warm device, the shortest of three times; above zero."""
    started = time.perf_counter()
    while True:
        work()
        module.synchronize(device)
        if time.perf_counter() - started >= _WARM_S:
            break
    times = []
    for _ in range(3):
        begin, end = (module.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        module.synchronize(device)
        times.append(begin.elapsed_time(end))
    return max(min(times), 1e-3)


class GraphTimer:
    """Replays of a CUDA graph that holds many runs: for kernels shorter than a launch.

    The caches stay warm, and the call can have neither setup nor teardown (they would be timed).

    Args:
        device: torch device; None for the current one.
        replay_ms: Runs are put into one graph until it takes about this long.
    """

    name = "graph"

    def __init__(self, device: Any = None, *, replay_ms: float = 0.5) -> None:
        import torch

        self._device = torch.device(device) if device is not None else accelerator()
        self._replay_ms = replay_ms
        self._events = EventTimer(self._device, flush=False)
        self._graphs: dict[int, tuple[Call, Any, int]] = {}

    def sample(self, call: Call, n: int) -> list[float]:
        """See ``Timer``; each time is that of one replay divided by the number of runs in it."""
        if call.setup is not None or call.teardown is not None:
            raise ValueError(
                "GraphTimer cannot leave setup and teardown out of its graph; use EventTimer"
            )
        if id(call) not in self._graphs:
            if len(self._graphs) >= _GRAPHS_KEPT:
                self._graphs.pop(next(iter(self._graphs)))
            self._graphs[id(call)] = (call, *self._capture(call))
        _, graph, runs = self._graphs[id(call)]
        return [t / runs for t in self._events.sample(Call(graph.replay), n)]

    def _capture(self, call: Call) -> tuple[Any, int]:
        import torch

        torch.cuda.synchronize(self._device)
        with torch.cuda.stream(torch.cuda.Stream(self._device)):
            call.run()
            once = min(self._events.sample(call, 3))
            runs = max(1, min(200, round(self._replay_ms / max(once, 1e-3))))
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(runs):
                    call.run()
        torch.cuda.synchronize(self._device)
        return graph, runs


def accelerator() -> Any:
    """The current accelerator as a torch device; None where there is none."""
    import torch

    if not torch.accelerator.is_available():
        return None
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return torch.device(kind.type, torch.accelerator.current_device_index())
