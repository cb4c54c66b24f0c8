"""Folders and files that belong to the user alone."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def private_folder(path: str | os.PathLike[str]) -> Path:
    """The folder ``path``, made where it is not there, which nobody else may look or write into.

    PermissionError where it is a link or another user's: whoever made it could lead us elsewhere.
    """
    folder = Path(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} is a link or another user's; remove it")
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)
    return folder


def lock_folder() -> Path:
    """Where the locks between this user's processes on this machine are; see ``private_folder``."""
    return private_folder(Path(tempfile.gettempdir()) / f"autotune_rlm-{os.getuid()}")
