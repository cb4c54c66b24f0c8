"""Runs a program with every ``triton.autotune`` in it measured in full and recorded.

Triton's ``Autotuner`` is patched for the time of the run, so that the kernels of the libraries
that the program imports count too. For every problem that a kernel meets (its key, and the shapes,
strides and dtypes of its tensors), all configurations that its ``early_config_prune`` leaves are
compiled in parallel and timed with hooks outside of the timed region; the program goes on with the
fastest. A model-based ``configs_top_k`` does not apply.

Without a device, what compiling says is recorded for a named target: launches do nothing then, so
that the program's tensors may be on the ``meta`` device.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autotune_rlm.devices import Target
from autotune_rlm.measure.errors import Fault, Owner, classify, failed, one_line, owner_of
from autotune_rlm.measure.statistics import StoppingRule
from autotune_rlm.measure.statistics.timing import Call, Timer, default_timer, measure_call
from autotune_rlm.measure.triton.capture import compile_here, compiled_arguments, describe_call
from autotune_rlm.measure.triton.compile import CompilePool, CompileResult
from autotune_rlm.measure.triton.layers import unwrap
from autotune_rlm.types import Candidate, Device, Measurement, Status

from ._progress import Progress
from ._units import of_compilation
from .log import RecordLog
from .recorder import TaskMaker

_FAILED = [float("inf")] * 3


@dataclass
class ProgramProgress(Progress):
    """How far the recording of a program is."""

    kernels_left_out: dict[str, str] = field(default_factory=dict)  # reason by kernel
    # Autotuned kernels of two configurations or more that were made, by imports too, and not called.
    never_met: list[str] = field(default_factory=list)


def record_program(
    script: str | os.PathLike[str],
    arguments: Sequence[str] = (),
    *,
    log: RecordLog,
    make_task: TaskMaker,
    device: Device,
    target: Target | None = None,
    workers: int | None = None,
    cache_dir: str | None = None,
    sample_ms: float = 10.0,
    seconds: float = 540.0,
    show: Callable[[Progress], None] = lambda progress: None,
) -> ProgramProgress:
    """Run ``script`` as ``__main__`` and record what its autotuned kernels do.

    Args:
        script: A Python file; it runs in this process with its rights.
        arguments: Its ``sys.argv[1:]``.
        log: Where to write; what it has is not measured again.
        make_task: Describes a launch as the tuner would.
        device: What the measurements are of.
        target: Record what compiling for this says, and launch nothing.
        workers: Compilers; None for one per core.
        cache_dir: Triton's cache folder for the compilers.
        sample_ms: Milliseconds of samples per configuration.
        seconds: After this nothing more is measured: kernels take the fastest configuration so far, or
            their first.
        show: Called after every configuration.

    Raises:
        Exception: What the script raises; what was measured before is in the log.
    """
    pool = CompilePool(workers, cache_dir=cache_dir)
    recording = _Recording(log, make_task, device, target, pool, sample_ms, seconds, show)
    argv, path = sys.argv[:], sys.path[:]
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(Path(script).resolve().parent))
    try:
        with pool, recording.patched(), _compiling_in(cache_dir):
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise RuntimeError(f"{script} exited with {end.code!r}") from None
    finally:
        sys.argv, sys.path = argv, path
        log.flush()
    recording.progress.never_met = recording.never_met()
    return recording.progress


@contextlib.contextmanager
def _compiling_in(cache_dir: str | None) -> Iterator[None]:
    """Triton's cache folder for what only this process can compile; None for the usual one."""
    from triton import knobs

    with knobs.cache.scope():
        if cache_dir is not None:
            knobs.cache.dir = cache_dir
        yield


