"""Parallel compilation: a pool of processes that warms Triton's own cache and tells the facts.

    with CompilePool(workers=8) as pool:
        for spec, result in pool.compile_many(specs):
            print(result.status, result.facts)

No GPU is needed: the target is named in the spec. A worker that hangs or crashes (twice) is replaced, and
only its own spec fails. What a worker cannot do (load the kernel, start at all, survive the machine's
out-of-memory killer) is ``skipped``, and left to the process that asked. ``describe_call`` makes the spec
of a real call.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from autotune_rlm._checks import check_number
from autotune_rlm._closing import Closing
from autotune_rlm.devices import Target
from autotune_rlm.devices import parse_target as parse_target
from autotune_rlm.measure.workers.process import WorkerFailure, WorkerProcess
from autotune_rlm.types import Status

from .ahead import ahead as _ahead


@dataclass(frozen=True, kw_only=True)
class CompileSpec:
    """One binary to compile, as plain JSON values.

    Attributes:
        file: Python file that defines the kernel.
        function: The kernel's name at the top level of the file.
        module: Dotted name of the file's module; needed where the file has relative imports.
        signature: Type of each argument: ``"*fp16"``, ``"i32"``, ``"constexpr"``; arguments that
            are left out are constexprs.
        constexprs: Value of each constexpr argument, as ``describe_call`` writes dtypes and such.
        attrs: What is known of an argument: a divisor such as ``16``, or Triton's list of
            ``[name, value]``.
        options: ``num_warps``, ``num_stages``, ``num_ctas`` and any other option of the backend.
        target: ``(backend, arch, warp size)``: ``("cuda", 90, 32)``, ``("hip", "gfx942", 64)``.
        source_key: ``JITFunction.cache_key`` that the loaded kernel must have; empty for any.
        max_shared_bytes: Shared memory that a program may use on the device; more is
            ``out_of_resources``. None for no limit.
        packed: The kernel itself (``_shipping.pack``), taken in place of the file; None for the file.
    """

    file: str
    function: str
    signature: Mapping[str, str]
    target: Target
    constexprs: Mapping[str, Any] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""
    source_key: str = ""
    max_shared_bytes: int | None = None
    packed: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {**asdict(self), "target": list(self.target)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CompileSpec:
        """The inverse of ``to_json``."""
        return cls(**{**data, "target": tuple(data["target"])})


@dataclass(frozen=True, kw_only=True)
class CompileResult:
    """What compiling one spec gave.

    Attributes:
        status: ``ok``, ``compile_error``, ``out_of_resources``, ``timeout``, ``crashed``, or
            ``skipped`` where the worker or the machine is at fault: it cannot load the kernel, its
            source has changed, it was killed, the disk is full.
        reason: One line where it is not ``ok``.
        compile_s: Seconds of compilation; None where Triton's cache had it or there is no binary.
        facts: ``shared_bytes``, ``registers``, ``spills``, ``binary_bytes``, ``code_bytes``,
            ``binary_hash``; where they apply ``tensor_memory_columns``, ``scratch_bytes``. Known
            too where only a limit of the device was exceeded.
        cached: Whether Triton's cache had the binary.
    """

    status: Status
    reason: str = ""
    compile_s: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    cached: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", Status(self.status))

    @property
    def ok(self) -> bool:
        """Whether there is a binary that fits the device."""
        return self.status is Status.OK

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {**asdict(self), "status": self.status.value}


@dataclass(eq=False)
class _Order:
    spec: CompileSpec
    begun: bool = False  # by a worker, or by whoever took it back


class CompilePool(Closing):
    """Compiles specs in processes of their own, started when needed.

    Safe to use from several threads. Binaries land in Triton's cache folder, so that the launch
    that follows finds them.

    Args:
        workers: Processes; None for one per core.
        timeout_s: Seconds for one compilation, after which its worker is killed.
        memory_mb: Limit of a worker's address space; None for no limit.
        niceness: Added to the workers' niceness, so that they do not disturb timing.
        cache_dir: Triton's cache folder; None for the one of this process.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        timeout_s: float = 120.0,
        memory_mb: int | None = None,
        niceness: int = 5,
        cache_dir: str | None = None,
    ) -> None:
        check_number("workers", workers, least=1, whole=True, none=True)
        check_number("timeout_s", timeout_s, above=0)
        self.workers = workers or len(os.sched_getaffinity(0))
        self._timeout_s = timeout_s
        self._idle: queue.LifoQueue[WorkerProcess] = queue.LifoQueue()
        self._settings = {"memory_mb": memory_mb, "niceness": niceness}
        self._cache_dir = cache_dir
        self._all: list[WorkerProcess] = []
        self._lock = threading.Lock()
        self._broken = ""
        self._used_at = time.monotonic()
        self._orders: weakref.WeakKeyDictionary[Future[CompileResult], _Order]
        self._orders = weakref.WeakKeyDictionary()
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="compile")

    @property
    def idle_s(self) -> float:
        """Seconds since anything was submitted."""
        return time.monotonic() - self._used_at

    def compile(self, spec: CompileSpec) -> CompileResult:
        """Compile one spec and wait for it. Never raises for what the compilation does."""
        return self.submit(spec).result()

    def submit(self, spec: CompileSpec) -> Future[CompileResult]:
        """Compile one spec in the background."""
        self._used_at = time.monotonic()
        order = _Order(spec)
        future = self._threads.submit(self._run, order)
        self._orders[future] = order
        return future

    def take_back(self, future: Future[CompileResult]) -> bool:
        """Whether no worker has begun with what was submitted; then none will."""
        return future.cancel() or (not future.done() and self._begins(self._orders[future]))

    def compile_many(
        self, specs: Iterable[CompileSpec], *, ahead: int | None = None
    ) -> Iterator[tuple[CompileSpec, CompileResult]]:
        """Yield ``(spec, result)`` as each is done, in any order.

        Args:
            specs: May be endless; at most ``ahead`` are taken before their results are asked for.
            ahead: None for twice the number of workers.
        """
        yield from _ahead(specs, self.submit, most=ahead or 2 * self.workers)

    def close(self) -> None:
        """Stop the workers, also in mid-compilation."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for worker in self._all:
                worker.kill()
        self._threads.shutdown(wait=True)

    def _begins(self, order: _Order) -> bool:
        with self._lock:
            begun, order.begun = order.begun, True
        return not begun

    def _run(self, order: _Order) -> CompileResult:
        if self._broken:
            return CompileResult(status=Status.SKIPPED, reason=self._broken)
        try:
            worker = self._idle.get_nowait()
        except queue.Empty:
            worker = self._new_worker()
        try:
            result = self._ask(worker, order)
            if result.status is Status.CRASHED:  # by chance, or is it this binary's?
                result = self._ask(worker, order, again=True)
            return result
        finally:
            self._idle.put(worker)

    def _ask(self, worker: WorkerProcess, order: _Order, *, again: bool = False) -> CompileResult:
        try:
            worker.start()
            if not (again or self._begins(order)):
                return CompileResult(status=Status.SKIPPED, reason="it was taken back")
            return CompileResult(**worker.call(order.spec.to_json(), timeout_s=self._timeout_s))
        except WorkerFailure as failure:
            if not failure.started:  # the next one would not start either, and take as long
                self._broken = failure.fault.reason
            return CompileResult(status=failure.fault.status, reason=failure.fault.reason)
        except (TypeError, ValueError) as error:
            reason = f"the spec is no plain JSON: {error}"
            return CompileResult(status=Status.SKIPPED, reason=reason)

    def _new_worker(self) -> WorkerProcess:
        environment = {"TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1"}
        cache_dir = self._cache_dir or _own_cache_dir()
        if cache_dir:
            environment["TRITON_CACHE_DIR"] = cache_dir
        worker = WorkerProcess(
            "autotune_rlm.measure.triton._compile_worker:compile_spec",
            env=environment,
            **self._settings,  # type: ignore[arg-type]
        )
        with self._lock:
            self._all.append(worker)
        return worker


def _own_cache_dir() -> str | None:
    triton = sys.modules.get("triton")
    knobs = getattr(triton, "knobs", None)
    return str(knobs.cache.dir) if knobs is not None else None
