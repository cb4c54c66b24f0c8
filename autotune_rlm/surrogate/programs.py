"""The programs behind recorded landscapes, and the compiler's facts of their configurations.

A file of programs is a Python module with ``PROGRAMS``: by the kernel name of a landscape a function
of its problem and of a configuration, which returns ``{"kernel": a @triton.jit function, "arguments":
{name: value}, "grid": tuple}``. An argument's value is a type text such as ``"*fp16"`` for a pointer
that is aligned to 16 bytes, a number for a scalar, or a constant's value.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune_rlm.landscapes import Landscape
from autotune_rlm.surrogate.text import normalise_name
from autotune_rlm.types import Candidate, Task

if TYPE_CHECKING:
    from autotune_rlm.ir import KernelFacts, Launch, Reader

__all__ = ["Programs", "load_programs", "options_of"]

_log = logging.getLogger(__name__)
Program = Callable[[dict[str, Any], dict[str, Any]], Mapping[str, Any]]


def load_programs(path: str | os.PathLike[str]) -> Programs:
    """Run a file of programs, with the rights of this process.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not define ``PROGRAMS`` as a mapping of names to functions, or fails.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no file of programs {str(path)!r}")
    name = f"_autotune_rlm_programs_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Triton looks a kernel's module up
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} fails: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    found = getattr(module, "PROGRAMS", None)
    if not isinstance(found, Mapping) or not all(map(callable, found.values())):
        raise ValueError(
            f"{path} must define PROGRAMS = {{'kernel name': function(problem, config)}}, "
            f"got {type(found).__name__}"
        )
    return Programs(found)


class Programs:
    """Functions that give the kernel, arguments and grid of a configuration, by kernel name.

    Args:
        functions: See the module.
    """

    def __init__(self, functions: Mapping[str, Program]) -> None:
        self._functions = dict(functions)
        self._readers: dict[tuple[Any, str], Any] = {}

    def __contains__(self, kernel: object) -> bool:
        return kernel in self._functions

    def read(self, landscape: Landscape) -> Landscape:
        """The landscape with the facts of its candidates; unchanged where it has no program."""
        if landscape.task.kernel not in self:
            return landscape
        candidates = tuple(self.candidates(landscape.task, landscape.candidates))
        return replace(landscape, candidates=candidates)

    def candidates(self, task: Task, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates with facts; those whose program cannot be read stay without, with a warning.

        Raises:
            ValueError: A program gives something else than a kernel, arguments and a grid.
        """
        found, refused = [], ""
        for candidate in candidates:
            numbers, reason = self._numbers(task, candidate)
            refused = refused or reason
            found.append(replace(candidate, facts=numbers))
        if refused:
            _log.warning("some facts of %s are not known: %s", task.kernel, refused)
        return found

    def facts(self, task: Task, config: Mapping[str, Any]) -> KernelFacts:
        """What one launch does, whatever runs it.

        Raises:
            NotRead: Triton's front end refuses the kernel.
            ValueError: The program gives something else than a kernel, arguments and a grid.
        """
        reader, launch = self._launch(task, config)
        return reader.facts(launch)

    def _numbers(self, task: Task, candidate: Candidate) -> tuple[dict[str, float], str]:
        from autotune_rlm.ir import NotRead

        try:
            reader, launch = self._launch(task, candidate.config)
            return reader.numbers(launch, task.device), ""
        except NotRead as error:
            return {"refused": 1.0}, str(error)

    def _launch(self, task: Task, config: Mapping[str, Any]) -> tuple[Reader, Launch]:
        from autotune_rlm.ir import Launch, Reader, target_of

        program = self._functions[task.kernel](dict(task.problem), dict(config))
        try:
            kernel, arguments = program["kernel"], dict(program["arguments"])
            grid = tuple(int(n) for n in program["grid"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"the program of {task.kernel!r} must return "
                f"{{'kernel', 'arguments', 'grid'}}, got {program!r}: {error}"
            ) from error
        x, y, z = (*grid, 1, 1)[:3]
        target = target_of(task.device)
        key = (kernel, target)
        if key not in self._readers:
            self._readers[key] = Reader(kernel, target=target)
        return self._readers[key], Launch(arguments, (x, y, z), **options_of(config))


def options_of(config: Mapping[str, Any]) -> dict[str, int]:
    """``num_warps`` and ``num_stages`` of a configuration, under any of their names."""
    options = {normalise_name(str(name)): value for name, value in config.items()}
    warps, stages = options.get("num_warps"), options.get("num_stages")
    return {
        "num_warps": int(4 if warps is None else warps),
        "num_stages": int(3 if stages is None else stages),
    }
