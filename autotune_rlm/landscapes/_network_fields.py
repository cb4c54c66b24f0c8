"""Fields of the networks of published spaces, kept on disk: building 50,000 graphs takes minutes."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from autotune_rlm._files import replacing
from autotune_rlm.networks import ArchitectureSpace
from autotune_rlm.networks.fields import FIELDS
from autotune_rlm.types import digest

logger = logging.getLogger(__name__)
_VERSION = 1  # of what the fields mean
_MANY = 200  # fewer new networks than this are not worth a file


def fields_of(
    space: ArchitectureSpace, configs: Sequence[Mapping[str, Any]], folder: Path | None = None
) -> np.ndarray:
    """The fields of n networks of a published space, in the order of ``FIELDS``.

    Args:
        space: The space; its name stands for it, so a space of one's own must not come here.
        configs: Canonical configurations.
        folder: Where they are kept; by default the user's cache folder.

    Returns:
        Float64, shape (n, len(FIELDS)).
    """
    folder = platformdirs.user_cache_path("autotune_rlm") / "networks" if folder is None else folder
    path = folder / f"{space.name}-{_VERSION}.npz"
    known = _read(path)
    keys = [int(digest([dict(c), *space.input_shape]), 16) for c in configs]
    new = [i for i, key in enumerate(keys) if key not in known]
    for i in new:
        fields = space.fields(configs[i])
        known[keys[i]] = np.array([fields[name] for name in FIELDS])
    if len(new) >= _MANY:
        _write(path, known)
    return np.array([known[key] for key in keys]).reshape(len(keys), len(FIELDS))


def _read(path: Path) -> dict[int, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            keys, rows = file["keys"].tolist(), file["rows"]
        if rows.shape == (len(keys), len(FIELDS)):
            return dict(zip(keys, rows, strict=True))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        logger.warning("%s cannot be read (%s) and is made anew", path, error)
    return {}


def _write(path: Path, known: Mapping[int, np.ndarray]) -> None:
    try:
        keys = np.fromiter(known, dtype=np.uint64, count=len(known))
        with replacing(path) as draft:
            np.savez_compressed(draft, keys=keys, rows=np.array(list(known.values())))
    except OSError as error:
        logger.warning("fields of %d networks are not kept: %s", len(known), error)
