"""Measures configurations of a kernel with the arguments of a launch, in this process."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import triton
from triton import knobs

from autotune_rlm.ir import Launch, as_grid
from autotune_rlm.measure.errors import one_line
from autotune_rlm.measure.statistics.timing import Call
from autotune_rlm.measure.triton import TritonMeasurer
from autotune_rlm.measure.triton.capture import (
    after_pre_hook,
    compile_here,
    compiled_arguments,
    describe_call,
)
from autotune_rlm.measure.triton.compile import CompileResult, CompileSpec
from autotune_rlm.measure.triton.job import Job
from autotune_rlm.measure.triton.kernel_call import NotRepeatableError, describe_launch
from autotune_rlm.measure.triton.layers import unwrap, with_heuristics
from autotune_rlm.types import Candidate

from ._check import OutputCheck, can_be_written
from ._source import constant_names
from ._timer import timing_for
from .resources import compile_pool

_log = logging.getLogger(__name__)

Hook = Callable[..., Any]


class LiveLaunch:
    """A launch, with its arguments also by name, that can be made with any configuration."""

    def __init__(
        self,
        kernel: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        named: Mapping[str, Any],
        hooks: tuple[Hook, Hook],
    ) -> None:
        self._kernel = kernel
        self._args = tuple(args)
        self._kwargs = dict(kwargs)
        self._named = dict(named)
        self._pre_hook, self._post_hook = hooks

    def measurer(
        self,
        do_bench: Callable[..., Any] | None,
        told: Callable[[triton.Config], None],
        *,
        begins: Callable[[Candidate], None] = lambda candidate: None,
        ahead: bool = True,
        check: OutputCheck | None = None,
    ) -> TritonMeasurer:
        """Measures candidates whose payloads are configurations.

        ``told`` is called with each configuration before it is tried, ``begins`` with each candidate
        before anything of it runs in this process. Without ``ahead`` no compile worker is asked.
        """
        timer, settings = timing_for(do_bench)

        def make(candidate: Candidate) -> Job:
            begins(candidate)
            return self.job(candidate.payload, check)

        def here(candidate: Candidate) -> CompileResult:
            begins(candidate)
            return compile_here(self._kernel, self._compiled_arguments(candidate.payload) or {})

        return TritonMeasurer(
            make,
            spec=self.spec,
            here=here,
            pool=compile_pool() if ahead and not knobs.runtime.interpret else None,
            settings=settings,
            timer=timer,
            expected=None if check is None else check.expected,
            told=lambda candidate: told(candidate.payload),
        )

    def job(self, config: triton.Config, check: OutputCheck | None = None) -> Job:
        """The launch with ``config``, hooks around it; with ``check`` its outputs are compared."""
        options = {**self._kwargs, **config.all_kwargs()}
        named = {**self._named, **config.all_kwargs()}

        def setup() -> None:
            if config.pre_hook is not None:
                config.pre_hook(named)
            self._pre_hook(named)

        def teardown(error: Exception | None) -> None:
            self._post_hook(named, exception=error)

        call = Call(lambda: self._kernel.run(*self._args, **options), setup, teardown)
        grid = self._grid(config) if self._is_all_in_the_binary(config) else None
        if check is None:
            return Job(call, grid=grid)
        prepare = functools.partial(check.prepare, call)
        return Job(call, outputs=check.outputs, prepare=prepare, grid=grid)

    def spec(self, candidate: Candidate) -> CompileSpec | None:
        """What to compile for a candidate; None where another process cannot."""
        given = self._compiled_arguments(candidate.payload)
        if given is None:
            return None
        return describe_call(self._kernel, kwargs=given, max_shared_bytes=_most_shared())

    def _compiled_arguments(self, config: triton.Config) -> dict[str, Any] | None:
        arguments = {**self._named, **config.all_kwargs()}
        return compiled_arguments(self._kernel, config.pre_hook, arguments)

    def workload(
        self, candidates: Sequence[Candidate], *, reset: Sequence[str] = (), checks: bool = False
    ) -> dict[str, Any]:
        """How another process can run these candidates, as JSON, or ``{"obstacle": why it cannot}``.

        ``reset`` are set back before every launch; with ``checks`` all tensors are compared.
        """
        jit = unwrap(self._kernel)
        own = {name: value for name, value in self._named.items() if name in jit.arg_names}
        launches = []
        try:
            for candidate in candidates:
                given = self._given(candidate.payload)
                added = set(given) - set(self._named) - set(candidate.payload.all_kwargs())
                constants = {name: given[name] for name in added}
                grid = self._grid(candidate.payload)
                if grid is None:
                    raise NotRepeatableError("a hook of its configurations changes the launch")
                launches.append((candidate.config, grid, constants))
            outputs = [n for n, v in own.items() if checks and can_be_written(v)]
            call = describe_launch(self._kernel, own, launches, reset=reset, outputs=outputs)
            return call.workload().to_json()
        except Exception as error:
            _log.debug("cannot note how to run %s: %s", jit, error)
            return {"obstacle": one_line(str(error) or type(error).__name__)}

    def launch_of(self, candidate: Candidate) -> Launch:
        """The launch with a candidate, as the compiler's eye reads it; runs nothing on the device."""
        config = candidate.payload
        return launch_of(self._kernel, self._named, config, grid=self._kwargs.get("grid"))

    def _given(self, config: triton.Config) -> dict[str, Any]:
        return with_heuristics(self._kernel, {**self._named, **config.all_kwargs()})

    def _is_all_in_the_binary(self, config: triton.Config) -> bool:
        """Whether a configuration sets nothing that is given at run time, as a loop's bound may be."""
        jit = unwrap(self._kernel)
        own = {name for name, value in self._named.items() if name in jit.arg_names}
        chosen = set(self._given(config)) - own
        return not chosen & (set(jit.arg_names) - set(constant_names(jit)))

    def _grid(self, config: triton.Config) -> tuple[int, ...] | None:
        if config.pre_hook is not None:
            return None  # it may change what is run
        grid: Any = self._kwargs.get("grid")
        if grid is None:
            return None  # the kernel knows it
        try:
            return tuple(grid(self._given(config)) if callable(grid) else grid)
        except Exception:
            return None  # what is wrong with it, the launch will say


def launch_of(
    kernel: Any, named: Mapping[str, Any], config: triton.Config, *, grid: Any = None
) -> Launch:
    """A launch as the compiler's eye reads it; without a grid one is guessed from the kernel's masks."""
    launched = after_pre_hook(config.pre_hook, {**named, **config.all_kwargs()})
    if launched is None:
        raise ValueError(f"what the pre_hook of {config} changes is known to a launch alone")
    given = with_heuristics(kernel, launched)
    found = None if grid is None else as_grid(grid, given)
    return Launch(given, found, config.num_warps, config.num_stages)


def _most_shared() -> int | None:
    """Bytes of shared memory that a program may use here; None where unknown."""
    driver = triton.runtime.driver.active
    try:
        properties = driver.utils.get_device_properties(driver.get_current_device())
        return int(properties["max_shared_mem"])
    except Exception:
        return None
