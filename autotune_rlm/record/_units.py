"""Compiles and measures the units of a recording on one machine, the one at hand or a cluster's.

The device belongs to a process of its own that may die. Compilers run on all cores while it measures.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

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
from autotune_rlm.types import Device, Measurement, Status

from .plan import Unit
from .suite import SuiteKernel, load_suite

_WORKER = "autotune_rlm.record._worker:serve"
_FIRST_CALL_S = 60.0
_PER_PROBLEM_S = 10.0
_COMPILE_S = 300.0
_GRACE_S = 5.0


class Units:
    """Does units, with the options of a ``Recorder``. Nothing is started before the first."""

    def __init__(
        self,
        suite: str | Path,
        *,
        device: Device,
        targets: Mapping[str, Target],
        interpreter: bool = False,
        workers: int | None = None,
        sample_ms: float = 10.0,
        seed: int = 0,
        verify: bool = True,
    ) -> None:
        self.kernels = load_suite(suite)
        self._device, self._targets, self._interpreter = device, targets, interpreter
        self._cache = _Throwaway() if targets else None
        self._pool = None
        if not interpreter:
            cores = len(os.sched_getaffinity(0))
            self._pool = CompilePool(
                workers or max(1, cores - (0 if targets else 1)),
                niceness=0 if targets else 5,
                cache_dir=self._cache.folder if self._cache else None,
                timeout_s=_COMPILE_S,
            )
        self._worker = WorkerProcess(
            _WORKER,
            init={
                "suite": str(suite),
                "small": interpreter,
                "seed": seed,
                "verify": verify,
                "settings": asdict(
                    BenchSettings(budget_s=sample_ms / 1e3, max_samples=100, drift_every_s=120.0)
                ),
            },
            env={"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1" if interpreter else "0"},
        )
        self._arguments: dict[tuple[str, int], dict[str, Any]] = {}
        self._begun: dict[str, Future[CompileResult] | CompileResult | None] = {}
        self._deadline = float("inf")
        self.busy_s = 0.0
        self.folder: tempfile.TemporaryDirectory[str] | None = None

    def problems(self, kernel: SuiteKernel) -> Sequence[Mapping[str, Any]]:
        """The problems of a kernel that are measured."""
        return kernel.small if self._interpreter else kernel.problems

    def arguments(self, name: str, index: int) -> dict[str, Any]:
        """The arguments of a kernel's problem, tensors without values."""
        if (name, index) not in self._arguments:
            problem = self.problems(kernel := self.kernels[name])[index]
            self._arguments[name, index] = kernel.make_args(problem, "meta", None)
        return self._arguments[name, index]

    def each(
        self, units: Iterator[Unit], deadline: float
    ) -> Iterator[tuple[Unit, list[Measurement]]]:
        """Do units as their binaries are ready, until a time of ``time.monotonic``."""
        self._deadline = deadline
        most = 4 * self._pool.workers if self._pool is not None else 1
        for unit, compiled in ahead(units, self._start, most=most, deadline=deadline):
            yield unit, self._do(unit, compiled)

    def __call__(
        self, unit: Unit, soon: Sequence[Unit], seconds: float
    ) -> tuple[list[dict[str, Any]], float]:
        """Do one unit while the next are compiled: measurements as JSON, seconds the device was busy."""
        before, self._deadline = self.busy_s, time.monotonic() + seconds
        for one in (unit, *soon):
            if repr(one) not in self._begun:
                self._begun[repr(one)] = self._start(one)
        compiled = self._begun.pop(repr(unit))
        if isinstance(compiled, Future):
            compiled = compiled.result()
        return [m.to_json() for m in self._do(unit, compiled)], self.busy_s - before

    def close(self) -> None:
        """End the processes."""
        self._worker.kill()
        if self._pool is not None:
            self._pool.close()
        if self._cache is not None:
            self._cache.close()

    def _start(self, unit: Unit) -> Future[CompileResult] | CompileResult | None:
        if self._pool is None:
            return None
        try:
            return self._pool.submit(self._spec(unit))
        except Exception as error:
            reason = f"cannot be described: {error}"
            return CompileResult(status=Status.COMPILE_ERROR, reason=one_line(reason))

    def _spec(self, unit: Unit) -> CompileSpec:
        kernel = self.kernels[unit.kernel]
        limit = self._device.max_shared_kb_per_block if not unit.target else None
        spec = describe_call(
            kernel.fn,
            (),
            {**self.arguments(unit.kernel, unit.problems[0]), **unit.config},
            target=self._targets.get(unit.target) or parse_target(self._device.target),
            max_shared_bytes=int(limit * 1024) if limit else None,
        )
        if spec is None:
            raise ValueError(f"{kernel.name} cannot be loaded by a compiler process")
        return spec

    def _do(self, unit: Unit, compiled: CompileResult | None) -> list[Measurement]:
        if self._cache is not None:
            self._cache.sweep()
        if compiled is not None and (unit.target or not compiled.ok):
            return [of_compilation(compiled, bool(unit.target))] * len(unit.problems)
        return self._measure(unit, compiled)

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
        self.busy_s += answer["busy_s"]
        found = [Measurement.from_json(m) for m in answer["measurements"]]
        if answer["poisoned"]:
            self._worker.kill()
            rest = unit.problems[len(found) :]
            return found + (self._measure(replace(unit, problems=rest), compiled) if rest else [])
        return found


class _Throwaway:
    """A cache folder for compilations whose binaries nobody needs."""

    _EVERY_S, _OLDER_THAN_S = 60.0, 300.0

    def __init__(self) -> None:
        self._made = tempfile.TemporaryDirectory(
            prefix="autotune_rlm_record_", ignore_cleanup_errors=True
        )
        self.folder, self.close, self._last = self._made.name, self._made.cleanup, time.time()

    def sweep(self) -> None:
        """Now and then delete binaries that no compiler can still be writing."""
        now = time.time()
        if now - self._last < self._EVERY_S:
            return
        self._last = now
        for entry in Path(self.folder).iterdir():
            with contextlib.suppress(OSError):
                if now - entry.stat().st_mtime > self._OLDER_THAN_S:
                    shutil.rmtree(entry, ignore_errors=True)


def sent_units(files: Mapping[str, str], options: Mapping[str, Any]) -> Units:
    """What does units on a machine without the suite: of its files' texts, by name."""
    folder = tempfile.TemporaryDirectory(prefix="autotune_rlm-")
    for name, text in files.items():
        Path(folder.name, name).write_text(text, "utf-8")
    units = Units(folder.name, **options)
    units.folder = folder  # is there for as long as they are
    return units


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
