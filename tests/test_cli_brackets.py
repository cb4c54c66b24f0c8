"""Square brackets in paths, extras and messages are printed as they stand."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from typer.testing import CliRunner

import autotune_rlm.cli
from autotune_rlm.cli import app
from autotune_rlm.cli._app import new_console, print_error

FOLDER = Path(autotune_rlm.cli.__file__).parent
SAMPLES = (
    "data[v2]/x.json",
    "autotune-rlm[postgres]",
    "closing [/b] tag",
    "f32[1,3,32,32]",
    "[red]",
)


def _shown(capsys):
    return "".join(capsys.readouterr()).replace("\n", "")


@pytest.mark.parametrize("text", SAMPLES)
def test_consoles_and_errors_show_brackets(text, capsys):
    from rich.table import Table

    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    console = new_console(width=200)
    console.print(text)
    console.print(table)
    assert _shown(capsys).count(text) == 4
    print_error(ValueError(text))
    assert f"error: {text}" in _shown(capsys)


@pytest.mark.parametrize("folder", ["data[v2]", "[b]", "[/b]"])
def test_a_command_names_a_path_with_brackets(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_RLM_STORE", str(tmp_path / "store.sqlite"))
    missing = tmp_path / folder / "none.json"
    result = CliRunner(env={"COLUMNS": "400"}).invoke(app, ["store", "import", str(missing)])
    assert result.exit_code != 0
    assert f"{folder}/none.json" in result.output
    assert "Traceback" not in result.output


def test_no_command_makes_a_console_of_its_own():
    """One that reads markup would swallow the brackets again."""
    for path in FOLDER.glob("*.py"):
        if path.name == "_app.py":
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        made = [c for c in calls if getattr(c.func, "id", "") == "Console"]
        assert not made, f"{path.name}:{made[0].lineno} makes a Console; use new_console"
        columns = [c for c in calls if getattr(c.func, "id", "") == "TextColumn"]
        assert all(
            "{task" not in ast.unparse(c.args[0]) or any(k.arg == "markup" for k in c.keywords)
            for c in columns
        ), f"{path.name}: TextColumn reads markup; give it markup=False"
