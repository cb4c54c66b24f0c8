"""Runs a program with every ``triton.autotune`` in it measured in full and recorded.

Triton's ``Autotuner`` is patched for the time of the run, so that the kernels of the libraries
that the program imports count too. For every key that a kernel meets, all configurations that its
``early_config_prune`` leaves are compiled in parallel, then timed with hooks outside of the timed
region; the program goes on with the fastest. A model-based ``configs_top_k`` does not apply.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...types import Candidate, Device, Measurement, Status
from ..capture import describe_call
from ..compile import CompilePool, CompileResult
from ..errors import classify
from ..statistics import StoppingRule
from ..timing import Call, Timer, default_timer, measure_call
from .log import RecordLog
from .recorder import Progress, TaskMaker

__all__ = ["record_program"]

_FAILED = [float("inf")] * 3


def record_program(
    script: str | os.PathLike[str],
    arguments: Sequence[str] = (),
    *,
    log: RecordLog,
    make_task: TaskMaker,
    device: Device,
    workers: int | None = None,
    sample_ms: float = 10.0,
    seconds: float = 540.0,
    show: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Run ``script`` as ``__main__`` and record what its autotuned kernels do.

    Args:
        script: A Python file; it runs in this process with its rights.
        arguments: Its ``sys.argv[1:]``.
        log: Where to write; what it has is not measured again.
        make_task: Describes a launch as the tuner would.
        device: What the measurements are of.
        workers: Compilers; None for one per core.
        sample_ms: Milliseconds of samples per configuration.
        seconds: After this nothing more is measured: kernels take their first configuration.
        show: Called after every configuration.

    Raises:
        Exception: What the script raises; what was measured before is in the log.
    """
    recording = _Recording(log, make_task, device, sample_ms, seconds, show)
    argv, path = sys.argv[:], sys.path[:]
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(Path(script).resolve().parent))
    try:
        with CompilePool(workers) as recording.pool, recording.patched():
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise RuntimeError(f"{script} exited with {end.code!r}") from None
    finally:
        sys.argv, sys.path = argv, path
        log.flush()
    return recording.progress


class _Recording:
    def __init__(
        self,
        log: RecordLog,
        make_task: TaskMaker,
        device: Device,
        sample_ms: float,
        seconds: float,
        show: Callable[[Progress], None],
    ) -> None:
        self.pool: CompilePool | None = None
        self.progress = Progress(status={})
        self._log = log
        self._make_task = make_task
        self._device = device
        self._budget_s = sample_ms / 1e3
        self._began = time.monotonic()
        self._seconds = seconds
        self._show = show
        self._timer: Timer | None = None
        self._landscapes: dict[int, str] = {}
        self._compiled: dict[tuple[int, str], CompileResult] = {}
        self._kernels: set[str] = set()

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        """Triton's autotuner records for as long as this lasts."""
        from triton.runtime.autotuner import Autotuner

        methods = {name: getattr(Autotuner, name) for name in ("run", "prune_configs", "_bench")}

        def run(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            tuner.cache_results = False
            return methods["run"](tuner, *args, **kwargs)

        def prune(tuner: Any, kwargs: dict[str, Any]) -> list[Any]:
            model, tuner.perf_model = tuner.perf_model, None
            try:
                configs = list(methods["prune_configs"](tuner, kwargs))
            finally:
                tuner.perf_model = model
            if self._over() or len(configs) < 2:
                self._landscapes.pop(id(tuner), None)
                return configs[:1]
            self._begin(tuner, configs, kwargs)
            return configs

        def bench(tuner: Any, *args: Any, config: Any, **meta: Any) -> list[float]:
            if id(tuner) not in self._landscapes:
                return [0.0, 0.0, 0.0]
            return self._bench(tuner, args, config, meta)

        patches = {"run": run, "prune_configs": prune, "_bench": bench}
        for name, method in patches.items():
            setattr(Autotuner, name, method)
        try:
            yield
        finally:
            for name, method in methods.items():
                setattr(Autotuner, name, method)

    def _over(self) -> bool:
        return time.monotonic() - self._began > self._seconds or self._log.full

    def _begin(self, tuner: Any, configs: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Open the landscape of a key and compile its configurations."""
        arguments = {**tuner.nargs, **kwargs}
        names = sorted({name for config in configs for name in config.all_kwargs()})
        task = self._make_task(tuner.fn, arguments, self._device, names)
        name = f"{task.kernel}/{task.key}/{self._device.name}"
        self._log.open_landscape(name, task)
        self._landscapes[id(tuner)] = name
        self._kernels.add(task.kernel)
        if self.pool is None or _interpreted(tuner.fn):
            return
        left = [c for c in configs if (name, _candidate(c).key) not in self._log.done]
        futures = {}
        for config in left:
            with contextlib.suppress(Exception):  # the launch will say what is wrong
                given = {**arguments, **config.all_kwargs()}
                given = {k: v for k, v in given.items() if k not in ("grid", "warmup")}
                spec = describe_call(tuner.fn, (), given)
                if spec is not None:
                    futures[_candidate(config).key] = self.pool.submit(spec)
        for key, future in futures.items():
            self._compiled[id(tuner), key] = future.result()
            self.progress.binaries += 1

    def _bench(
        self, tuner: Any, args: Sequence[Any], config: Any, meta: Mapping[str, Any]
    ) -> list[float]:
        name = self._landscapes[id(tuner)]
        candidate = _candidate(config)
        if (name, candidate.key) in self._log.done:
            value = self._log.done[name, candidate.key]
            return _FAILED if value is None else [value] * 3
        compiled = self._compiled.pop((id(tuner), candidate.key), None)
        began = time.perf_counter()
        measurement = self._measure(tuner, args, config, meta, compiled)
        self.progress.busy_s += time.perf_counter() - began
        if measurement.status is not Status.SKIPPED:
            self._log.add(name, candidate, measurement)
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
        if compiled is not None and compiled.status.is_failure:
            return Measurement(
                status=compiled.status, reason=compiled.reason, facts=facts, compile_s=compile_s
            )
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
                budget_s=self._budget_s,
            )
        except Exception as error:
            fault = classify(error)
            if fault.poisoned:
                self._log.flush()
                raise
            return Measurement(
                status=fault.status, reason=fault.reason, facts=facts, compile_s=compile_s
            )
        cost_s = time.perf_counter() - began
        return timing.to_measurement(facts=facts, compile_s=compile_s, cost_s=cost_s)

    def _count(self, measurement: Measurement) -> None:
        progress = self.progress
        progress.points += 1
        progress.ok += measurement.ok
        assert progress.status is not None
        count = progress.status.get(measurement.status.value, 0)
        progress.status[measurement.status.value] = count + 1
        progress.kernels = len(self._kernels)
        progress.elapsed_s = time.monotonic() - self._began
        progress.bytes = self._log.size
        self._show(progress)


def _candidate(config: Any) -> Candidate:
    plain = (bool, int, float, str, type(None))
    given = {k: v for k, v in config.all_kwargs().items() if v is not None}
    if given.get("num_ctas") == 1:
        del given["num_ctas"]
    return Candidate({k: v if isinstance(v, plain) else str(v) for k, v in given.items()})


def _interpreted(kernel: Any) -> bool:
    while hasattr(kernel, "fn"):
        if type(kernel).__name__ == "InterpretedFunction":
            return True
        kernel = kernel.fn
    return False
