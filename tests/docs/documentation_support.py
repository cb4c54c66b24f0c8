"""Pages of documentation as blocks that can be run.

An HTML comment directly before a fenced block says how the tests treat it. Nothing is left out
without one:

    <!-- test: needs gpu -->            not run (also: network, data, minutes); still checked
    <!-- test: slow -->                 run with ``pytest -m slow``; still checked
    <!-- test: options --minutes 0.1 -->  options added to the block's last command
    <!-- test: environment NAME=value --> variables set for the block
    <!-- test: file add.py -->          a file that later blocks use
    <!-- test: output -->              text that the blocks above printed
    <!-- test: output but figures -->  the same, in which other figures may stand; ``...`` is any text
    <!-- test: picture -->             text that nothing prints
    <!-- test: setup                    Python that runs where the comment stands: what the reader
    ... -->                             would have already (files, functions of their own)
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import re
import shlex
import signal
import subprocess
import sys
import types
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FOLDERS = ("benchmarks", "examples", "recipes", "tests", "docs", "optunahub", "autotune_rlm")
FILES = ("pyproject.toml", "README.md", "Makefile")
SHELL, PYTHON, DATA = ("sh", "bash"), ("python",), ("json", "text", "toml", "yaml")
NEEDS = ("gpu", "network", "data", "minutes")
KINDS = ("needs", "slow", "options", "environment", "file", "output", "picture", "setup")
_FIGURE = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?(?: (?:ns|us|ms|s|min|h)\b)?")
_BORDERS = re.compile(r"[\s\u2500-\u257f|]+")


@dataclass(frozen=True)
class Block:
    """A fenced block, or the Python of a ``setup`` comment.

    Attributes:
        page: File that it stands in.
        line: Line of its first line of content, from 1.
        language: What stands after the fence; ``python`` for a ``setup``.
        text: Its content.
        marks: The ``test:`` comments before it, as kind and the words after it.
    """

    page: Path
    line: int
    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.page.relative_to(ROOT).with_suffix('')}:{self.line}"

    @property
    def is_shell(self) -> bool:
        return self.language in SHELL

    @property
    def runs(self) -> bool:
        return "needs" not in self.marks and (self.language in SHELL + PYTHON or self.checks_output)

    @property
    def checks_output(self) -> bool:
        return "output" in self.marks

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, one string each, without comments."""
        joined = self.text.replace("\\\n", " ")
        return [line.strip() for line in joined.splitlines() if line.strip(" \t#")]


def blocks(page: Path) -> list[Block]:
    """The page's blocks, in order; a ValueError for a comment that is not understood."""
    found: list[Block] = []
    marks: dict[str, str] = {}
    for token in MarkdownIt("commonmark").parse(page.read_text("utf-8")):
        if token.type == "fence" and token.map:
            found.append(Block(page, token.map[0] + 2, token.info.strip(), token.content, marks))
            marks = {}
        elif token.type == "html_block" and token.content.startswith("<!-- test:") and token.map:
            for comment in token.content.split("<!-- test:")[1:]:
                text = comment.partition("-->")[0]
                kind, _, rest = text.strip().partition("\n" if "\n" in text.strip() else " ")
                if kind.strip() not in KINDS:
                    raise ValueError(f"{page.name}:{token.map[0] + 1}: unknown mark {kind!r}")
                if kind.strip() == "setup":
                    start = token.map[0] + 2
                    found.append(Block(page, start, "python", rest + "\n", {"setup": ""}))
                else:
                    marks[kind.strip()] = rest.strip()
        elif token.type == "code_block" and token.map:
            found.append(Block(page, token.map[0] + 1, "", token.content, marks))
            marks = {}
        elif marks:
            raise ValueError(f"{page.name}: {marks} stands before no block")
    return found


