"""Promises of the command line's help: every command, every option."""

from __future__ import annotations

import pytest
import typer.main
from typer.testing import CliRunner

from autotune_rlm.cli import app


def commands(group=None, names=()):
    """Each command as the words that call it and the command itself."""
    group = group or typer.main.get_command(app)
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            yield from commands(command, (*names, name))
        else:
            yield (*names, name), command


COMMANDS = dict(commands())


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_help_is_of_this_command_alone(names):
    shown = CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert "--install-completion" not in shown.output
    assert "--show-completion" not in shown.output
    assert all(len(line) <= 80 for line in shown.output.splitlines())


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_and_option_says_what_it_does(names):
    command = COMMANDS[names]
    assert command.help
    silent = [p.name for p in command.params if not getattr(p, "help", None) and not p.hidden]
    assert not silent


def test_completion_belongs_to_the_program():
    shown = CliRunner().invoke(app, ["--help"])
    assert "--install-completion" in shown.output
