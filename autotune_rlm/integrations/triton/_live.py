"""Measures configurations of a kernel with the arguments of a launch, in this process."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from typing import Any

import triton
from triton import knobs
from triton.runtime.autotuner import Heuristics

from autotune_rlm.measure.capture import describe_call
from autotune_rlm.measure.compile import CompileResult
from autotune_rlm.measure.errors import classify
from autotune_rlm.measure.timing import Call
from autotune_rlm.types import Candidate, Measurement, Status, Task

from ._bench import Bench
from ._resources import compile_pool
from ._source import unwrap

__all__ = ["LiveMeasurer"]


class LiveMeasurer:
    """A ``Measurer`` for the live arguments of a launch.

    Compiles a batch in parallel, takes identical binaries with identical grids once, and times one
    configuration after the other.

    Args:
        kernel: What runs a configuration: a ``@triton.jit`` function, decorated further or not.
        args: Positional arguments of the launch.
        kwargs: Keyword arguments of the launch, ``grid`` and ``warmup`` among them.
        named: All arguments by name.
        hooks: ``pre_hook`` and ``post_hook`` in Triton's sense.
        bench: Times a call.
        told: Called with each configuration before it is timed.
    """

    def __init__(
        self,
        kernel: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        named: Mapping[str, Any],
        hooks: tuple[Callable[..., Any], Callable[..., Any]],
        bench: Bench,
        told: Callable[[triton.Config], None] = lambda config: None,
    ) -> None:
        self._kernel = kernel
        self._args = tuple(args)
        self._kwargs = dict(kwargs)
        self._named = dict(named)
        self._pre_hook, self._post_hook = hooks
        self._bench = bench
        self._told = told
        self._by_binary: dict[Any, Measurement] = {}
        self._best_ms: float | None = None
        self.poison = ""
        """Why the device can measure nothing any more; empty while it can."""

    def measure(
        self, task: Task, candidates: Iterable[Candidate]
    ) -> Iterator[tuple[Candidate, Measurement]]:
        """Yield each candidate's measurement as soon as it is compiled and timed."""
        for candidate, compiled in self._compiled(list(candidates)):
            if self.poison:
                reason = f"the device failed before: {self.poison}"
                yield candidate, Measurement(status=Status.SKIPPED, reason=reason)
                continue
            begin = time.perf_counter()
            measurement = self._timed(candidate.payload, compiled)
            cost_s = time.perf_counter() - begin + (compiled.compile_s or 0.0)
            yield (
                candidate,
                dataclasses.replace(
                    measurement,
                    compile_s=compiled.compile_s,
                    cost_s=cost_s,
                    facts={**compiled.facts, **measurement.facts},
                ),
            )

    def _timed(self, config: triton.Config, compiled: CompileResult) -> Measurement:
        if not compiled.ok:
            return Measurement(status=compiled.status, reason=compiled.reason)
        try:
            twin = self._identity(config, compiled)
            known = self._by_binary.get(twin) if twin else None
            if known is not None:
                return dataclasses.replace(known, facts={**known.facts, "same_binary": True})
            self._told(config)
            measurement = self._bench(self._call(config), self._best_ms)
        except Exception as error:
            fault = classify(error, stage="run")
            self.poison = fault.reason if fault.poisoned else ""
            return Measurement(status=fault.status, reason=fault.reason)
        if twin:
            self._by_binary[twin] = measurement
        if measurement.value is not None:
            self._best_ms = min(measurement.value, self._best_ms or measurement.value)
        return measurement

    def _call(self, config: triton.Config) -> Call:
        options = {**self._kwargs, **config.all_kwargs()}
        named = {**self._named, **config.all_kwargs()}

        def setup() -> None:
            if config.pre_hook is not None:
                config.pre_hook(named)
            self._pre_hook(named)

        def teardown(error: Exception | None) -> None:
            self._post_hook(named, exception=error)

        return Call(lambda: self._kernel.run(*self._args, **options), setup, teardown)

    def _identity(self, config: triton.Config, compiled: CompileResult) -> Any:
        """What two configurations share that must take the same time; None where unknown."""
        binary = compiled.facts.get("binary_hash")
        if binary is None or config.pre_hook is not None:
            return None
        grid: Any = self._kwargs.get("grid")
        if callable(grid):
            grid = grid(self._with_heuristics(config))
        facts = compiled.facts
        return binary, tuple(grid), facts.get("shared_bytes"), config.num_ctas, config.num_warps

    # Compiling.

    def _compiled(self, candidates: list[Candidate]) -> Iterator[tuple[Candidate, CompileResult]]:
        if knobs.runtime.interpret:
            yield from ((c, CompileResult(status=Status.OK)) for c in candidates)
            return
        specs = [(c, self._spec(c.payload)) for c in candidates]
        apart = [(c, spec) for c, spec in specs if spec is not None]
        here = [c for c, spec in specs if spec is None]
        if len(apart) < 2:
            here, apart = candidates, []
        pending: dict[Future[CompileResult], Candidate] = {}
        if apart:
            pool = compile_pool()
            pending = {pool.submit(spec): c for c, spec in apart}
        try:
            for candidate in here:
                yield candidate, self._compile_here(candidate.payload)
            for future in as_completed(pending):
                candidate, compiled = pending[future], future.result()
                if compiled.status is Status.SKIPPED:
                    compiled = self._compile_here(candidate.payload)
                yield candidate, compiled
        finally:
            for future in pending:
                future.cancel()

    def _spec(self, config: triton.Config) -> Any:
        try:
            given = self._with_heuristics(config)
            args = [given.pop(name) for name in self._names()]
            for name in ("grid", "warmup"):
                given.pop(name, None)
            return describe_call(unwrap(self._kernel), args, given, max_shared_bytes=_most_shared())
        except Exception:  # it fails in this process too, where the reason is classified
            return None

    def _names(self) -> list[str]:
        names = unwrap(self._kernel).arg_names
        return list(itertools.islice(names, len(self._args)))

    def _with_heuristics(self, config: triton.Config) -> dict[str, Any]:
        given = {**self._named, **config.all_kwargs()}
        kernel = self._kernel
        while kernel is not unwrap(kernel):
            if isinstance(kernel, Heuristics):
                for name, heuristic in kernel.values.items():
                    given[name] = heuristic(dict(given))
            kernel = kernel.fn
        return given

    def _compile_here(self, config: triton.Config) -> CompileResult:
        from autotune_rlm.measure._compile_worker import facts_of

        options = {**self._kwargs, **config.all_kwargs(), "warmup": True}
        begin = time.perf_counter()
        try:
            kernel = self._kernel.run(*self._args, **options)
        except Exception as error:
            fault = classify(error, stage="compile")
            return CompileResult(status=fault.status, reason=fault.reason)
        seconds = time.perf_counter() - begin
        facts = facts_of(kernel) if hasattr(kernel, "metadata") else {}
        return CompileResult(status=Status.OK, compile_s=seconds, facts=facts)


def _most_shared() -> int | None:
    """Bytes of shared memory that a program may use here; None where unknown."""
    driver = triton.runtime.driver.active
    try:
        properties = driver.utils.get_device_properties(driver.get_current_device())
        return int(properties["max_shared_mem"])
    except Exception:
        return None
