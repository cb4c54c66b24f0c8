"""A kernel's program text in the one form that the model reads and the store is keyed by.

Comments, docstrings, decorators and spacing make no difference; device functions that the kernel
calls and constants that it reads do.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import triton.language as tl

__all__ = ["constant_names", "kernel_source", "parse", "unwrap"]

_cache: weakref.WeakKeyDictionary[Callable[..., Any], str] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def unwrap(kernel: Any) -> Any:
    """The ``@triton.jit`` function inside decorators such as heuristics and autotuners.

    Raises:
        TypeError: ``kernel`` is none and wraps none.
    """
    inner = kernel
    while not inspect.isfunction(getattr(inner, "fn", None)):
        if not hasattr(inner, "fn"):
            raise TypeError(
                f"expected a @triton.jit function, got {kernel!r}; put @triton.jit under the decorator"
            )
        inner = inner.fn
    return inner


def constant_names(kernel: Any) -> list[str]:
    """The ``tl.constexpr`` arguments of a kernel; the others are given at run time."""
    parameters = inspect.signature(unwrap(kernel).fn).parameters
    return [name for name, p in parameters.items() if "constexpr" in str(p.annotation)]


def kernel_source(kernel: Any) -> str:
    """Normalised source of a kernel and of all that it depends on; computed once per kernel.

    Args:
        kernel: A ``@triton.jit`` function, decorated further or not.

    Returns:
        The kernel first, then the device functions that it calls in order of their use, then
        ``NAME = value`` for the ``tl.constexpr`` globals read. Empty where there is no source.
    """
    jit = unwrap(kernel)
    with _lock:
        known = _cache.get(jit.fn)
    if known is not None:
        return known
    functions: dict[Any, str] = {}
    constants: dict[str, str] = {}
    _collect(jit, functions, constants)
    lines = [*functions.values(), *(f"{k} = {v}" for k, v in sorted(constants.items()))]
    source = "\n".join(line for line in lines if line)
    with _lock:
        _cache[jit.fn] = source
    return source


def _collect(jit: Any, functions: dict[Any, str], constants: dict[str, str]) -> None:
    function = jit.fn
    functions[function] = ""
    tree = parse(jit)
    if tree is None:
        return
    functions[function] = ast.unparse(_Plain().visit(tree))
    for name, value in _globals_used(tree, function):
        if isinstance(value, tl.constexpr):
            constants[name] = repr(value.value)
        elif _is_device_function(value) and value.fn not in functions:
            _collect(value, functions, constants)


def parse(jit: Any) -> ast.Module | None:
    """The syntax tree of a ``@triton.jit`` function's source; None where there is none."""
    try:
        text = getattr(jit, "src", None) or inspect.getsource(jit.fn)
        return ast.parse(textwrap.dedent(text))
    except (OSError, TypeError, SyntaxError):
        return None


def _is_device_function(value: Any) -> bool:
    function = getattr(value, "fn", None)
    return inspect.isfunction(function) and not function.__module__.startswith("triton.")


def _globals_used(tree: ast.Module, function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    names = dict(function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            names[name] = cell.cell_contents
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names:
            yield node.id, names[node.id]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = names.get(node.value.id)
            if isinstance(owner, ModuleType) and hasattr(owner, node.attr):
                yield f"{node.value.id}.{node.attr}", getattr(owner, node.attr)


class _Plain(ast.NodeTransformer):
    """Drops decorators and docstrings."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.decorator_list = []
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return node
