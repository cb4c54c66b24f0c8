"""What a Python program's syntax tree says of the memory that it will take."""

from __future__ import annotations

import ast
import functools
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources

_COUNTED: dict[str, tuple[type[ast.AST], ...]] = {
    "loops": (ast.For, ast.While, ast.AsyncFor),
    "comprehensions": (ast.ListComp, ast.SetComp, ast.DictComp),
    "generators": (ast.GeneratorExp, ast.Yield, ast.YieldFrom),
    "branches": (ast.If, ast.IfExp, ast.Match) if hasattr(ast, "Match") else (ast.If, ast.IfExp),
    "functions": (ast.FunctionDef, ast.AsyncFunctionDef),
    "classes": (ast.ClassDef,),
    "lambdas": (ast.Lambda,),
    "calls": (ast.Call,),
    "arithmetic": (ast.BinOp, ast.AugAssign, ast.UnaryOp),
    "compares": (ast.Compare, ast.BoolOp),
    "subscripts": (ast.Subscript,),
    "lists": (ast.List,),
    "dicts": (ast.Dict,),
    "tuples": (ast.Tuple,),
    "sets": (ast.Set,),
    "formatted": (ast.JoinedStr,),
    "handlers": (ast.Try, ast.Raise, ast.Assert),
    "assigns": (ast.Assign, ast.AnnAssign),
    "attributes": (ast.Attribute,),
    "annotations": (ast.arg,),
}
_KIND = {kind: name for name, kinds in _COUNTED.items() for kind in kinds}
_CALLED = (
    "append", "extend", "add", "insert", "pop", "popleft", "get", "items", "keys", "values", "update",
    "range", "len", "sum", "min", "max", "sorted", "sort", "set", "dict", "list", "tuple", "str",
    "int", "float", "round", "map", "filter", "zip", "enumerate", "reversed", "join", "split",
    "replace", "format", "print", "open", "isinstance", "deque", "defaultdict", "Counter",
    "namedtuple", "dataclass", "lru_cache", "heappush", "permutations", "combinations", "product",
    "deepcopy", "copy", "compile", "sub", "findall", "match", "search", "randint", "random", "choice",
    "shuffle", "seed", "sqrt", "log", "exp", "pow", "Decimal", "Fraction", "bytes", "bytearray",
    "encode", "decode", "ord", "chr", "dumps", "loads", "strftime", "strptime", "hexdigest", "super",
    "iter", "next", "any", "all", "bin", "input", "read", "readlines", "eval", "exec",
)  # fmt: skip
_MODULES = (
    "random", "math", "re", "collections", "itertools", "functools", "typing", "json", "string",
    "copy", "datetime", "decimal", "fractions", "enum", "abc", "dataclasses", "hashlib", "heapq",
    "operator", "os", "sys", "time", "csv", "queue", "threading", "statistics", "numbers",
)  # fmt: skip
NAMES: tuple[str, ...] = (
    "parses",
    "import_bytes",
    "import_modules",
    "late_import_bytes",
    "unknown_imports",
    *(f"imports {name}" for name in _MODULES),
    *_COUNTED,
    *(f"calls {name}" for name in _CALLED),
    "nodes",
    "code_nodes",
    "deepest_loop",
    "deepest_growth",
    "growth_sites",
    "repeated_lists",
    "repeated_in_loops",
    "recursive",
    "remembered",
    "text_bytes",
    "longest_text",
    "largest_constant",
    "longest_literal",
    "names",
    "decorators",
    "docs_bytes",
    "module_code",
    "class_code",
)
"""Names of the facts, in order."""
_GROWING = frozenset(("append", "extend", "add", "insert", "appendleft", "setdefault", "update"))


