"""The programs behind recorded landscapes, and the compiler's facts of their configurations.

A file of programs is a Python module with ``PROGRAMS``: by the kernel name of a landscape a function
of its problem and of a configuration, which returns ``{"kernel": a @triton.jit function, "arguments":
{name: value}, "grid": tuple}``. An argument's value is a type text such as ``"*fp16"`` for a pointer
that is aligned to 16 bytes, a number for a scalar, a constant's value, or a mapping with ``dtype``,
``shape`` and ``block`` for a tensor descriptor. The grid may also be one number, or a function of the
arguments as Triton takes it. ``@triton.heuristics`` around the kernel fill in what is left out; an
autotuner around it is looked through. Names of a configuration that the kernel does not have are fine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune_rlm._files import run_file
from autotune_rlm.landscapes import Landscape
from autotune_rlm.surrogate.text import normalise_name
from autotune_rlm.types import Candidate, Task

if TYPE_CHECKING:
    from autotune_rlm.ir import KernelFacts, Launch, Reader

__all__ = ["Programs", "load_programs", "options_of"]

_log = logging.getLogger(__name__)
Program = Callable[[dict[str, Any], dict[str, Any]], Mapping[str, Any]]


def load_programs(*paths: str | os.PathLike[str]) -> Programs:
    """Run files of programs, with the rights of this process; of equal names the last file's counts.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not define ``PROGRAMS`` as a mapping of names to functions, or fails.
    """
    together: dict[str, Program] = {}
    for path in (Path(p).resolve() for p in paths):
        if not path.is_file():
            raise FileNotFoundError(f"no file of programs {str(path)!r}")
        try:
            module = run_file(path, f"_autotune_rlm_programs_{path.stem}")
        except Exception as error:
            raise ValueError(f"{path} fails: {type(error).__name__}: {error}") from error
        found = getattr(module, "PROGRAMS", None)
        if not isinstance(found, Mapping) or not all(map(callable, found.values())):
            raise ValueError(
                f"{path} must define PROGRAMS = {{'kernel name': function(problem, config)}}, "
                f"got {type(found).__name__}"
            )
        together |= found
    return Programs(together)


class Programs:
    """Functions that give the kernel, arguments and grid of a configuration, by kernel name.

    Args:
        functions: See the module.
    """

    def __init__(self, functions: Mapping[str, Program]) -> None:
        self._functions = dict(functions)
        self._told: set[tuple[str, str]] = set()
        self._readers: dict[tuple[int, str], tuple[Any, Any]] = {}

    def __contains__(self, kernel: object) -> bool:
        return kernel in self._functions

    def read(self, landscape: Landscape) -> Landscape:
        """The landscape with the facts of its candidates; unchanged where it has no program."""
        if landscape.task.kernel not in self:
            return landscape
        candidates = tuple(self.candidates(landscape.task, landscape.candidates))
        return replace(landscape, candidates=candidates)

    def candidates(self, task: Task, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates with facts; those whose kernel is not read stay without, with a warning.

        Raises:
            ValueError: A program fails, gives something else than a kernel, arguments and a grid, or
                leaves out an argument of its kernel.
        """
        from autotune_rlm.ir import NotRead, Refused

        found, reasons = [], []
        for candidate in candidates:
            facts: dict[str, float] = {}
            reader, launch = self._launch(task, candidate.config)
            try:
                facts = reader.numbers(launch, task.device)
            except Refused as error:
                facts = {"refused": 1.0}
                reasons.append(str(error))
            except NotRead as error:
                reasons.append(str(error))
            found.append(replace(candidate, facts=facts))
        for reason in dict.fromkeys(reasons):
            if (task.kernel, reason) not in self._told:
                self._told.add((task.kernel, reason))
                _log.warning("no facts of some configurations of %s: %s", task.kernel, reason)
        return found

    def facts(self, task: Task, config: Mapping[str, Any]) -> KernelFacts:
        """What one launch does, whatever runs it.

        Raises:
            NotRead: Triton's front end refuses the kernel.
            ValueError: As ``candidates``.
        """
        reader, launch = self._launch(task, config)
        return reader.facts(launch)

    def _launch(self, task: Task, config: Mapping[str, Any]) -> tuple[Reader, Launch]:
        from autotune_rlm.ir import (
            Launch,
            NotRead,
            Reader,
            as_grid,
            missing_arguments,
            target_of,
            with_heuristics,
        )

        what = f"the program of {task.kernel!r}"
        try:
            program = self._functions[task.kernel](dict(task.problem), dict(config))
        except Exception as error:
            raise ValueError(
                f"{what} fails for problem {dict(task.problem)} and configuration {dict(config)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        wanted = {"kernel", "arguments", "grid"}
        if not isinstance(program, Mapping) or not wanted <= program.keys():
            keys = sorted(map(str, program)) if isinstance(program, Mapping) else program
            raise ValueError(f"{what} must return a mapping of {sorted(wanted)}, got {keys!r}")
        kernel = program["kernel"]
        target = target_of(task.device)
        try:
            key = (id(kernel), target)
            if key not in self._readers:
                self._readers[key] = (kernel, Reader(kernel, target=target))
            reader = self._readers[key][1]
        except NotRead as error:
            raise ValueError(f"{what}: {error}") from error
        try:
            arguments = with_heuristics(kernel, dict(program["arguments"]))
            grid = as_grid(program["grid"], arguments)
        except Exception as error:
            raise ValueError(
                f"{what}: its grid or a heuristic fails: {type(error).__name__}: {error}"
            ) from error
        if missing := missing_arguments(reader.kernel, arguments):
            raise ValueError(
                f"{what}: no value for the argument(s) {', '.join(missing)} of "
                f"{reader.kernel.__name__}; add them to its 'arguments'"
            )
        return reader, Launch(arguments, grid, **options_of(config))


def options_of(config: Mapping[str, Any]) -> dict[str, int]:
    """``num_warps`` and ``num_stages`` of a configuration, under any of their names."""
    options = {normalise_name(str(name)): value for name, value in config.items()}
    warps, stages = options.get("num_warps"), options.get("num_stages")
    return {
        "num_warps": int(4 if warps is None else warps),
        "num_stages": int(3 if stages is None else stages),
    }
