"""A kernel's program text in the one form that the model reads and the store is keyed by.

Comments, docstrings, decorators and spacing make no difference. Device functions that the kernel
reaches, globals that it reads and options of ``@triton.jit`` do.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import numbers
import textwrap
import weakref
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from types import ModuleType
from typing import Any

import triton.language as tl

from autotune_rlm._forks import ForkSafeLock
from autotune_rlm.measure.triton.layers import unwrap
from autotune_rlm.types import digest

from ._identity import function_key

_cache: weakref.WeakKeyDictionary[Callable[..., Any], tuple[Any, str]] = weakref.WeakKeyDictionary()
_lock = ForkSafeLock()
_MAX_LENGTH = 200  # characters of a constant in the text; of a longer one a digest
_OPTIONS = ("do_not_specialize", "do_not_specialize_on_alignment", "noinline", "debug")


def constant_names(kernel: Any) -> list[str]:
    """The ``tl.constexpr`` arguments of a kernel; the others are given at run time."""
    parameters = inspect.signature(unwrap(kernel).fn).parameters
    return [name for name, p in parameters.items() if "constexpr" in str(p.annotation)]


def kernel_source(kernel: Any) -> str:
    """Normalised source of a kernel and of all that it depends on; computed once per kernel.

    Args:
        kernel: A ``@triton.jit`` function, decorated further or not.

    Returns:
        The kernel first, then the device functions that it reaches in order of their use, then
        ``NAME = value`` for the globals and options that it is compiled with.
    """
    jit = unwrap(kernel)
    program = getattr(jit, "src", None)  # Triton lets it be replaced
    with _lock:
        known = _cache.get(jit.fn)
    if known is not None and known[0] == program:
        return known[1]
    reader = _Reader()
    reader.read(jit)
    source = reader.text()
    with _lock:
        _cache[jit.fn] = (program, source)
    return source


def parse(jit: Any) -> ast.Module | None:
    """The syntax tree of a ``@triton.jit`` function's source; None where there is none."""
    try:
        text = getattr(jit, "src", None) or inspect.getsource(jit.fn)
        tree = ast.parse(textwrap.dedent(text))
    except (OSError, TypeError, SyntaxError):
        return None
    # Python 3.13 gives the text of `python -c` for code that has none.
    names = {getattr(node, "name", "<lambda>") for node in ast.walk(tree) if _is_function(node)}
    return tree if jit.fn.__name__ in names else None


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.Lambda))


class _Reader:
    """Collects the text of a kernel and of what it is compiled with."""

    def __init__(self) -> None:
        self._functions: dict[Any, str] = {}
        self._constants: dict[str, str] = {}

    def text(self) -> str:
        constants = (f"{name} = {value}" for name, value in sorted(self._constants.items()))
        return "\n".join(line for line in (*self._functions.values(), *constants) if line)

    def read(self, jit: Any) -> None:
        function = jit.fn
        self._functions[function] = ""
        tree = parse(jit)
        if tree is None:
            self._functions[function] = f"# {function.__name__}: {_unread(jit)}"
            return
        tree = _Plain().visit(tree)
        for name, value in _globals_used(tree, function):
            self._note(name, value)
        for name, value in _computed_defaults(tree, function):
            self._note(f"{function.__name__}.{name}", value)
        for name in _OPTIONS:
            if option := getattr(jit, name, None):
                self._note(f"{function.__name__}.{name}", option)
        self._functions[function] = ast.unparse(tree)

    def _note(self, name: str, value: Any) -> None:
        text = self._constant(name, value)
        if text is not None:
            short = len(text) <= _MAX_LENGTH
            self._constants[name] = text if short else f"{text[:_MAX_LENGTH]}... {digest(text)}"

    def _constant(self, name: str, value: Any) -> str | None:
        """The text of a value that a kernel is compiled with; None for what it is not."""
        if isinstance(value, tl.constexpr):
            return self._constant(name, value.value)
        if isinstance(value, ModuleType) or _is_of_triton(value):
            return None
        if _is_device_function(value):
            if value.fn not in self._functions:
                self.read(value)
            own = value.fn.__name__
            return None if name.rpartition(".")[2] == own else own
        if getattr(value, "__triton_aggregate__", False):
            for attribute in getattr(value, "hash_attrs", ()):
                self._constant("", attribute)
            return str(getattr(value, "__annotations__", ""))
        if isinstance(value, (tuple, list)):
            return f"({', '.join(str(self._constant('', item)) for item in value)})"
        if isinstance(value, Mapping):
            items = (f"{key!r}: {self._constant('', item)}" for key, item in value.items())
            return f"{{{', '.join(items)}}}"
        if inspect.isfunction(value):
            return function_key(value)
        if inspect.isbuiltin(value):
            return None
        if isinstance(value, (str, bytes, numbers.Number, Enum, type(None))):
            return repr(value)
        if type(value).__name__ == "dtype" or isinstance(value, type):
            return str(value)
        return type(value).__qualname__


def _unread(jit: Any) -> str:
    """What stands for a program text that cannot be read."""
    try:
        return f"cache key {jit.cache_key}"
    except Exception:
        return function_key(jit.fn)


def _is_device_function(value: Any) -> bool:
    return inspect.isfunction(getattr(value, "fn", None)) and not isinstance(value, type)


def _is_of_triton(value: Any) -> bool:
    """Whether Triton's version tells all about it: builtins, its own device functions."""
    if isinstance(value, tl.dtype):
        return False
    module = getattr(getattr(value, "fn", value), "__module__", None) or ""
    return callable(value) and str(module).partition(".")[0] == "triton"


def _globals_used(tree: ast.Module, function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Name and value of what a function reads from outside, over attributes of any depth."""
    names = dict(function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            names[name] = cell.cell_contents
    for argument in ast.walk(tree):  # what is assigned or given hides what is outside
        if isinstance(argument, ast.arg):
            names.pop(argument.arg, None)
        elif isinstance(argument, ast.Name) and not isinstance(argument.ctx, ast.Load):
            names.pop(argument.id, None)
    yield from _used_in(tree, names)


def _used_in(node: ast.AST, names: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    attributes: list[str] = []
    root = node
    while isinstance(root, ast.Attribute):
        attributes.insert(0, root.attr)
        root = root.value
    if not isinstance(root, ast.Name):
        for child in ast.iter_child_nodes(node):
            yield from _used_in(child, names)
        return
    if root.id not in names:
        return
    path, value = root.id, names[root.id]
    for attribute in attributes:
        if isinstance(value, tl.constexpr) or _is_device_function(value):
            break
        try:
            value = getattr(value, attribute)
        except Exception:
            return
        path = f"{path}.{attribute}"
    yield path, value


def _computed_defaults(tree: ast.Module, function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Defaults of arguments whose text does not say their value."""
    definition = next((n for n in tree.body if isinstance(n, ast.FunctionDef)), None)
    if definition is None:
        return
    given = definition.args
    placed = [*given.posonlyargs, *given.args]
    pairs: list[tuple[ast.arg, ast.expr | None]] = [
        *zip(reversed(placed), reversed(given.defaults), strict=False)
    ]
    pairs += [*zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    parameters = inspect.signature(function).parameters
    for argument, default in pairs:
        if default is not None and not isinstance(default, ast.Constant):
            yield argument.arg, parameters[argument.arg].default


class _Plain(ast.NodeTransformer):
    """Drops decorators and docstrings."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.decorator_list = []
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return node
