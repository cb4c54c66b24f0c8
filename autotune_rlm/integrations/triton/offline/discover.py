"""The autotuned kernels of a file, a module or a whole installed package."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triton.runtime import driver
from triton.runtime.autotuner import Autotuner, Heuristics

from autotune_rlm._files import run_file
from autotune_rlm.measure.triton.layers import layers, unwrap

_FILE = "__autotune_rlm_file__"  # before the names of files, which may be those of modules too


@dataclass
class Found:
    """Decorated kernels by name, and modules that could not be imported with their reasons.

    A name is ``module:function``, with a number behind where one function is decorated more than once.
    """

    kernels: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def find_kernels(where: str) -> Found:
    """Every kernel under an autotuner in a Python file, a module, or a package with all below it.

    ``where`` is ``FILE.py`` or a dotted name, with ``:KERNEL`` behind for those of one name; ValueError
    where there is none, or the file cannot be imported. Of a package only modules whose text mentions
    autotuning are imported, and those that they need.
    """
    found = Found()
    where, _, wanted = where.partition(":")
    if where.endswith(".py") or os.sep in where:
        path = Path(where)
        if not path.is_file():
            raise ValueError(f"no file at {path}")
        prefixes = [import_file(path).__name__]
    else:
        prefixes = [where]
        found.failed = _import_all(_modules(where))
        if found.failed:
            with _some_driver():
                found.failed = _import_all(found.failed)
    for kernel in _decorated():
        function = unwrap(kernel).fn
        module = str(function.__module__)
        current = getattr(sys.modules.get(module), "__dict__", None)
        if wanted not in ("", function.__name__) or function.__globals__ is not current:
            continue  # another one, or of a module that was imported anew
        if any(f"{module}.".startswith(f"{prefix}.") for prefix in prefixes):
            first = name = f"{module_of(function)}:{function.__qualname__}"
            n = 1
            while name in found.kernels:
                n += 1
                name = f"{first}#{n}"
            found.kernels[name] = kernel
    found.kernels = dict(sorted(found.kernels.items()))
    return found


def module_of(function: Any) -> str:
    """The module that defines a function, by the name that programs import it under."""
    return str(function.__module__).removeprefix(_FILE)


def autotuner_of(kernel: Any) -> Autotuner | None:
    """The autotuner around or within a decorated kernel; None where there is none."""
    return next((layer for layer in layers(kernel) if isinstance(layer, Autotuner)), None)


def import_file(path: Path) -> Any:
    """The module of a file, run anew.

    Raises:
        ValueError: It cannot be imported.
    """
    try:
        return run_file(path, f"{_FILE}{path.stem}")
    except Exception as error:
        raise ValueError(f"cannot import {path}: {type(error).__name__}: {error}") from error


def import_module(name: str) -> Any:
    """The module of a dotted name; ValueError where it cannot be imported."""
    failed = _import_all([name])
    if failed:
        with _some_driver():
            failed = _import_all([name])
    if failed:
        raise ValueError(f"cannot import {name}: {failed[name]}")
    return sys.modules[name]


def _import_all(names: Iterable[str]) -> dict[str, str]:
    """Import modules; returns those that cannot be, and why."""
    failed: dict[str, str] = {}
    for name in names:
        with _noted(failed, name):
            importlib.import_module(name)
    return failed


def _decorated() -> list[Any]:
    """The outermost decorator of every autotuned kernel that is alive, in the order of their making."""
    wrappers = [o for o in gc.get_objects() if issubclass(type(o), (Autotuner, Heuristics))]
    wrappers = [w for w in wrappers if "fn" in vars(w)]
    inner = {id(w.fn) for w in wrappers}
    return [w for w in wrappers if id(w) not in inner and autotuner_of(w) is not None]


def _modules(where: str) -> Sequence[str]:
    """The modules at and below a dotted name that mention autotuning."""
    try:
        spec = importlib.util.find_spec(where)
    except (ImportError, ValueError) as error:
        raise ValueError(f"no module {where!r}: {error}") from None
    if spec is None:
        raise ValueError(f"no module {where!r}; give FILE.py or the name of an installed package")
    if spec.submodule_search_locations is None:
        return [where]
    return [
        name
        for folder in spec.submodule_search_locations
        for name, path in _files(Path(folder), where)
        if "autotune" in path.read_text("utf-8", "replace")
    ]


def _files(folder: Path, package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py" and path.stem not in ("__main__", "setup"):
            stem = path.stem
            yield (package if stem == "__init__" else f"{package}.{stem}"), path
        elif path.is_dir() and path.name.isidentifier() and path.name not in ("test", "tests"):
            yield from _files(path, f"{package}.{path.name}")


@contextlib.contextmanager
def _noted(failed: dict[str, str], name: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = str(error).splitlines() or [""]
        failed[name] = f"{type(error).__name__}: {lines[0]}"


@contextlib.contextmanager
def _some_driver() -> Iterator[None]:
    """A pretended device where there is none: modules ask what kind of device there is."""
    from autotune_rlm.integrations.triton.stub import StubDriver

    with contextlib.ExitStack() as stack:
        try:
            driver.active.get_current_target()
        except RuntimeError:
            stack.enter_context(StubDriver())
        yield
