"""Every block and command of README and docs/ runs, or says in its page why not."""

import ast
import json
import os
import re
from pathlib import Path
from unittest import mock

import pytest
from documentation_support import (
    DATA,
    NEEDS,
    PAGES,
    PYTHON,
    ROOT,
    SHELL,
    Session,
    Vocabulary,
    blocks,
)

import autotune_rlm

ALL = [block for page in PAGES for block in blocks(page)]


def marks_of(block):
    """What pytest knows of a block: that it is slow, or links for AMD."""
    told = {"slow": "slow" in block.marks, "amd": "--target hip:" in block.text}
    return [getattr(pytest.mark, name) for name, does in told.items() if does]


RUN = [pytest.param(b, id=b.id, marks=marks_of(b)) for b in ALL if b.runs]
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def page_id(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """Sessions by page; all pages share one user's folders and one cache of Triton's."""
    user = tmp_path_factory.mktemp("user")
    environment = {
        "HOME": str(user),
        "XDG_CACHE_HOME": str(user / "cache"),
        "XDG_CONFIG_HOME": str(user / "config"),
        "XDG_DATA_HOME": str(user / "data"),
        "TRITON_CACHE_DIR": str(user / "triton"),
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
    }
    known = {}

    def session(page):
        if page not in known:
            folder = tmp_path_factory.mktemp(page.stem)
            known[page] = Session([b for b in ALL if b.page == page], folder, environment)
        return known[page]

    yield session
    autotune_rlm.disable()  # a page may have turned it on for all kernels


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("block", RUN)
def test_block_runs(block, sessions, monkeypatch):
    session = sessions(block.page)
    monkeypatch.chdir(session.folder)
    monkeypatch.syspath_prepend(str(session.folder))
    for name in ("TRITON_INTERPRET", "AUTOTUNE_RLM_STORE", "AUTOTUNE_RLM_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in session.environment.items():
        monkeypatch.setenv(name, value)
    with mock.patch.dict(os.environ):  # what a page sets ends with its block
        session.run(block)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_blocks_say_what_they_are(page):
    for block in blocks(page):
        known = (*SHELL, *PYTHON, *DATA)
        assert block.language in known, f"{block.id}: name one of {known} after the fence"
        if block.language in PYTHON:
            compile(block.text, block.id, "exec")
        if block.language == "text":
            assert {"output", "picture"} & block.marks.keys(), (
                f"{block.id}: is it 'output' of the blocks above or a 'picture'?"
            )
        if block.language == "json":
            json.loads(block.text)
        for need in block.marks.get("needs", "").split():
            assert need in NEEDS, f"{block.id}: needs {need}? one of {NEEDS}"
        if block.is_shell and any(re.match(r"(python -m )?pip ", c) for c in block.commands):
            assert block.marks.get("needs"), f"{block.id}: would change what the tests run in"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_their_options_exist(page):
    vocabulary = Vocabulary()
    commands = [(b.id, c) for b in blocks(page) if b.is_shell for c in b.commands]
    prose = _FENCED.sub("", page.read_text("utf-8"))
    for span in _SPAN.findall(prose):
        text = " ".join(span.split())
        if re.match(r"(autotune-rlm|make|python|pytest|pip) \w|python -m ", text):
            commands.append((page.stem, text))
    wrong = [f"{where}: {c}\n    {w}" for where, c in commands if (w := vocabulary.complaint(c))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_and_named_files_exist(page):
    text = page.read_text("utf-8")
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    named = re.findall(r"`((?:docs|examples|benchmarks|tests|recipes|scripts)/[\w./-]+)`", text)
    missing += [path for path in named if not (ROOT / path).exists()]
    modules = re.findall(r"`(\w+/[\w/]+\.py)`", text)
    places = ROOT, ROOT / "autotune_rlm"
    missing += [path for path in modules if not any((place / path).exists() for place in places)]
    assert not missing


def test_named_environment_variables_are_read_somewhere():
    sources = "".join(
        file.read_text("utf-8")
        for folder in ("autotune_rlm", "tests", "benchmarks", "scripts", "examples")
        for file in (ROOT / folder).rglob("*.py")
    )
    named = {
        (page.stem, name)
        for page in PAGES
        for name in re.findall(r"AUTOTUNE_RLM_([A-Z_]+[A-Z])", page.read_text("utf-8"))
    }
    assert named
    unread = sorted(
        (page, name)
        for page, name in named
        if f"AUTOTUNE_RLM_{name}" not in sources and f'"{name}"' not in sources
    )
    assert not unread


def test_messages_that_troubleshooting_explains_are_said():
    """Between the dots, each quoted message is text of this package, Triton or the libraries."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    quoted = re.findall(r"^### `(.+)`$", page, re.MULTILINE)
    assert len(quoted) > 15
    said = "\n".join(messages())
    unsaid = [
        (message, part)
        for message in quoted
        for part in message.split("…")
        if len(part.strip()) > 3 and part not in said
    ]
    assert not unsaid


def test_every_page_is_reached_from_the_index():
    docs = ROOT / "docs"
    reached, left = set(), ["README.md"]
    while left:
        name = left.pop()
        if name not in reached and (docs / name).is_file():
            reached.add(name)
            left += re.findall(r"\]\(([\w-]+\.md)", (docs / name).read_text("utf-8"))
    assert {page.name for page in docs.glob("*.md")} == reached


def messages():
    """Every string of the package's sources and of Triton's runtime, its parts joined."""
    triton = Path(pytest.importorskip("triton").__file__).parent / "runtime"
    for folder in (ROOT / "autotune_rlm", triton):
        for file in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (getattr(v, "value", "…") for v in node.values)
                    yield "".join(p if isinstance(p, str) else "…" for p in parts)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield re.sub(r"%\w", "…", node.value)


def anchors(file: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", file.read_text("utf-8")), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", h).lower() for h in headings)
    return {re.sub(r"[^\w\- ]", "", h).strip().replace(" ", "-") for h in plain}