def python_facts(text: str) -> dict[str, float]:
    """Facts of a program by the names of ``NAMES``; those of an empty one where it does not parse."""
    found = dict.fromkeys(NAMES, 0.0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return found
    found["parses"] = 1.0
    nodes = list(ast.walk(tree))
    _imports(tree, nodes, found)
    _counts(tree, nodes, found)
    _Depths(found).visit(tree)
    return found


def _imports(tree: ast.Module, nodes: Sequence[ast.AST], found: dict[str, float]) -> None:
    known = _costs()
    early, late, unknown = set[str](), set[str](), 0
    at_start = {id(node) for node in tree.body}
    for node in nodes:
        is_late = id(node) not in at_start
        for name in _imported(node):
            name = name if name in known else name.partition(".")[0]
            if name in known:
                (late if is_late else early).add(name)
            elif name != "__future__":
                unknown += 1
    found["import_bytes"], found["import_modules"] = _cost(early, known)
    found["late_import_bytes"] = _cost(early | late, known)[0] - found["import_bytes"]
    found["unknown_imports"] = unknown
    for name in early | late:
        if name.partition(".")[0] in _MODULES:
            found[f"imports {name.partition('.')[0]}"] = 1.0


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module


@functools.cache
def _costs() -> Mapping[str, tuple[float, frozenset[str]]]:
    """Bytes that importing a module of the standard library takes, and what it loads."""
    data = json.loads(resources.files(__package__).joinpath("imports.json").read_text())
    names = data["names"]
    return {
        name: (float(cost), frozenset(names[i] for i in loaded))
        for name, (cost, loaded) in data["modules"].items()
    }


def _cost(
    modules: set[str], known: Mapping[str, tuple[float, frozenset[str]]]
) -> tuple[float, float]:
    """Bytes of importing all of them, each without what others have loaded; modules that are loaded."""
    total, loaded = 0.0, set[str]()
    for name in sorted(modules, key=lambda name: -known[name][0]):
        cost, its = known[name]
        if name in loaded or not its:
            continue
        shared = its & loaded
        saved = max((known[m][0] for m in shared if m in known), default=0.0)
        share = cost * len(shared) / len(its)
        total += max(cost - max(saved, share), 0.0)
        loaded |= its
    return total, float(len(loaded))


def _counts(tree: ast.Module, nodes: Sequence[ast.AST], found: dict[str, float]) -> None:
    names, docs = set[str](), 0
    for node in nodes:
        found["nodes"] += 1
        kind = _KIND.get(type(node))
        if kind is not None:
            found[kind] += 1
        if isinstance(node, ast.Call):
            called = _name_of(node.func)
            if f"calls {called}" in found:
                found[f"calls {called}"] += 1
        elif isinstance(node, ast.Constant):
            _constant(node.value, found)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            found["longest_literal"] = max(found["longest_literal"], len(node.elts))
        elif isinstance(node, ast.Dict):
            found["longest_literal"] = max(found["longest_literal"], len(node.keys))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            docs += len(ast.get_docstring(node, clean=False) or "")
            found["decorators"] += len(node.decorator_list)
        if isinstance(node, ast.FunctionDef):
            found["recursive"] += _calls_itself(node)
            found["remembered"] += any("cache" in ast.dump(d) for d in node.decorator_list)
        if isinstance(node, ast.ClassDef):
            found["class_code"] += sum(1 for _ in ast.walk(node))
    found["names"], found["docs_bytes"] = len(names), docs
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
            found["module_code"] += sum(1 for _ in ast.walk(node))
    found["code_nodes"] = found["nodes"] - found["module_code"]


def _constant(value: object, found: dict[str, float]) -> None:
    if isinstance(value, (str, bytes)):
        found["text_bytes"] += len(value)
        found["longest_text"] = max(found["longest_text"], len(value))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        size = abs(value)
        if math.isfinite(size) and size < 1e15:
            found["largest_constant"] = max(found["largest_constant"], float(size))


def _name_of(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")


def _calls_itself(function: ast.FunctionDef) -> bool:
    return any(
        isinstance(node, ast.Call) and _name_of(node.func) == function.name
        for node in ast.walk(function)
    )


class _Depths(ast.NodeVisitor):
    """How deep loops go, and how deep inside of them something grows or is allocated."""

    def __init__(self, found: dict[str, float]) -> None:
        self._found = found
        self._depth = 0

    def _most(self, name: str, value: float) -> None:
        self._found[name] = max(self._found[name], value)

    def _deeper(self, node: ast.AST, by: int) -> None:
        self._depth += by
        self._most("deepest_loop", self._depth)
        self.generic_visit(node)
        self._depth -= by

    def visit_For(self, node: ast.For) -> None:
        self._deeper(node, 1)

    def visit_While(self, node: ast.While) -> None:
        self._deeper(node, 1)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp) -> None:
        by = len(node.generators)
        self._most("deepest_growth", self._depth + by)
        self._found["growth_sites"] += 1
        self._deeper(node, by)

    visit_ListComp = visit_SetComp = visit_DictComp = _comprehension

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._deeper(node, len(node.generators))

    def visit_Call(self, node: ast.Call) -> None:
        if _name_of(node.func) in _GROWING:
            self._most("deepest_growth", self._depth)
            self._found["growth_sites"] += 1
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        lists = (ast.List, ast.ListComp)
        if isinstance(node.op, ast.Mult) and isinstance(node.left, lists):
            self._found["repeated_lists"] += 1
            self._found["repeated_in_loops"] += self._depth > 0
        self.generic_visit(node)
