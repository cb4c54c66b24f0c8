"""Measures in a worker process that owns the device and may die: the caller never does.

The worker is told what to run as JSON: a ``Workload`` names a *factory*, a function that makes the
arguments once and then a ``Job`` for each configuration. A candidate that hangs is killed at its
time-out, one that crashes the process or corrupts the device costs one respawn, and the rest are
measured.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

from autotune_rlm._checks import check_number, check_type
from autotune_rlm._closing import Closing
from autotune_rlm.measure.errors import Fault, failed, one_line
from autotune_rlm.measure.workers.process import WorkerFailure, WorkerProcess
from autotune_rlm.types import Candidate, Measurement, Measurer, Status, Task, canonical_json

from ._device_worker import current_device_index
from .compile import CompilePool, CompileResult, CompileSpec
from .in_process import Begun, CompilesAhead, compiled_ahead
from .job import BenchSettings


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a worker runs, as plain JSON.

    Attributes:
        factory: ``"package.module:function"`` or ``"path/file.py:function"``, called once per
            worker as ``factory(**arguments)``. It returns a function from a configuration (a
            dictionary) to a ``Job``; that function may have an attribute ``expected``, which gives
            the right outputs by name.
        arguments: Keyword arguments of the factory: sizes, dtypes, seeds, values.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {"factory": self.factory, "arguments": dict(self.arguments)}


Fleet = Callable[..., AbstractContextManager[Measurer]]
"""Makes what measures a ``Workload`` on other machines, with options of ``IsolatedMeasurer``."""


class IsolatedMeasurer(CompilesAhead, Closing):
    """A ``Measurer`` whose candidates run in a process of their own.

    Args:
        workload: What to run.
        timeout_s: Seconds for one candidate (launches, comparison and samples), after which the
            worker is killed: ``timeout``.
        settings: How candidates are timed.
        pool: Compiles ahead in parallel where the workload's jobs say what (``Job.spec``); None
            leaves it to the first launch.
        memory_mb: Limit of the worker's address space; only where it uses no accelerator.
        env: Environment variables for the worker, such as ``CUDA_VISIBLE_DEVICES``. Without such a one
            the worker uses this process's current device.
        max_restarts: Restarts in a row with no candidate measured, after which the rest are
            ``skipped``: the workload itself does not work.
        start_timeout_s: Seconds for starting a worker and making the workload in it.
        reference: Configuration whose outputs are right where the workload names none, for a search
            that goes on and does not measure its default again; None for the first candidate.

    Raises:
        ValueError: An argument is out of range or no plain JSON.
    """

    def __init__(
        self,
        workload: Workload,
        *,
        timeout_s: float = 30.0,
        settings: BenchSettings | None = None,
        pool: CompilePool | None = None,
        memory_mb: int | None = None,
        env: Mapping[str, str] | None = None,
        max_restarts: int = 20,
        start_timeout_s: float = 120.0,
        reference: Mapping[str, Any] | None = None,
    ) -> None:
        check_type("workload", workload, Workload)
        check_number("timeout_s", timeout_s, above=0)
        if ":" not in workload.factory:
            raise ValueError(
                f"workload.factory must look like 'module:function' or 'file.py:function', "
                f"got {workload.factory!r}"
            )
        try:
            canonical_json(workload.to_json())
        except (TypeError, ValueError) as error:
            raise ValueError(f"workload.arguments must be plain JSON: {error}") from None
        self._timeout_s, self._start_timeout_s = timeout_s, start_timeout_s
        self._begun = Begun(pool, self._spec)
        self._failures, self._max_restarts = 0, max_restarts
        visible = any(name.endswith("_VISIBLE_DEVICES") for name in env or ())
        self._died, self._starts = False, True
        self._worker = WorkerProcess(
            "autotune_rlm.measure.triton._device_worker:serve",
            init={
                "workload": workload.to_json(),
                "settings": asdict(settings or BenchSettings()),
                "device": None if visible else current_device_index(),
            },
            env=env,
            memory_mb=memory_mb,
        )
        self._best_ms: float | None = None
        self._reference: dict[str, Any] | None = None
        self._default = None if reference is None else dict(reference)
        self._prepared = -1

    def measure(
        self, task: Task, candidates: Iterable[Candidate]
    ) -> Iterator[tuple[Candidate, Measurement]]:
        """Yield ``(candidate, measurement)`` as each is done; faults cost only their own.

        The first of the candidates, the default, goes before all others where no reference is known:
        its outputs are the right ones where the workload names no others, and a new worker makes them
        again, also where the default itself was too slow to be timed.
        """
        compiled_first = compiled_ahead(
            self._begun, candidates, default_first=self._reference is None
        )
        for candidate, compiled in compiled_first:
            if self._failures >= self._max_restarts:
                reason = f"the worker died {self._failures} times in a row"
                yield candidate, Measurement(status=Status.SKIPPED, reason=reason)
                continue
            measurement = self._one(candidate, compiled)
            self._failures = self._failures + 1 if self._died else 0
            if not self._starts:
                self._failures = self._max_restarts
            yield candidate, measurement

    def close(self) -> None:
        """End the worker."""
        self._worker.kill()

    def _one(self, candidate: Candidate, compiled: CompileResult | None) -> Measurement:
        begin = time.perf_counter()
        compile_s = compiled.compile_s if compiled else None
        facts = dict(compiled.facts) if compiled else {}
        self._died = False
        try:
            if compiled is not None and not compiled.ok:
                fault = Fault(compiled.status, compiled.reason)
                cost_s = compile_s or 0.0
                return failed(fault, compile_s=compile_s, cost_s=cost_s, facts=facts)
            if self._reference is None:
                self._adopt(dict(candidate.config))
            request = {
                "do": "measure",
                "config": dict(candidate.config),
                "compiled": compiled.to_json() if compiled else None,
                "best_ms": self._best_ms,
            }
            answer = self._call(request)
            measurement = Measurement.from_json(answer["measurement"])
        except WorkerFailure as failure:
            fault, self._starts = failure.fault, failure.started
            self._died = self._worker.pid is None
        except (TypeError, ValueError, KeyError) as error:
            fault = Fault(Status.RUNTIME_ERROR, one_line(f"not to be sent as JSON: {error}"))
        else:
            if measurement.value is not None:
                self._best_ms = min(self._best_ms or measurement.value, measurement.value)
            if answer["poisoned"]:
                self._worker.kill()
            return measurement
        cost_s = time.perf_counter() - begin + (compile_s or 0.0)
        return failed(fault, compile_s=compile_s, cost_s=cost_s, facts=facts)

    def _adopt(self, config: dict[str, Any]) -> None:
        """Have the right outputs made, by the default, and where it does not work by ``config``."""
        default, self._default = self._default, None
        if default is not None and default != config:
            with contextlib.suppress(WorkerFailure):
                self._call({"do": "adopt", "config": default})
                self._reference = default
                return
        self._call({"do": "adopt", "config": config})
        self._reference = config

    def _spec(self, candidate: Candidate) -> CompileSpec | None:
        request = {"do": "describe", "config": dict(candidate.config)}
        try:
            answer = self._call(request)
        except (WorkerFailure, TypeError, ValueError):
            return None
        return CompileSpec.from_json(answer["spec"]) if answer["spec"] else None

    def _call(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._worker.starts != self._prepared or self._worker.pid is None:
            prepare = {"do": "prepare", "reference": self._reference}
            self._worker.call(prepare, timeout_s=self._start_timeout_s)
            self._prepared = self._worker.starts
        return self._worker.call(request, timeout_s=self._timeout_s)
