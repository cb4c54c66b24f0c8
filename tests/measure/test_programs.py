"""The scripts that call packages' operators: without the packages, on stand-ins."""

import argparse
import importlib.util
import runpy
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks" / "programs"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*_operators.py"))
GIVEN = argparse.Namespace(device="cpu", only="", shapes=1, seconds=1e9)


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "_cases", raising=False)

    def load(name):
        spec = importlib.util.spec_from_file_location(f"program_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    sys.modules.pop("_cases", None)


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_its_package_a_script_ends_at_once(load, monkeypatch, capsys, script):
    monkeypatch.setattr(sys, "argv", [script])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / script), run_name="__main__")
    assert end.value.code == 0
    assert "not installed" in capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS)
def test_cases_have_names_of_their_own_and_every_shape_has_its_turn(load, script):
    program = load(Path(script).stem)
    names = [name for name, _ in program.cases(argparse.Namespace(device="meta", shapes=2))]
    assert len(names) == len(set(names)) >= 8
    half = [name for name, _ in program.cases(argparse.Namespace(device="meta", shapes=1))]
    assert names[: len(half)] == half


def test_every_operator_of_fla_gets_all_its_arguments(load, monkeypatch):
    program = load("fla_operators")
    called = {}

    class Operators:
        def __getattr__(self, name):
            return lambda **values: called.setdefault(name, values)

    monkeypatch.setattr(program._cases, "module", lambda name: Operators())
    monkeypatch.setattr(program, "SHAPES", ((1, 64, 2, 16),))
    lines = [line.split() for line in program.OPERATORS.split("\n") if line]
    for name, *given in lines:
        program.operator(name, given, (1, 64, 2, 16), "cpu")
    assert set(called) == {name for name, *_ in lines}
    for values in called.values():
        assert all(not isinstance(value, str) for value in values.values())
    assert called["chunk_gla"]["q"].shape == called["chunk_gla"]["g"].shape == (1, 64, 2, 16)
    assert (called["chunk_gla"]["g"] < 0).all()
    assert called["chunk_cyfa"]["q_norm_eps"] == 1e-6


def test_a_case_that_fails_is_told_and_passed_over(load, capsys):
    cases = load("_cases")
    x = torch.ones(3, requires_grad=True)

    def fails():
        raise ValueError("two\nlines")

    cases.run([("bad", fails), ("good", lambda: x * 2), ("other", lambda: None)], GIVEN)
    said = capsys.readouterr().err
    assert "bad failed: ValueError: two lines" in said
    assert "2 cases ran, 1 failed" in said
    assert torch.equal(x.grad, torch.full((3,), 2.0))


def test_after_an_error_that_the_device_does_not_survive_nothing_runs(load):
    cases = load("_cases")

    def breaks():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        cases.run([("breaks", breaks), ("never", pytest.fail)], GIVEN)


def test_a_module_that_cannot_be_imported_fails_when_it_is_used(load):
    absent = load("_cases").module("no_such_module_at_all")
    with pytest.raises(ImportError, match="no_such_module_at_all"):
        absent.operator(1)
