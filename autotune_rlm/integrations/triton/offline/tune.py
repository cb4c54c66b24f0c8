"""Measuring the kernels of a file or package: with arguments made up here, or as a program calls them."""

from __future__ import annotations

import contextlib
import functools
import inspect
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune_rlm.integrations.triton._adopt import enable
from autotune_rlm.integrations.triton._source import kernel_source
from autotune_rlm.integrations.triton.device import device_of
from autotune_rlm.integrations.triton.resources import LazySurrogate, open_store
from autotune_rlm.integrations.triton.settings import Settings
from autotune_rlm.measure.triton import Fleet, IsolatedMeasurer
from autotune_rlm.measure.triton.compile import CompilePool
from autotune_rlm.measure.triton.kernel_call import KernelCall, evaluate_grid
from autotune_rlm.measure.triton.layers import unwrap, with_heuristics
from autotune_rlm.search.progress import Reporter
from autotune_rlm.search.tuner import Tuner
from autotune_rlm.store.config_file import ConfigFile, Recommendation
from autotune_rlm.types import Device, digest

from .kernel import OfflineKernel
from .recommend import read_offline


def tune_kernel(
    kernel: OfflineKernel,
    problem: Mapping[str, Any],
    grid: Sequence[str],
    device: Device,
    *,
    settings: Settings,
    interpreted: bool = False,
    top: int = 4,
    fleet: Fleet | None = None,
) -> ConfigFile:
    """Measure a kernel's configurations for one problem, in a process of its own.

    Args:
        kernel: What to tune; at the top level of a file.
        problem: Every argument that no configuration and no heuristic sets; tensors with their
            shape, filled with random values.
        grid: One to three expressions over arguments and configuration: ``"cdiv(n, BLOCK)"``.
        device: What is here, or at the fleet.
        settings: Budget, model and store.
        interpreted: Whether Triton's interpreter runs it, on the CPU.
        top: How many configurations to recommend.
        fleet: Makes what measures a workload elsewhere; None for a process here.

    Raises:
        TuningError: No configuration works.
        ValueError: An argument is missing, a tensor has no shape, or the grid cannot be evaluated.
    """
    function = unwrap(kernel.kernel).fn
    names = kernel.given_names
    lacking = [name for name in names if name not in problem]
    shapeless = [n for n, v in problem.items() if isinstance(v, Mapping) and "shape" not in v]
    if lacking or shapeless:
        raise ValueError(
            f"{kernel.name} needs a value of each argument to run; --problem lacks "
            f"{', '.join(lacking) or 'nothing'}; tensors without a shape: "
            f"{', '.join(shapeless) or 'none'} (write x=fp16[4096,4096])"
        )
    launches: list[dict[str, Any]] = []
    for candidate in kernel.candidates:
        given = {**problem, **candidate.payload.all_kwargs()}
        full = with_heuristics(kernel.kernel, given)
        launches.append(
            {
                "config": dict(candidate.config),
                "grid": list(evaluate_grid(grid, full)),
                "constants": {name: full[name] for name in full.keys() - given.keys()},
            }
        )
    call = KernelCall(
        file=str(inspect.getsourcefile(function)),
        function=function.__qualname__,
        module="" if function.__module__.startswith("__") else function.__module__,
        args=dict(problem),
        grid=list(grid),
        launches=launches,
        device="cpu" if interpreted else None,
    )
    task = kernel.task(problem, device, grid=launches[0]["grid"])
    surrogate = LazySurrogate(settings.surrogate, settings.store)
    candidates = list(kernel.candidates)
    if not interpreted and settings.measurements(len(candidates)) < len(candidates):
        candidates = read_offline(kernel, problem, task, surrogate, grid=grid).candidates
    store = open_store(settings.store)
    environment = {"TRITON_INTERPRET": "1" if interpreted else "0"}
    with contextlib.ExitStack() as stack:
        pool = None if interpreted or fleet else stack.enter_context(CompilePool())
        make = fleet or functools.partial(IsolatedMeasurer, pool=pool)
        measurer = stack.enter_context(make(call.workload(), env=environment))
        line = stack.enter_context(Reporter(quiet=settings.quiet))
        result = Tuner(surrogate=surrogate, measurer=measurer, store=store).tune(
            task,
            candidates,
            budget=settings.measurements(len(candidates)),
            budget_s=settings.budget_s,
            seed=settings.seed,
            progress=line,
        )
        line.done(result.event)
    result.raise_if_failed()
    found = Recommendation.measured(
        task, result.observations, key=kernel.key, module=kernel.module, top=top
    )
    return ConfigFile([found] if found else [])


def tune_program(
    program: Path,
    arguments: Sequence[str] = (),
    *,
    only: Sequence[str] = (),
    settings: Mapping[str, Any],
    top: int = 4,
) -> ConfigFile:
    """Run a program with the autotuned kernels that it launches measured.

    Args:
        program: A Python file; it runs in this process as ``__main__``.
        arguments: Its ``sys.argv[1:]``.
        only: Modules whose kernels are meant; all where empty.
        settings: What ``enable`` takes.
        top: How many configurations to recommend per problem.

    Returns:
        The fastest configurations of every problem of its kernels that the store knows on this
        device, from this run and from earlier ones.

    Raises:
        Exception: What the program raises; what was measured before is in the store.
    """
    argv, path = sys.argv[:], sys.path[:]
    sys.argv = [str(program), *arguments]
    sys.path.insert(0, str(program.resolve().parent))
    with enable(only=only, **settings) as enabled:
        try:
            kept = runpy.run_path(str(program), run_name="__main__")
        except SystemExit as end:
            if end.code not in (None, 0):
                raise RuntimeError(f"{program} exited with {end.code!r}") from None
            kept = {}
        finally:
            sys.argv, sys.path = argv, path
        launched = [kernel for kernel in enabled.kernels if kernel.cache]
        found = _stored(launched, settings, top)
        del kept
    return found


def _stored(kernels: Sequence[Any], settings: Mapping[str, Any], top: int) -> ConfigFile:
    store = open_store(Settings(**settings).with_environment().store)
    if store is None:
        raise ValueError("what is measured must be stored somewhere; give --store FILE")
    device = device_of(settings.get("device"))
    found = []
    for kernel in kernels:
        function = unwrap(kernel).fn
        for task in store.tasks(kernel=function.__name__, device=device.name):
            if task.source_hash != digest(kernel_source(kernel)):
                continue
            options = {"key": kernel.keys, "module": str(function.__module__), "top": top}
            found.append(Recommendation.measured(task, store.observations(task), **options))
    return ConfigFile(r for r in found if r is not None)
