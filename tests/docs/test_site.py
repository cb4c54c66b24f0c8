"""`make docs`: the site builds without a warning and its reference holds every public name."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).parents[2]
# The reference's pages name the modules that it describes.
MODULES = sorted(
    name
    for page in (ROOT / "docs" / "api").glob("*.md")
    for name in re.findall(r"^::: (autotune_rlm[\w.]*)$", page.read_text("utf-8"), re.MULTILINE)
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(folder),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("name", MODULES)
def test_reference_holds_every_public_name(site, name):
    public = getattr(importlib.import_module(name), "__all__", ())
    shown = "".join(page.read_text("utf-8") for page in (site / "api").glob("*.html"))
    missing = [n for n in public if not n.startswith("_") and f'id="{name}.{n}"' not in shown]
    assert not missing


def test_site_fetches_nothing(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text("utf-8")
        fetched = re.findall(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)"', text)
        fetched += re.findall(r'<link rel="stylesheet"[^>]+href="(https?:[^"]+)"', text)
        assert not fetched, page
