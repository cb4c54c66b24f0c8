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
from typing import Any

from autotune_rlm.landscapes import Landscape
from autotune_rlm.surrogate.text import normalise_name
from autotune_rlm.types import Candidate, Task

__all__ = ["Programs", "load_programs"]

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
            found.append(replace(candidate, facts=numbers, payload=candidate.payload))
        if refused:
            _log.warning("some facts of %s are not known: %s", task.kernel, refused)
        return found

    def _numbers(self, task: Task, candidate: Candidate) -> tuple[dict[str, float], str]:
        from autotune_rlm.ir import Launch, NotRead, Reader, target_of

        config = dict(candidate.config)
        program = self._functions[task.kernel](dict(task.problem), config)
        try:
            kernel, arguments = program["kernel"], dict(program["arguments"])
            grid = tuple(int(n) for n in program["grid"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"the program of {task.kernel!r} must return "
                f"{{'kernel', 'arguments', 'grid'}}, got {program!r}: {error}"
            ) from error
        options = {normalise_name(name): value for name, value in config.items()}
        x, y, z = (*grid, 1, 1)[:3]
        launch = Launch(
            arguments,
            (x, y, z),
            num_warps=int(options.get("num_warps") or 4),
            num_stages=int(_or(options.get("num_stages"), 3)),
        )
        target = target_of(task.device)
        key = (kernel, target)
        try:
            if key not in self._readers:
                self._readers[key] = Reader(kernel, target=target)
            return self._readers[key].numbers(launch, task.device), ""
        except NotRead as error:
            return {}, str(error)


def _or(value: Any, default: int) -> int:
    return default if value is None else value
