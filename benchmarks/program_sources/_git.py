"""Texts of a checkout without a work tree being needed."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["git_texts"]


def git_texts(checkout: Path, folder: str) -> dict[str, str]:
    """Texts of a checkout's (or a bare git folder's) files by path."""
    git = ["git", "-C", str(checkout)]
    listed = subprocess.run(
        [*git, "ls-tree", "-r", "-z", "HEAD", folder], capture_output=True, check=True
    ).stdout.decode()
    entries = [line.partition("\t") for line in listed.split("\0") if line]
    blobs = {name: facts.split()[2] for facts, _, name in entries}
    asked = "".join(f"{blob}\n" for blob in blobs.values()).encode()
    data = subprocess.run(
        [*git, "cat-file", "--batch"], input=asked, capture_output=True, check=True
    ).stdout
    found, at = {}, 0
    for name in blobs:
        end = data.index(b"\n", at)
        head = data[at:end].split()
        if head[-1] == b"missing":  # large files are left out of some clones
            at = end + 1
            continue
        size = int(head[2])
        found[name] = data[end + 1 : end + 1 + size].decode("utf-8", "replace")
        at = end + 1 + size + 1
    return found
