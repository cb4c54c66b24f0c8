"""Runs in the process that owns the device: makes arguments once, then checks and times units."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch

from autotune_rlm.measure.detect import device_state
from autotune_rlm.measure.errors import Fault, classify, failed
from autotune_rlm.measure.interpreter import interpreting
from autotune_rlm.measure.statistics.timing import Call, Timer, default_timer
from autotune_rlm.measure.triton.compile import CompileResult
from autotune_rlm.measure.triton.job import Bench, BenchSettings, Busy, Job
from autotune_rlm.types import Measurement, Status

from .suite import SuiteKernel, load_suite

_KEPT_STATE = ("clock_mhz", "temperature_c", "power_w", "throttled")


@dataclasses.dataclass
class _Ready:
    """A problem with its arguments on the device."""

    args: dict[str, Any]
    expected: dict[str, Any] | None
    bench: Bench
    size: int


class _Device:
    """Everything that stays between requests."""

    def __init__(self, init: Mapping[str, Any]) -> None:
        self.kernels = load_suite(init["suite"])
        self.small = bool(init["small"])
        self.seed = int(init["seed"])
        self.verify = bool(init["verify"])
        self.settings = BenchSettings(**init["settings"])
        self.timer: Timer = default_timer()
        self.busy = Busy()
        self.device = "cpu"
        self.limit = 4 * 2**30
        if not interpreting() and torch.accelerator.is_available():
            kind = torch.accelerator.current_accelerator()
            assert kind is not None
            self.device = kind.type
            free, _ = torch.get_device_module(kind.type).mem_get_info()
            self.limit = int(free * 0.6)
        self.ready: OrderedDict[tuple[str, int], _Ready] = OrderedDict()

    def problem(self, kernel: SuiteKernel, index: int) -> _Ready:
        """The arguments of a problem; where there is no room, the one used last gives way.

        Problems come round in turn, so that the one used last is the last to be needed again.
        """
        key = (kernel.name, index)
        if key in self.ready:
            self.ready.move_to_end(key)
            return self.ready[key]
        while self.ready and sum(r.size for r in self.ready.values()) > self.limit:
            self.ready.popitem(last=True)
            gc.collect()
        problem = (kernel.small if self.small else kernel.problems)[index]
        generator = torch.Generator(device=self.device).manual_seed(self.seed + index)
        args = kernel.make_args(problem, self.device, generator)
        expected = kernel.reference(args) if self.verify else None
        tensors = [*args.values(), *(expected or {}).values()]
        size = sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
        bench = Bench(self.settings, timer=self.timer, state=dict, busy=self.busy)
        self.ready[key] = _Ready(args, expected, bench, size)
        return self.ready[key]


_init: dict[str, Any] = {}
_device: _Device | None = None


def setup(init: Mapping[str, Any]) -> None:
    """Keep what to load; it is loaded at the first request, whose failure can be reported."""
    _init.update(init)


def serve(request: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one ``config`` on some ``problems`` (indices) of a ``kernel``.

    ``measurements`` are one per problem; ``poisoned``: this process can measure nothing any more.
    """
    global _device
    if _device is None:
        _device = _Device(_init)
    kernel = _device.kernels[request["kernel"]]
    compiled = CompileResult(**request["compiled"]) if request["compiled"] else None
    measured, busy_s, poisoned = [], 0.0, False
    for index in request["problems"]:
        if poisoned:
            break
        began = time.perf_counter()
        measurement, busy, poisoned = _measure(kernel, index, dict(request["config"]), compiled)
        cost_s = time.perf_counter() - began + (measurement.compile_s or 0.0)
        state = {k: v for k, v in device_state().items() if k in _KEPT_STATE}
        measurement = dataclasses.replace(
            measurement, cost_s=cost_s, state={**state, **measurement.state}
        )
        measured.append(measurement.to_json())
        busy_s += busy
    return {"measurements": measured, "busy_s": busy_s, "poisoned": poisoned}


def _measure(
    kernel: SuiteKernel, index: int, config: dict[str, Any], compiled: CompileResult | None
) -> tuple[Measurement, float, bool]:
    assert _device is not None
    told: dict[str, Any] = {}
    if compiled:
        told = {"compile_s": compiled.compile_s, "facts": dict(compiled.facts)}
    try:
        ready = _device.problem(kernel, index)
        args, problem = ready.args, (kernel.small if _device.small else kernel.problems)[index]
        began = time.perf_counter()
        run = _launcher(kernel, args, config)
        clear = (lambda: kernel.clear(args)) if kernel.reset else None
        if ready.expected is not None:
            _scribble(args, ready.expected)
            call = Call(run, setup=clear)
            _device.timer.sample(call, 1)
            wrong = kernel.check(args, ready.expected, problem)
            if wrong:
                measurement = failed(Fault(Status.WRONG_RESULT, wrong), **told)
                return measurement, time.perf_counter() - began, False
        job = Job(call=Call(run, setup=clear), grid=kernel.grid({**args, **config}))
        measurement = ready.bench.measure(lambda: job, compiled)
        return measurement, time.perf_counter() - began, bool(ready.bench.poison)
    except Exception as error:
        fault = classify(error, stage="run")
        return failed(fault, **told), 0.0, fault.poisoned


def _scribble(args: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Make the outputs wrong, so that an earlier launch's cannot pass for this one's."""
    for name in expected:
        args[name].view(torch.uint8).fill_(0xAB)


def _launcher(
    kernel: SuiteKernel, args: Mapping[str, Any], config: Mapping[str, Any]
) -> Callable[[], Any]:
    """Launches with as little Python as the installed Triton allows.

    The dispatch of ``kernel[grid]`` costs tens of microseconds, longer than small kernels run; the
    compiled kernel's own launcher costs a few.
    """
    plain = kernel.fn[kernel.grid({**args, **config})]
    named = {**args, **config}
    if interpreting():
        return lambda: plain(**named)
    kernel.clear(args)
    compiled = plain(**named)
    grid = (*kernel.grid(named), 1, 1)[:3]
    values = [named[name] for name in kernel.fn.arg_names]
    try:
        fast = compiled[grid]
        kernel.clear(args)
        fast(*values)
    except (TypeError, AttributeError):
        return lambda: plain(**named)
    return lambda: fast(*values)
