"""Public names: each can be imported, costs nothing until it is used, and is known to type checkers."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from autotune_rlm._moved import MOVED

LAZY = (
    "autotune_rlm",
    "autotune_rlm.measure",
    "autotune_rlm.measure.onnxruntime",
    "autotune_rlm.measure.triton",
    "autotune_rlm.networks",
    "autotune_rlm.report",
)
TYPED = """
from typing import assert_type

import autotune_rlm
from autotune_rlm import Candidate, ConfigSpace, Prediction, RLMSampler, Store, load_surrogate
from autotune_rlm.measure import CompilePool, StoppingRule
from autotune_rlm.surrogate import RLMSurrogate

assert_type(load_surrogate(), RLMSurrogate)
assert_type(ConfigSpace(BLOCK=[1, 2]), ConfigSpace)
assert_type(Store(":memory:"), Store)
assert_type(RLMSampler(seed=1), RLMSampler)
assert_type(StoppingRule(), StoppingRule)
assert_type(Candidate({"BLOCK": 1}).key, str)
autotune_rlm.no_such_name
"""


@pytest.mark.parametrize("name", LAZY)
def test_every_lazy_name_can_be_imported(name):
    module = importlib.import_module(name)
    assert module.__all__
    for public in module.__all__:
        assert getattr(module, public) is not None
    with pytest.raises(AttributeError):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_name_of_a_module_warns_and_gives_the_same_module(old, new, monkeypatch):
    for name in [m for m in sys.modules if f"{m}.".startswith(f"autotune_rlm.{old}.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.warns(DeprecationWarning, match=rf"{old} is now autotune_rlm\.{new}$") as warned:
        module = importlib.import_module(f"autotune_rlm.{old}")
    assert module is importlib.import_module(f"autotune_rlm.{new}")
    assert module.__spec__.name == module.__name__ == f"autotune_rlm.{new}"
    assert any(w.filename == importlib.__file__ for w in warned)


def test_what_is_below_a_moved_package_moves_with_it():
    with pytest.warns(DeprecationWarning, match=r"training\.recipe is now"):
        recipe = importlib.import_module("autotune_rlm.surrogate.training.recipe")
    assert recipe.__name__ == "autotune_rlm.training.recipe"


def test_import_loads_neither_torch_nor_triton_nor_numpy():
    code = (
        "import sys, autotune_rlm; sys.exit(bool({'torch', 'triton', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_type_checkers_see_the_public_names(tmp_path):
    pytest.importorskip("mypy")
    file = tmp_path / "use.py"
    file.write_text(TYPED, "utf-8")
    command = [sys.executable, "-m", "mypy", "--python-version=3.11", "--ignore-missing-imports"]
    done = subprocess.run(
        [*command, "--follow-imports=silent", str(file)], capture_output=True, text=True
    )
    complaints = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(complaints) == 1, done.stdout
    assert "no_such_name" in complaints[0]