class Session:
    """Runs a page's blocks in order, in a folder and with a user's folders of its own.

    Python shares one module per page, whose file has the page's line numbers, so that ``inspect``
    (and with it Triton) finds the source of what is defined there.
    """

    def __init__(self, page: list[Block], folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self._done = 0
        self._page = page
        for name in (*FOLDERS, *FILES):
            (folder / name).symlink_to(ROOT / name)
        name = "_".join(page[0].page.relative_to(ROOT).with_suffix("").parts).replace("-", "_")
        self._file = folder / f"{name}_page.py"
        self._module = types.ModuleType(self._file.stem)
        self._module.__file__ = str(self._file)
        self._lines: list[str] = []
        self._printed = io.StringIO()

    def run(self, block: Block) -> None:
        """Run a block; before it, those above it that have not run and are not slow."""
        sys.modules[self._module.__name__] = self._module
        index = self._page.index(block)
        above = range(self._done, index)
        self._done = max(self._done, index + 1)
        before = dict(os.environ)
        for i in above:
            if self._page[i].runs and "slow" not in self._page[i].marks:
                self._run(self._page[i])
        self._run(block)
        self.environment |= {k: v for k, v in os.environ.items() if before.get(k) != v}

    def _run(self, block: Block) -> None:
        if name := block.marks.get("file"):
            (self.folder / name).write_text(block.text, "utf-8")
        elif block.checks_output:
            printed = self._printed.getvalue()
            if block.marks["output"] == "but figures":
                alike = map(re.escape, without_figures(block.text).split("..."))
                found = re.search(".*?".join(alike), without_figures(printed)) is not None
            else:
                found = block.text in printed
            assert found, f"printed:\n{printed}"
        elif block.is_shell:
            self._shell(block)
        else:
            self._python(block)

    def _python(self, block: Block) -> None:
        self._lines += [""] * (block.line - 1 - len(self._lines)) + block.text.splitlines()
        self._file.write_text("\n".join(self._lines) + "\n", "utf-8")
        linecache.checkcache(str(self._file))
        padded = "\n" * (block.line - 1) + block.text
        printed = self._printed
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            exec(compile(padded, str(self._file), "exec"), self._module.__dict__)

    def _shell(self, block: Block) -> None:
        text = block.text.rstrip()
        if options := block.marks.get("options"):
            text = re.sub(r"(\s+#.*)?$", f" {options}", text, count=1)
        given = dict(item.split("=", 1) for item in shlex.split(block.marks.get("environment", "")))
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        with (self.folder / "shell.log").open("w+") as log:
            bash = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=self.folder,
                env={**os.environ, **self.environment, **given, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = bash.wait()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(bash.pid, signal.SIGKILL)  # what a time-out leaves behind
            log.seek(0)
            self._printed.write(printed := log.read())
            assert code == 0, f"exit {code}\n{printed}"


def without_figures(text: str) -> str:
    """The text with one sign for a number and its unit of time, in one line, without borders."""
    return _BORDERS.sub(" ", _FIGURE.sub("#", text)).strip()


class Vocabulary:
    """What a command may consist of: the real command line, scripts, make targets, extras."""

    @cached_property
    def _root(self):
        import typer

        from autotune_rlm.cli import app

        return typer.main.get_command(app)

    def complaint(self, command: str) -> str | None:
        """Why a command cannot be right, or None."""
        words = shlex.split(command, comments=True)
        while words and "=" in words[0] and not words[0].startswith("-"):
            words = words[1:]
        if not words:
            return None
        if words[0] == "autotune-rlm" or words[:3] == ["python", "-m", "autotune_rlm.cli"]:
            return self._cli(words[1 if words[0] == "autotune-rlm" else 3 :])
        if words[0] == "make":
            targets = (ROOT / "Makefile").read_text("utf-8")
            missing = [w for w in words[1:] if f"\n{w}:" not in targets]
            return f"no make target {missing}" if missing else None
        if words[:3] == ["python", "-m", "pytest"] or words[0] == "pytest":
            return _missing_path(w for w in words if w.startswith("tests"))
        if words[0] in ("python", "torchrun") and "autotune_rlm" in words:
            return self._cli(words[words.index("autotune_rlm") + 1 :])
        if words[0] == "python" and words[1].endswith(".py"):
            return _script(words[1:])
        if "pip" in words[:3] and "install" in words:
            return _extras(words[words.index("install") + 1 :])
        if words[0] in ("export", "cd", "git", "createdb"):
            return None
        return f"{words[0]!r} is no command that the tests know"

    def _cli(self, words: list[str]) -> str | None:
        command = self._root
        while words and hasattr(command, "get_command"):
            if words[0] == "--help":
                return None
            inner = command.get_command(None, words[0])
            if inner is None:
                return f"autotune-rlm has no command {words[0]!r}"
            command, words = inner, words[1:]
        known = {"--help"} | {
            o for p in command.params for o in (*p.opts, *getattr(p, "secondary_opts", ()))
        }
        if command.context_settings.get("allow_interspersed_args") is False:
            words = _before_the_program(command, words)
        used = {w.partition("=")[0] for w in words if w.startswith("--")}
        unknown = sorted(used - known)
        return f"{command.name} has no option {', '.join(unknown)}" if unknown else None


def _before_the_program(command, words: list[str]) -> list[str]:
    """The words before the first argument, after which all belongs to the user's program."""
    flags = {o for p in command.params if getattr(p, "is_flag", False) for o in p.opts}
    found, rest = [], list(words)
    while rest and rest[0].startswith("-"):
        found.append(rest.pop(0))
        if found[-1] not in flags and "=" not in found[-1] and rest:
            found.append(rest.pop(0))
    return found


def _missing_path(paths) -> str | None:
    missing = [p for p in paths if not (ROOT / p.partition("::")[0]).exists()]
    return f"no such file: {', '.join(missing)}" if missing else None


def _script(words: list[str]) -> str | None:
    """A script of the project must exist and know its options; a user's own may be anything."""
    file = ROOT / words[0]
    if "/" not in words[0]:
        return None
    if not file.is_file():
        return f"no such file: {words[0]}"
    source = file.read_text("utf-8")
    parents = [p.read_text("utf-8") for p in (ROOT / "benchmarks").glob("_*.py")]
    unknown = [
        o
        for o in (w.partition("=")[0] for w in words[1:] if w.startswith("--"))
        if not any(o in text or o[2:].replace("-", "_") in text for text in (source, *parents))
    ]
    return f"{words[0]} has no option {', '.join(unknown)}" if unknown else None


def _extras(words: list[str]) -> str | None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    section = text.partition("[project.optional-dependencies]")[2].partition("[project.")[0]
    for word in words:
        if "[" in word:
            for extra in word.partition("[")[2].rstrip("]").split(","):
                if f"\n{extra} = " not in section:
                    return f"no extra {extra!r}"
    return None
