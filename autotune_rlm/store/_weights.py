"""Where the weights are that were fine-tuned on a store's measurements, and which of them are in use.

Each store has its own versions, in the data folder of the user who fine-tuned them. Every part that asks
the package's own surrogate loads the version in use (``autotune_rlm.surrogate.load_surrogate``).
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import platformdirs

from autotune_rlm._json import json_object
from autotune_rlm.store._engine import default_path, shown, to_url
from autotune_rlm.store._store import Store
from autotune_rlm.types import digest

StoreLike = Store | str | os.PathLike[str] | None


def weights_folder(store: StoreLike = None) -> Path:
    """The folder of the versions that were fine-tuned on a store; it need not be there.

    Args:
        store: A ``Store``, or what its constructor takes; None for that of the environment, else the
            user's own.

    Raises:
        StoreError: It is no path and no URL.
    """
    name = store.name if isinstance(store, Store) else shown(to_url(store))
    root = platformdirs.user_data_path("autotune_rlm") / "surrogates"
    return root if name == str(default_path()) else root / "stores" / digest(name)


def weights_version(folder: Path) -> int | None:
    """The number of the version in use in a folder; None for the bundled weights."""
    try:
        number: Any = json.loads((folder / "current.json").read_text()).get("version")
    except (OSError, ValueError, AttributeError):
        return None
    return number if isinstance(number, int) else None


def read_rounds(folder: str | Path | None = None) -> list[dict[str, Any]]:
    """The records of fine-tuning rounds in ``folder``, by default the own store's, oldest first.

    Lines that cannot be read are passed over.
    """
    path = (Path(folder) if folder is not None else weights_folder()) / "rounds.jsonl"
    found = []
    with contextlib.suppress(OSError):
        for line in path.read_text("utf-8").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json_object(line, "a round"))
    return found


def weights_in_use(store: StoreLike = None) -> Path | None:
    """The checkpoint's folder of the version in use for a store; None for the bundled weights.

    Raises:
        StoreError: See ``weights_folder``.
    """
    folder = weights_folder(store)
    version = weights_version(folder)
    return None if version is None else folder / f"v{version}"