@dataclass
class _Recording:
    log: RecordLog
    make_task: TaskMaker
    device: Device
    target: Target | None
    pool: CompilePool
    sample_ms: float
    seconds: float
    show: Callable[[Progress], None]

    def __post_init__(self) -> None:
        self.progress = ProgramProgress()
        self._began = time.monotonic()
        self._timer: Timer | None = None
        self._landscapes: dict[Any, str] = {}
        self._made: list[Any] = []
        self._chosen: dict[Any, dict[Any, Any]] = {}
        self._waiting: deque[tuple[Any, Any, dict[str, Any], tuple[str, str]]] = deque()
        self._compiling: dict[tuple[str, str], Future[CompileResult]] = {}
        self._kernels: set[str] = set()
        self._right: dict[Any, bool] = {}  # whether workers are right about a kernel

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        """Triton's autotuner records for as long as this lasts."""
        from triton.runtime.autotuner import Autotuner
        from triton.runtime.jit import JITFunction

        replaced = ("__init__", "run", "prune_configs", "_bench")
        own = {name: getattr(Autotuner, name) for name in replaced}
        launch = JITFunction.run

        def made(tuner: Any, *args: Any, **kwargs: Any) -> None:
            own["__init__"](tuner, *args, **kwargs)
            self._made.append(tuner)

        def run(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            tuner.cache_results = False
            known = self._choices(tuner, args, kwargs)
            if self.target is None:
                tuner.cache = known
                return own["run"](tuner, *args, **kwargs)
            if not known:
                known["met"] = True
                tuner.nargs = dict(zip(tuner.arg_names, args, strict=False))
                for config in prune(tuner, kwargs):
                    bench(tuner, *args, config=config, **kwargs)
            return None

        def prune(tuner: Any, kwargs: dict[str, Any]) -> list[Any]:
            model, tuner.perf_model = tuner.perf_model, None
            try:
                configs = list(own["prune_configs"](tuner, kwargs))
            except Exception:
                if self.target is None:
                    raise
                configs = list(tuner.configs)  # asks the device, and there is none
            finally:
                tuner.perf_model = model
            self._landscapes.pop(tuner, None)
            if self._over() or len(configs) < 2:
                return configs[:1]
            try:
                self._begin(tuner, configs, kwargs)
            except Exception as error:
                self._leave_out(_name(tuner), error)
                return configs[:1]
            return configs

        def bench(tuner: Any, *args: Any, config: Any, **meta: Any) -> list[float]:
            if tuner not in self._landscapes:
                return [0.0, 0.0, 0.0]
            return self._bench(tuner, args, config, meta)

        def launch_nothing(function: Any, *args: Any, **kwargs: Any) -> Any:
            return launch(function, *args, **kwargs) if kwargs.get("warmup") else None

        patches = {"__init__": made, "run": run, "prune_configs": prune, "_bench": bench}
        try:
            for name, method in patches.items():
                setattr(Autotuner, name, method)
            if self.target is not None:
                JITFunction.run = launch_nothing
            yield
        finally:
            for name, method in own.items():
                setattr(Autotuner, name, method)
            JITFunction.run = launch

    def never_met(self) -> list[str]:
        """Names of the autotuned kernels that were made and not called."""
        some = [tuner for tuner in self._made if len(tuner.configs) > 1]
        return sorted({_name(tuner) for tuner in some} - {_name(tuner) for tuner in self._chosen})

    def _over(self) -> bool:
        return time.monotonic() - self._began > self.seconds or self.log.full

    def _choices(
        self, tuner: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> dict[Any, Any]:
        """The autotuner's choices for tensors like these: its key alone may leave sizes out."""
        given = {**dict(zip(tuner.arg_names, args, strict=False)), **kwargs}
        tensors = [
            (name, tuple(value.shape), tuple(value.stride()), str(value.dtype))
            for name, value in given.items()
            if hasattr(value, "stride") and hasattr(value, "dtype")
        ]
        alike = (*tensors, *(repr(given.get(name)) for name in tuner.keys))
        return self._chosen.setdefault(tuner, {}).setdefault(alike, {})

    def _leave_out(self, kernel: str, error: Exception) -> None:
        self.progress.kernels_left_out[kernel] = one_line(f"{type(error).__name__}: {error}")

    def _begin(self, tuner: Any, configs: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Open the landscape of a problem and begin to compile its configurations."""
        arguments = {**tuner.nargs, **kwargs}
        names = sorted({name for config in configs for name in config.all_kwargs()})
        task = self.make_task(tuner.fn, arguments, self.device, names)
        if self.target is not None:
            task = replace(task, metric="compile_s")
        name = f"{task.kernel}/{task.key}/{self.device.name}"
        self.log.open_landscape(name, task)
        self._landscapes[tuner] = name
        self._kernels.add(task.kernel)
        self._waiting.clear()
        if hasattr(unwrap(tuner.fn), "cache_key"):  # not interpreted
            keyed = ((config, (name, _candidate(config).key)) for config in configs)
            todo = ((c, key) for c, key in keyed if key not in self.log.done)
            self._waiting.extend((tuner, config, arguments, key) for config, key in todo)
        self._compile_ahead()

    def _compile_ahead(self) -> None:
        """Begin to compile what is measured next, four configurations for each worker."""
        while self._waiting and len(self._compiling) < 4 * self.pool.workers:
            tuner, config, arguments, key = self._waiting.popleft()
            try:
                given, spec = _launched(tuner, config, arguments), None
                if given is not None:
                    spec = describe_call(tuner.fn, (), given, target=self.target)
            except Exception as error:  # the launch, if there is one, will say what is wrong
                self._leave_out(_name(tuner), error)
                continue
            if spec is not None:
                self._compiling[key] = self.pool.submit(spec)

    def _bench(
        self, tuner: Any, args: Sequence[Any], config: Any, meta: Mapping[str, Any]
    ) -> list[float]:
        name = self._landscapes[tuner]
        candidate = _candidate(config)
        if (name, candidate.key) in self.log.done:
            value = self.log.done[name, candidate.key]
            return _FAILED if value is None else [value] * 3
        future = self._compiling.pop((name, candidate.key), None)
        if self._over():
            return _FAILED
        self._compile_ahead()
        compiled = future.result() if future is not None else None
        self.progress.binaries += compiled is not None
        began = time.perf_counter()
        if self.target is None:
            measurement = self._measure(tuner, args, config, meta, compiled)
            self.progress.busy_s += time.perf_counter() - began
        else:
            if compiled is None or compiled.status is Status.SKIPPED:  # no worker can load it
                compiled = self._compiled_here(tuner, config, meta)
            measurement = of_compilation(compiled, True)
        if measurement.status is Status.SKIPPED:
            self.progress.kernels_left_out.setdefault(name.split("/")[0], measurement.reason)
        else:
            self.log.add(name, candidate, measurement)
            self._count(measurement)
        if measurement.value is None:
            return _FAILED
        return [measurement.value, measurement.low or 0.0, measurement.high or 0.0]

    def _measure(
        self,
        tuner: Any,
        args: Sequence[Any],
        config: Any,
        meta: Mapping[str, Any],
        compiled: CompileResult | None,
    ) -> Measurement:
        facts = dict(compiled.facts) if compiled else {}
        compile_s = compiled.compile_s if compiled else None
        if compiled is not None and compiled.status.is_failure and self._believes(tuner, compiled):
            fault = Fault(compiled.status, compiled.reason)
            return failed(fault, facts=facts, compile_s=compile_s)
        current = {**meta, **config.all_kwargs()}
        everything = {**tuner.nargs, **current}

        def before() -> None:
            if config.pre_hook:
                config.pre_hook(everything)
            tuner.pre_hook(everything)

        call = Call(
            run=lambda: tuner.fn.run(*args, **current),
            setup=before,
            teardown=lambda error: tuner.post_hook(everything, exception=error),
        )
        self._timer = self._timer or default_timer()
        began = time.perf_counter()
        try:
            timing = measure_call(
                call,
                timer=self._timer,
                rule=StoppingRule(min_samples=8, max_samples=100),
                budget_s=self.sample_ms / 1e3,
            )
        except Exception as error:
            fault = classify(error, stage="call")
            if fault.poisoned or fault.owner is Owner.CALLER:
                self.log.flush()
                raise
            if fault.owner is Owner.BINARY:
                self._right.setdefault(tuner, True)
            return failed(fault, facts=facts, compile_s=compile_s)
        if compiled is not None:
            self._right.setdefault(tuner, compiled.ok)
        cost_s = time.perf_counter() - began + (compile_s or 0.0)
        return timing.to_measurement(facts=facts, compile_s=compile_s, cost_s=cost_s)

    def _believes(self, tuner: Any, compiled: CompileResult) -> bool:
        """Whether a worker's failure counts: once the workers were right about this kernel."""
        return owner_of(compiled.status) is not Owner.BINARY or self._right.get(tuner, False)

    def _compiled_here(self, tuner: Any, config: Any, meta: Mapping[str, Any]) -> CompileResult:
        try:
            given = _launched(tuner, config, {**tuner.nargs, **meta})
        except Exception as error:
            reason = one_line(f"{type(error).__name__}: {error}")
            return CompileResult(status=Status.SKIPPED, reason=reason)
        if given is None:
            reason = "its pre_hook needs the tensors themselves"
            return CompileResult(status=Status.SKIPPED, reason=reason)
        return compile_here(tuner.fn, given, target=self.target)

    def _count(self, measurement: Measurement) -> None:
        progress = self.progress
        progress.count(measurement)
        progress.kernels = len(self._kernels)
        progress.elapsed_s = time.monotonic() - self._began
        progress.bytes = self.log.size
        self.show(progress)


def _launched(tuner: Any, config: Any, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """The kernel's own arguments with ``config``; None where only a launch knows them."""
    return compiled_arguments(tuner.fn, config.pre_hook, {**arguments, **config.all_kwargs()})


def _name(tuner: Any) -> str:
    return str(getattr(tuner.base_fn, "__name__", tuner.base_fn))


def _candidate(config: Any) -> Candidate:
    plain = (bool, int, float, str, type(None))
    given = {k: v for k, v in config.all_kwargs().items() if v is not None}
    if given.get("num_ctas") == 1:
        del given["num_ctas"]
    return Candidate({k: v if isinstance(v, plain) else str(v) for k, v in given.items()})
