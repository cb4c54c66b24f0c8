"""Loads one kernel from a Python file without running the rest of the file.

A compile worker needs a kernel's function, its helpers and constants. Importing the whole file
would run a user's script again, and import torch. So only the top-level statements that the kernel
needs, directly or through others, are executed; line numbers stay as they are, which keeps Triton's
cache keys equal to those of the program that imported the file.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import importlib
import os
import types
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .layers import unwrap

_BUILTINS = frozenset(dir(builtins))
_KEEP = "__autotune_rlm_keep__"


def load_kernel(file: str, function: str, module: str = "", sha256: str = "") -> Any:
    """The ``triton.JITFunction`` named ``function`` at the top level of ``file``.

    Decorators outside of ``triton.jit`` are not applied. ``module`` is the dotted name of the file's
    module, which its relative imports need. With ``sha256`` (``file_sha256``) nothing is executed, no
    module of that name either, unless the file holds that.

    Raises:
        ValueError: The name is not a kernel at the top level of the file, or the file is another one.
        Exception: Whatever the executed statements raise.
    """
    return _load(os.path.abspath(file), os.stat(file).st_mtime_ns, function, module, sha256)


def file_sha256(file: str) -> str:
    """SHA-256 of a file's content in hexadecimal digits."""
    return _sha256(os.path.abspath(file), os.stat(file).st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256(file: str, mtime_ns: int) -> str:
    with open(file, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


@functools.lru_cache(maxsize=256)
def _load(file: str, mtime_ns: int, function: str, module: str, sha256: str) -> Any:
    with open(file, "rb") as stream:
        text = stream.read()
    if sha256 and hashlib.sha256(text).hexdigest() != sha256:
        raise ValueError(f"{file} has changed since its kernel {function!r} was noted")
    tree = ast.parse(text, filename=file)
    top = function.split(".")[0]
    if "<locals>" in function or top not in {
        name for unit in _units(tree.body) for name in unit.bound()
    }:
        raise ValueError(f"{file} has no kernel {function!r} at its top level")
    namespace = types.ModuleType(module or "__autotune_rlm_kernel__")
    namespace.__file__ = file
    if "." in module:
        namespace.__package__ = module.rpartition(".")[0]
    namespace.__dict__[_KEEP] = lambda decorated: decorated
    needed = ast.Module(body=_slice(tree, top), type_ignores=[])
    try:
        exec(compile(needed, file, "exec"), namespace.__dict__)
        found: Any = namespace
        for part in function.split("."):
            found = getattr(found, part)
    except (NameError, AttributeError, KeyError):
        if not module or module == "__main__":
            raise
        if sha256:
            found = namespace
            exec(compile(text, file, "exec"), namespace.__dict__)
        else:
            found = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    try:
        return unwrap(found)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _slice(tree: ast.Module, target: str) -> list[ast.stmt]:
    """The statements of ``tree`` that ``target`` needs, in their order.

    Of a loop, a ``with`` and an ``if`` too only what is needed stays: the rest is the program's own work.
    """
    units = list(_units(tree.body))
    for unit in units:
        if isinstance(unit.node, ast.FunctionDef) and unit.node.name == target:
            _strip(unit.node)
    bound = [set(unit.bound()) for unit in units]
    used = {unit.node: set(unit.used()) for unit in units}
    wanted, seen = [target], {target}
    chosen: set[ast.stmt] = set()

    def choose(unit: _Unit) -> None:
        for node in {unit.node, *unit.around} - chosen:
            chosen.add(node)
            wanted.extend(used[node] - seen)
            seen.update(used[node])

    while wanted:
        name = wanted.pop()
        for unit, names in zip(units, bound, strict=True):
            if name in names:
                choose(unit)
    unknown = seen - set().union(*bound) - _BUILTINS
    for unit, names in zip(units, bound, strict=True):
        is_future = isinstance(unit.node, ast.ImportFrom) and unit.node.module == "__future__"
        if is_future or (unknown and "*" in names):
            choose(unit)
    return _only(tree.body, chosen)


_LOOPS = (ast.For, ast.While)
_COMPOUND = (*_LOOPS, ast.If, ast.With)


class _Unit(NamedTuple):
    """A statement without those in its body, and the statements that it is in."""

    node: ast.stmt
    around: tuple[ast.stmt, ...]

    def _own(self) -> list[ast.AST]:
        if not isinstance(self.node, _COMPOUND):
            return [self.node]
        return [n for n in ast.iter_child_nodes(self.node) if not isinstance(n, ast.stmt)]

    def bound(self) -> Iterator[str]:
        """Names that it binds; of what ends a loop's round, the loop's own name."""
        for part in self._own():
            yield from _bound(part)
        if isinstance(self.node, (ast.Break, ast.Continue)):
            yield from [_loop(n) for n in self.around if isinstance(n, _LOOPS)][-1:]

    def used(self) -> Iterator[str]:
        for part in self._own():
            yield from _used(part)
        if isinstance(self.node, _LOOPS):
            yield _loop(self.node)


def _loop(node: ast.stmt) -> str:
    return f"<loop {id(node)}>"


def _units(body: Sequence[ast.stmt], around: tuple[ast.stmt, ...] = ()) -> Iterator[_Unit]:
    for node in body:
        if isinstance(node, ast.If) and _is_main_guard(node.test):
            continue
        yield _Unit(node, around)
        if isinstance(node, _COMPOUND):
            for part in (node.body, getattr(node, "orelse", ())):
                yield from _units(part, (*around, node))


def _only(body: Sequence[ast.stmt], chosen: set[ast.stmt]) -> list[ast.stmt]:
    kept = [node for node in body if node in chosen]
    for node in kept:
        if isinstance(node, _COMPOUND):
            node.body = _only(node.body, chosen) or [ast.copy_location(ast.Pass(), node)]
            if not isinstance(node, ast.With):
                node.orelse = _only(node.orelse, chosen)
    return kept


def _strip(node: ast.FunctionDef) -> None:
    """Leaves a function its innermost decorator only, and its first line."""
    if len(node.decorator_list) > 1:
        first, last = node.decorator_list[0], node.decorator_list[-1]
        keep = ast.copy_location(ast.Name(id=_KEEP, ctx=ast.Load()), first)
        node.decorator_list = [keep, last]


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a statement binds or changes in its own scope; ``"*"`` for a star import."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
        return
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0]
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store):
        base: ast.AST = node
        while isinstance(base, (ast.Subscript, ast.Attribute)):
            base = base.value
        if isinstance(base, ast.Name):
            yield base.id
    if isinstance(node, ast.Lambda):
        return
    for child in ast.iter_child_nodes(node):
        yield from _bound(child)


def _used(node: ast.AST) -> Iterator[str]:
    for child in ast.walk(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load) and child.id != _KEEP:
            yield child.id
        elif isinstance(child, ast.Constant) and str(child.value).isidentifier():
            yield str(child.value)  # perhaps a string annotation


def _is_main_guard(test: ast.expr) -> bool:
    return any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(test))
