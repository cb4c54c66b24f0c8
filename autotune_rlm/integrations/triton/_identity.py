"""What a timing depends on besides the kernel and its arguments: the compiler, the user's functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from types import CodeType, ModuleType
from typing import Any

import triton
from triton import knobs
from triton._C.libtriton import get_cache_invalidating_env_vars
from triton.runtime import driver

from autotune_rlm.types import digest

_DEPTH = 6
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def compiler_versions() -> dict[str, str]:
    """Triton's full version, and a digest of all else that its cache of binaries is keyed by.

    That is the backend's own version (of ``ptxas``, say), its default options, which flags such as
    ``TRITON_DEFAULT_FP_FUSION`` and ``PTXAS_OPTIONS`` change, and the environment variables that
    Triton calls cache-invalidating.
    """
    flags: list[Any] = [sorted(get_cache_invalidating_env_vars().items())]
    flags += [knobs.runtime.debug, getattr(knobs.compilation, "instrumentation_mode", "")]
    if not knobs.runtime.interpret:
        try:
            backend = triton.compiler.make_backend(driver.active.get_current_target())
            options = vars(backend.parse_options({}))
            flags += [backend.hash(), sorted((name, str(o)) for name, o in options.items())]
        except Exception:  # no device: what is compiled then is not run
            flags.append("no device")
    return {"triton": triton.__version__, "compiler": digest([str(flag) for flag in flags])}


def function_key(function: Any) -> str:
    """Name and digest of a Python function: its code, defaults, and what it is closed over.

    Functions that it calls count too, plain values of its closure and of globals as well. What may
    change as it runs (lists, dictionaries, objects) counts by its type. The same in every process
    with the same Python.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{name}:{digest(list(_parts(function, (), _DEPTH)))}"


def _parts(value: Any, above: tuple[int, ...], depth: int) -> Iterator[Any]:
    if isinstance(value, _PLAIN):
        yield [type(value).__name__, repr(value)]
    elif isinstance(value, (tuple, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, frozenset) else value
        yield [type(value).__name__, [list(_parts(item, above, depth)) for item in items]]
    elif isinstance(value, ModuleType):
        yield ["module", value.__name__]
    elif isinstance(value, functools.partial):
        for part in (value.func, value.args, *sorted(value.keywords.items())):
            yield from _parts(part, above, depth)
    elif inspect.ismethod(value):
        yield from _parts(value.__func__, above, depth)
        yield from _parts(value.__self__, above, depth)
    elif inspect.isfunction(value):
        yield from _of_function(inspect.unwrap(value), above, depth)
    elif callable(value) and inspect.isfunction(getattr(value, "fn", None)):
        from ._source import kernel_source

        yield ["kernel", kernel_source(value)]
    else:
        kind = value if isinstance(value, type) else type(value)
        yield ["a", kind.__module__, kind.__qualname__]
        call = vars(kind).get("__call__")
        if inspect.isfunction(call):
            yield from _parts(call, above, depth)
            state = getattr(value, "__dict__", {})
            plain = {n: v for n, v in state.items() if isinstance(v, _PLAIN)}
            yield sorted([n, repr(v)] for n, v in plain.items())


def _of_function(function: Any, above: tuple[int, ...], depth: int) -> Iterator[Any]:
    code, package = function.__code__, str(function.__module__).partition(".")[0]
    if depth == 0 or id(code) in above or package in ("triton", "torch"):  # their versions tell
        yield ["function", function.__module__, function.__qualname__]
        return
    above = (*above, id(code))
    yield list(_of_code(code))
    yield from _parts(function.__defaults__ or (), above, depth - 1)
    yield from _parts(tuple(sorted((function.__kwdefaults__ or {}).items())), above, depth - 1)
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        yield from _parts(content, above, depth - 1)
    for name in sorted(_names(code)):
        if name in function.__globals__:
            yield name
            yield from _parts(function.__globals__[name], above, depth - 1)


def _of_code(code: CodeType) -> Iterator[Any]:
    yield [code.co_code.hex(), list(code.co_names), list(code.co_varnames), code.co_argcount]
    for constant in code.co_consts:
        inner = _of_code(constant) if isinstance(constant, CodeType) else _parts(constant, (), 1)
        yield list(inner)


def _names(code: CodeType) -> set[str]:
    inner = [_names(c) for c in code.co_consts if isinstance(c, CodeType)]
    return set(code.co_names).union(*inner)
