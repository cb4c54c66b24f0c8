"""An import may only point down the list of rooms, in no circle, to no private module elsewhere."""

import ast
from collections import defaultdict
from pathlib import Path

import autotune_rlm

ROOT = Path(autotune_rlm.__file__).parent
# Private to the package.
SHARED = {file.stem for file in ROOT.glob("_[a-z]*.py")}
ROOMS = (
    SHARED | {"types", "devices", "config_space", "dtypes", "formats", "progress"},
    {"learn"},
    {"landscapes", "networks", "ir", "programs"},
    {"store"},
    {"measure"},
    {"surrogate"},
    {"training", "record"},
    {"regression"},
    {"search"},
    {"integrations"},
    {"bench"},
    {"report"},
    {"cli"},
    {"__main__"},
)

MEASURING = (
    {"errors", "interpreter", "detect"},
    {"statistics"},
    {"workers"},
    {"triton", "onnxruntime"},
    {"pace", "replay"},
)


def imports():
    """All imports between modules of the package: (from, to, inside a function or for types only)."""
    for file in ROOT.rglob("*.py"):
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        package = parts[:-1]
        here = ".".join(package if parts[-1] == "__init__" else parts)
        tree = ast.parse(file.read_text(encoding="utf-8"))
        top = {id(node) for node in tree.body}
        for node in ast.walk(tree):
            for name in _named(node, package):
                if name.startswith("autotune_rlm."):
                    yield here.partition(".")[2], name.partition(".")[2], id(node) not in top


def _named(node, package):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        module = ".".join([*base, *([node.module] if node.module else [])])
        return [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return []


def room(module):
    return module.partition(".")[0]


def level(module):
    return next(i for i, rooms in enumerate(ROOMS) if room(module) in rooms)


def test_every_module_is_in_a_room():
    found = {f.stem if f.is_file() else f.name for f in ROOT.iterdir() if _is_code(f)}
    assert found == set.union(*ROOMS)


def _is_code(path):
    return (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()


def test_an_import_at_the_top_of_a_module_only_points_down():
    up = {
        (a, b)
        for a, b, later in imports()
        if not later
        and room(a) != ""
        and room(a) != room(b)
        and _is_module(b)
        and level(a) < level(b)
    }
    assert not up


def _is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def test_a_private_module_is_imported_only_within_the_package_that_holds_it():
    found = set()
    for a, b, _ in imports():
        parts = b.split(".")
        private = next((i for i, p in enumerate(parts) if p.startswith("_")), None)
        if private is None or not _is_module(".".join(parts[: private + 1])):
            continue
        if not f"{a}.".startswith("".join(f"{p}." for p in parts[:private])):
            found.add((a, ".".join(parts[: private + 1])))
    assert not found


def test_measuring_has_rooms_of_its_own():
    up = {
        (a, b)
        for a, b, later in imports()
        if not later and room(a) == room(b) == "measure" and _of_measuring(a) < _of_measuring(b)
    }
    assert not up


def _of_measuring(module):
    """The level of a module of ``measure``; of one that stands in no room, that of the ground."""
    name = module.split(".")[1] if "." in module else "pace"
    return next((i for i, rooms in enumerate(MEASURING) if name in rooms), 0)


def test_rooms_make_no_circle():
    edges = defaultdict(set)
    for a, b, later in imports():
        if not later and room(a) not in {"", room(b)} and _is_module(b):
            edges[room(a)].add(room(b))

    def visit(node, path):
        assert node not in path, " -> ".join([*path, node])
        for other in edges[node]:
            visit(other, [*path, node])

    for start in list(edges):
        visit(start, [])
