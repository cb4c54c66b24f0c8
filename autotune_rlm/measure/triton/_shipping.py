"""A kernel as it is in this process, as JSON: what a compile worker needs in place of a file to import.

A kernel is its source, the kernels that it calls, and the constants and modules that it reads. So
workers compile kernels too that no other process can import: generated ones, those of notebooks, of
scripts that read their command line, below ``if __name__ == "__main__"``. Nothing of the program runs
there but the definitions of the kernels themselves. Whether a kernel was made again faithfully is told
by Triton's ``cache_key``, which the worker compares.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import json
import linecache
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ._compile_worker import decode_value

_PACKAGES = frozenset({"triton", *sys.stdlib_module_names}) - {"__main__"}
_OPTIONS = ("do_not_specialize", "do_not_specialize_on_alignment", "debug", "noinline")


def pack(kernel: Any, encode: Callable[[Any], Any]) -> dict[str, Any] | None:
    """The JSON of a ``JITFunction``, constants by ``encode``; None where it reads what has none."""
    functions: dict[int, dict[str, Any]] = {}
    try:
        _pack(kernel, encode, functions, ())
    except (TypeError, ValueError, AttributeError, SyntaxError, OSError):
        return None
    return {"kernel": str(id(kernel)), "functions": {str(k): v for k, v in functions.items()}}


def unpack(packed: Mapping[str, Any]) -> Any:
    """The ``JITFunction`` that ``pack`` took apart; raises what its imports and definitions raise."""
    return _unpacked(json.dumps(packed, sort_keys=True))


@functools.lru_cache(maxsize=256)
def _unpacked(text: str) -> Any:
    packed = json.loads(text)
    made: dict[str, Any] = {}

    def make(key: str) -> Any:
        if key not in made:
            made[key] = _defined(packed["functions"][key], make)
        return made[key]

    return make(packed["kernel"])


def _pack(
    kernel: Any,
    encode: Callable[[Any], Any],
    functions: dict[int, dict[str, Any]],
    above: tuple[int, ...],
) -> dict[str, Any]:
    if f"{type(kernel).__module__}.{type(kernel).__qualname__}" != "triton.runtime.jit.JITFunction":
        raise TypeError(f"{kernel!r} is no plain kernel")
    if getattr(kernel, "_repr", None) is not None or id(kernel) in above:
        raise TypeError(f"{kernel!r} names itself, or calls itself")
    if id(kernel) not in functions:
        names = _names(kernel)
        lines = list(getattr(kernel, "raw_src", None) or inspect.getsourcelines(kernel.fn)[0])
        tree = ast.parse(textwrap.dedent("".join(lines)))
        found: dict[str, Any] = {}
        for name, chains in _used(tree):
            if name in names:
                found[name] = _value(names[name], chains, encode, functions, (*above, id(kernel)))
        python = kernel.fn
        functions[id(kernel)] = {
            "lines": lines,
            "line": kernel.starting_line_number,
            "file": python.__code__.co_filename,
            "module": python.__module__,
            "qualname": python.__qualname__,
            "globals": found,
            "options": {name: getattr(kernel, name, None) for name in _OPTIONS},
        }
        json.dumps(functions[id(kernel)])  # TypeError where it is none
    return {"function": str(id(kernel))}


def _value(value: Any, chains: set[tuple[str, ...]], *rest: Any) -> Any:
    """The JSON of what a name means; of a module of the user's, what ``chains`` read of it."""
    encode, functions, above = rest
    home = str(getattr(value, "__module__", ""))
    if isinstance(value, types.ModuleType):
        if value.__name__.partition(".")[0] in _PACKAGES:
            return {"import": value.__name__}
        heads = {chain[0] for chain in chains if chain}
        inner = {
            head: _value(getattr(value, head), {c[1:] for c in chains if c and c[0] == head}, *rest)
            for head in sorted(heads)
        }
        return {"namespace": value.__name__, "of": inner}
    # Of the type: asking the value computes its key, and Triton 3.6 gives its callers another one then.
    is_kernel = hasattr(type(value), "cache_key")
    if not is_kernel:
        with contextlib.suppress(TypeError):
            return {"value": encode(value)}
    name = str(getattr(value, "__qualname__", ""))
    if home.partition(".")[0] in _PACKAGES and vars(sys.modules[home]).get(name) is value:
        return {"import": home, "name": name}
    if not is_kernel:
        raise TypeError(f"{value!r} has no JSON form")
    return _pack(value, encode, functions, above)


def _names(kernel: Any) -> dict[str, Any]:
    code = kernel.fn.__code__
    own = {*code.co_varnames, *code.co_cellvars}
    names = {name: value for name, value in kernel.fn.__globals__.items() if name not in own}
    for name, cell in zip(code.co_freevars, kernel.fn.__closure__ or (), strict=True):
        names[name] = cell.cell_contents
    return names


def _used(tree: ast.Module) -> Iterator[tuple[str, set[tuple[str, ...]]]]:
    """Names that a definition reads, with the attributes that it reads of each; no decorators."""
    (definition,) = tree.body
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    found: dict[str, set[tuple[str, ...]]] = {}
    for node in ast.walk(definition):
        chain: list[str] = []
        base: ast.AST = node
        while isinstance(base, ast.Attribute):
            chain.insert(0, base.attr)
            base = base.value
        if isinstance(base, ast.Name) and isinstance(base.ctx, ast.Load):
            found.setdefault(base.id, set()).add(tuple(chain))
    yield from found.items()


def _defined(packed: Mapping[str, Any], make: Callable[[str], Any]) -> Any:
    from triton.runtime.jit import JITFunction

    lines, line = packed["lines"], packed["line"]
    names = {name: _meant(value, make) for name, value in packed["globals"].items()}
    names["__name__"] = packed["module"]
    tree = ast.parse(textwrap.dedent("".join(lines)))
    (definition,) = tree.body
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    exec(compile(ast.increment_lineno(tree, line - 1), packed["file"], "exec"), names)
    _keep_lines(packed["file"], line, lines)
    function = names[definition.name]
    function.__qualname__ = packed["qualname"]
    read = inspect.getsourcelines
    inspect.getsourcelines = lambda of: (list(lines), line)  # type: ignore[assignment]
    try:
        return JITFunction(function, **packed["options"])
    finally:
        inspect.getsourcelines = read


def _keep_lines(file: str, line: int, lines: list[str]) -> None:
    """Triton 3.4 asks ``inspect`` for a kernel's lines once more when it compiles it."""
    if Path(file).exists():
        return
    text = linecache.getlines(file)
    text += ["\n"] * (line - 1 + len(lines) - len(text))
    text[line - 1 : line - 1 + len(lines)] = lines
    linecache.cache[file] = (sum(map(len, text)), None, text, file)


def _meant(value: Mapping[str, Any], make: Callable[[str], Any]) -> Any:
    if "function" in value:
        return make(value["function"])
    if "namespace" in value:
        module = types.ModuleType(value["namespace"])
        for name, inner in value["of"].items():
            setattr(module, name, _meant(inner, make))
        return module
    if "import" in value:
        module = importlib.import_module(value["import"])
        return getattr(module, value["name"]) if "name" in value else module
    return decode_value(value["value"])
