"""Records a suite: on the device at hand, on Triton's interpreter, or what compilation tells.

Compilers run on all cores while the device measures; whatever is compiled first is measured next,
so the device waits only where every compiler is behind. The device belongs to a process of its own
that may die.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autotune_rlm.ir import Launch, NotRead, Reader, as_grid, target_of
from autotune_rlm.measure.detect import device_state, versions
from autotune_rlm.measure.errors import one_line
from autotune_rlm.measure.triton.ahead import ahead
from autotune_rlm.measure.triton.capture import describe_call
from autotune_rlm.measure.triton.compile import (
    CompilePool,
    CompileResult,
    CompileSpec,
    Target,
    parse_target,
)
from autotune_rlm.measure.triton.job import BenchSettings
from autotune_rlm.measure.workers.process import WorkerFailure, WorkerProcess
from autotune_rlm.types import Candidate, Device, Measurement, Status, Task

from .log import RecordLog
from .plan import Unit, round_robin
from .suite import SuiteKernel, binary_class, find_suite, load_suite

__all__ = ["Progress", "Recorder", "TaskMaker", "compile_device", "of_compilation"]

_log = logging.getLogger(__name__)

TaskMaker = Callable[[Any, Mapping[str, Any], Device, Sequence[str]], Task]
"""``(kernel, arguments, device, names of the configuration's parameters)`` to the task."""

_WORKER = "autotune_rlm.record._worker:serve"
_FIRST_CALL_S = 60.0
_PER_PROBLEM_S = 10.0
_COMPILE_S = 300.0
_GRACE_S = 5.0


@dataclass
class Progress:
    """How far a recording is.

    Attributes:
        points: Measurements written by this run.
        ok: Those that worked.
        binaries: Compilations that ended.
        kernels: Kernels that have a measurement.
        elapsed_s: Seconds since the start.
        busy_s: Seconds in which kernels were launched, checked and timed.
        bytes: Size of the file.
        status: Count of measurements by status.
    """

    points: int = 0
    ok: int = 0
    binaries: int = 0
    kernels: int = 0
    elapsed_s: float = 0.0
    busy_s: float = 0.0
    bytes: int = 0
    status: dict[str, int] | None = None

    @property
    def rate(self) -> float:
        """Points a second."""
        return self.points / self.elapsed_s if self.elapsed_s else 0.0


class Recorder:
    """Measures kernels x problems x configurations of a suite, breadth first.

    Args:
        log: Where to write; what it has is not measured again.
        make_task: Describes a launch as the tuner would.
        device: What the measurements are of.
        suite: ``"all"`` or a folder of suite modules.
        only: Names of kernels; all where empty.
        targets: Record compilation facts for these in place of measurements.
        interpreter: Measure the small problems on Triton's interpreter with the wall clock.
        workers: Compilers; None for one per core, less one for the device's process.
        sample_ms: Milliseconds of samples per point.
        seed: Of values and orders.
        niceness: Of the compilers.
        verify: Whether outputs are compared with the kernels' references.
        cache_dir: Triton's cache folder for the compilers.

    Raises:
        FileNotFoundError, ValueError: See ``load_suite``.
    """

    def __init__(
        self,
        log: RecordLog,
        *,
        make_task: TaskMaker,
        device: Device,
        suite: str | Path = "all",
        only: Sequence[str] = (),
        targets: Sequence[Target] = (),
        interpreter: bool = False,
        workers: int | None = None,
        sample_ms: float = 10.0,
        seed: int = 0,
        niceness: int = 5,
        verify: bool = True,
        cache_dir: str | None = None,
    ) -> None:
        self._log = log
        self._make_task = make_task
        self._device = device
        self._folder = find_suite(suite)
        self._targets = {compile_device(t).name: t for t in targets}
        self._interpreter = interpreter
        self._seed = seed
        self._kernels = {
            name: kernel
            for name, kernel in load_suite(suite, only=only).items()
            if self._places(kernel)
        }
        cores = len(os.sched_getaffinity(0))
        self._pool = (
            None
            if interpreter
            else CompilePool(
                workers or max(1, cores - (0 if targets else 1)),
                niceness=niceness,
                cache_dir=cache_dir,
                timeout_s=_COMPILE_S,
            )
        )
        self._worker = WorkerProcess(
            _WORKER,
            init={
                "suite": str(self._folder),
                "small": interpreter,
                "seed": seed,
                "verify": verify,
                "settings": asdict(
                    BenchSettings(budget_s=sample_ms / 1e3, max_samples=100, drift_every_s=120.0)
                ),
            },
            env={"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1" if interpreter else "0"},
        )
        self._args: dict[tuple[str, int], dict[str, Any]] = {}
        self._readers: dict[str, Reader] = {}
        self._names: dict[tuple[str, int, str], str] = {}
        self._progress = Progress(status={})
        self._seen_kernels: set[str] = set()
        self._deadline = 0.0

    def run(
        self, *, seconds: float, max_points: int | None = None, show: Callable[[Progress], None]
    ) -> Progress:
        """Record until the time is up, the file is full or everything is recorded.

        Args:
            seconds: Wall-clock limit.
            max_points: Points at most; None for no limit.
            show: Called after every unit.
        """
        began = time.monotonic()
        self._deadline = began + seconds
        self._log.note(
            "recording",
            device=self._device.to_json(),
            versions=versions(),
            state={} if self._targets else device_state(),
            interpreter=self._interpreter,
            targets=sorted(self._targets),
            seed=self._seed,
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        classes = {name: self._classes(kernel) for name, kernel in self._kernels.items()}
        self._open_landscapes()
        try:
            for unit, compiled in self._compiled(self._todo(classes)):
                self._take(unit, compiled)
                self._progress.elapsed_s = time.monotonic() - began
                self._progress.bytes = self._log.size
                show(self._progress)
                if self._log.full or (max_points and self._progress.points >= max_points):
                    break
                if time.monotonic() > self._deadline:
                    break
        finally:
            told = asdict(self._progress)
            self._log.note("stopped", **told)
            self._log.flush()
            self._worker.kill()
            if self._pool is not None:
                self._pool.close()
        return self._progress

    def _places(self, kernel: SuiteKernel) -> list[str]:
        """The targets that can run the kernel; one empty name for the device at hand."""
        if self._targets:
            return [name for name, t in self._targets.items() if kernel.supports(t[:2])]
        if self._interpreter:
            return [""]
        name = self._device.target
        here: tuple[str, Any] = (
            ("cuda", int(name.removeprefix("sm_"))) if name.startswith("sm_") else ("hip", name)
        )
        return [""] if kernel.supports(here) else []

    def _problems(self, kernel: SuiteKernel) -> Sequence[Mapping[str, Any]]:
        return kernel.small if self._interpreter else kernel.problems

    def _classes(self, kernel: SuiteKernel) -> list[tuple[int, ...]]:
        groups: dict[str, list[int]] = {}
        for index, problem in enumerate(self._problems(kernel)):
            args = kernel.make_args(problem, "meta", None)
            self._args[kernel.name, index] = args
            shared = str(index) if self._interpreter else binary_class(kernel, args)
            groups.setdefault(shared, []).append(index)
        return [tuple(group) for group in groups.values()]

    def _open_landscapes(self) -> None:
        for kernel in self._kernels.values():
            for place in self._places(kernel):
                device = compile_device(self._targets[place]) if place else self._device
                for index, problem in enumerate(self._problems(kernel)):
                    args = self._args[kernel.name, index]
                    task = self._make_task(kernel.fn, args, device, list(kernel.space.parameters))
                    if place:
                        task = replace(task, metric="compile_s")
                    short = ",".join(f"{k}={v}" for k, v in problem.items())
                    name = f"{kernel.name}/{short}/{device.name}"
                    self._log.open_landscape(name, task)
                    self._names[kernel.name, index, place] = name
        self._log.flush()

    def _todo(self, classes: Mapping[str, Sequence[tuple[int, ...]]]) -> Iterator[Unit]:
        """The units in their order, less what the log has; last those that took too long before."""
        late: list[Unit] = []
        spaces = {name: kernel.space for name, kernel in self._kernels.items()}
        places = {name: self._places(kernel) for name, kernel in self._kernels.items()}
        for unit in round_robin(spaces, classes, targets=places, seed=self._seed):
            key = Candidate(dict(unit.config)).key
            left = tuple(
                index
                for index in unit.problems
                if (self._names[unit.kernel, index, unit.target], key) not in self._log.done
            )
            if any((self._names[unit.kernel, i, unit.target], key) in self._log.late for i in left):
                late.append(replace(unit, problems=left))
            elif left:
                yield replace(unit, problems=left)
        yield from late

    def _compiled(self, units: Iterator[Unit]) -> Iterator[tuple[Unit, CompileResult | None]]:
        """Units as their binaries are ready; without a pool each as it is."""
        if self._pool is None:
            for unit in units:
                yield unit, None
            return
        pool = self._pool

        def start(unit: Unit) -> Future[CompileResult] | CompileResult:
            try:
                return pool.submit(self._spec(unit))
            except Exception as error:
                reason = f"cannot be described: {error}"
                return CompileResult(status=Status.COMPILE_ERROR, reason=one_line(reason))

        yield from ahead(units, start, most=4 * pool.workers, deadline=self._deadline)

    def _spec(self, unit: Unit) -> CompileSpec:
        kernel = self._kernels[unit.kernel]
        args = {**self._args[unit.kernel, unit.problems[0]], **unit.config}
        limit = self._device.max_shared_kb_per_block if not unit.target else None
        spec = describe_call(
            kernel.fn,
            (),
            args,
            target=self._targets.get(unit.target) or parse_target(self._device.target),
            max_shared_bytes=int(limit * 1024) if limit else None,
        )
        if spec is None:
            raise ValueError(f"{kernel.name} cannot be loaded by a compiler process")
        return spec

    def _take(self, unit: Unit, compiled: CompileResult | None) -> None:
        """Measure a unit and write what came out."""
        self._progress.binaries += 1
        if compiled is not None and (unit.target or not compiled.ok):
            measurements = [of_compilation(compiled, bool(unit.target))] * len(unit.problems)
        else:
            measurements = self._measure(unit, compiled)
        candidate = Candidate(dict(unit.config))
        for index, measurement in zip(unit.problems, measurements, strict=True):
            if measurement.status is Status.SKIPPED:
                continue
            if unit.target and measurement.status in (Status.TIMEOUT, Status.CRASHED):
                # says something about this machine, nothing about the kernel
                self._log.put_off(self._names[unit.kernel, index, unit.target], candidate)
                continue
            read = candidate if unit.target else self._read(unit, index, candidate)
            self._log.add(self._names[unit.kernel, index, unit.target], read, measurement)
            self._progress.points += 1
            self._progress.ok += measurement.ok
            counts = self._progress.status
            assert counts is not None
            counts[measurement.status.value] = counts.get(measurement.status.value, 0) + 1
        self._seen_kernels.add(unit.kernel)
        self._progress.kernels = len(self._seen_kernels)

    def _read(self, unit: Unit, index: int, candidate: Candidate) -> Candidate:
        """The candidate with what the kernel's first IR says of it for a problem."""
        if self._interpreter:
            return candidate
        kernel = self._kernels[unit.kernel]
        given = {**self._args[unit.kernel, index], **unit.config}
        options = {"num_warps": 4, "num_stages": 3, **unit.config}
        try:
            reader = self._readers.get(unit.kernel)
            if reader is None:
                reader = Reader(kernel.fn, target=target_of(self._device))
                self._readers[unit.kernel] = reader
            grid = as_grid(kernel.grid(given), given)
            launch = Launch(given, grid, options["num_warps"], options["num_stages"])
            return replace(candidate, facts=reader.numbers(launch, self._device))
        except (NotRead, ValueError) as error:
            _log.debug("%s is not read: %s", unit.kernel, error)
            return candidate

    def _measure(self, unit: Unit, compiled: CompileResult | None) -> list[Measurement]:
        """One measurement per problem; a unit that kills the device's process is taken apart."""
        request = {
            "kernel": unit.kernel,
            "config": dict(unit.config),
            "problems": list(unit.problems),
            "compiled": compiled.to_json() if compiled else None,
        }
        timeout_s = _FIRST_CALL_S + _PER_PROBLEM_S * len(unit.problems)
        left_s = self._deadline - time.monotonic() + _GRACE_S
        ended = Measurement(status=Status.SKIPPED, reason="the recording's time is up")
        if left_s <= 0:
            return [ended] * len(unit.problems)
        try:
            answer = self._worker.call(request, timeout_s=min(timeout_s, left_s))
        except WorkerFailure as failure:
            if failure.fault.status is Status.TIMEOUT and left_s < timeout_s:
                return [ended] * len(unit.problems)
            if len(unit.problems) > 1:
                parts = [replace(unit, problems=(index,)) for index in unit.problems]
                return [m for part in parts for m in self._measure(part, compiled)]
            fault = failure.fault
            facts = dict(compiled.facts) if compiled else {}
            return [Measurement(status=fault.status, reason=fault.reason, facts=facts)]
        self._progress.busy_s += answer["busy_s"]
        found = [Measurement.from_json(m) for m in answer["measurements"]]
        if answer["poisoned"]:
            self._worker.kill()
            rest = unit.problems[len(found) :]
            return found + (self._measure(replace(unit, problems=rest), compiled) if rest else [])
        return found


def compile_device(target: Target) -> Device:
    """What compilation facts belong to: no device, but all of one target."""
    backend, arch, _ = target
    name = f"sm_{arch}" if backend == "cuda" else str(arch)
    return Device(name=name, target=name, arch=f"{backend}, compiled only")


def of_compilation(result: CompileResult, facts_only: bool) -> Measurement:
    """What compilation alone says: its seconds are the value where only facts are recorded."""
    status, reason, value = result.status, result.reason, None
    if facts_only and result.ok:
        value = result.compile_s
        if value is None:
            status, reason = Status.SKIPPED, "found in Triton's cache, so not timed"
    elif result.ok:
        status = Status.SKIPPED
    return Measurement(
        status=status,
        reason=reason,
        value=value,
        compile_s=result.compile_s,
        cost_s=result.compile_s or 0.0,
        facts=dict(result.facts),
    )
