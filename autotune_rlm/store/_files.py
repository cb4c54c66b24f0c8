"""A store's content to files and back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from autotune_rlm._checks import check_type
from autotune_rlm.landscapes import Landscape, read_landscapes, write_landscapes
from autotune_rlm.landscapes.io import read_text, write_text
from autotune_rlm.landscapes.jsonl import lines, to_line
from autotune_rlm.store._store import Store


def export_store(
    store: Store,
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    kernel: str | None = None,
    device: str | None = None,
) -> tuple[list[Path], int]:
    """Write a store's measurements to files.

    ``jsonl`` keeps all: every measurement of a candidate, and the tuning events. ``configs`` keeps the
    fastest four of each task, for ``configs_from`` and for packages of kernels to ship; what the file
    already holds of other tasks stays. The other formats keep one measurement per candidate.

    Args:
        store: The store.
        path: File, or a folder where Kernel Tuner or T4 files of several tasks are wanted.
        format: One of ``autotune_rlm.landscapes.FORMATS``, or ``"configs"``; by default from the
            extension, ``configs`` for a file named ``autotune_rlm.json``.
        kernel: Only this kernel.
        device: Only this device.

    Returns:
        The files written and the number of measurements in them.

    Raises:
        ValueError: If the format is unknown or cannot hold the measurements.
    """
    check_type("store", store, Store, hint="Store(path) opens one")
    path = Path(path)
    if format == "jsonl" or (format is None and ".jsonl" in path.suffixes):
        return _export_all(store, path, kernel, device)
    if format == "configs" or (format is None and path.name == "autotune_rlm.json"):
        return _export_configs(store, path, kernel, device)
    found = store.landscapes(kernel=kernel, device=device)
    return write_landscapes(path, found, format), sum(len(landscape) for landscape in found)


def _export_configs(
    store: Store, path: Path, kernel: str | None, device: str | None
) -> tuple[list[Path], int]:
    from autotune_rlm.store.config_file import ConfigFile, Recommendation

    tasks = [t for t in store.tasks(kernel=kernel, device=device) if t.language == "triton"]
    found = [Recommendation.measured(task, store.observations(task)) for task in tasks]
    file = ConfigFile(r for r in found if r is not None)
    if not len(file):
        raise ValueError("the store has no measured configuration of such a Triton kernel")
    file.save(path)
    return [path], sum(len(r.configs) for r in file.recommendations)


def _export_all(
    store: Store, path: Path, kernel: str | None, device: str | None
) -> tuple[list[Path], int]:
    out: list[str] = []
    total = 0
    for task in store.tasks(kernel=kernel, device=device):
        name = Landscape.from_observations(task, ()).id
        out.append(to_line({"landscape": name, "task": task.to_json()}))
        for observation in store.observations(task, every=True):
            total += 1
            candidate, measurement = observation.candidate, observation.measurement
            line = {"candidate": candidate.to_json(), "measurement": measurement.to_json()}
            out.append(to_line({"landscape": name, **line}))
    out += [to_line({"event": e.to_json()}) for e in store.events(kernel=kernel, device=device)]
    return [write_text(path, "".join(line + "\n" for line in out))], total


def import_file(
    store: Store,
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    device: str | None = None,
) -> tuple[int, int]:
    """Add the measurements of a file or folder to a store, and the events of a ``jsonl`` file.

    What is in the store already, to the last digit, is not added again.

    Args:
        store: The store.
        path: File in any format that ``read_landscapes`` knows, or a folder of such files.
        format: One of ``autotune_rlm.landscapes.FORMATS`` and ``READ_ONLY``; by default found out.
        device: What was measured on, for files of Triton's autotuner, which do not say it.

    Returns:
        How many measurements were added, and how many were there already.

    Raises:
        ValueError: If a file is malformed; nothing is added then.
    """
    path = Path(path)
    landscapes = read_landscapes(path, format, device=device)
    events = _events(path, format)
    new: list[Any] = []
    there = 0
    for landscape in landscapes:
        known = {_identity(o) for o in store.observations(landscape.task, every=True)}
        for observation in landscape.observations:
            identity = _identity(observation)
            if identity in known:
                there += 1
            else:
                known.add(identity)
                new.append((landscape.task, observation.candidate, observation.measurement))
    store.add_many(new)
    old = {json.dumps(e.to_json(), sort_keys=True) for e in store.events()} if events else set()
    for event in events:
        if json.dumps(event, sort_keys=True) not in old:
            store.add_event(event)
    return len(new), there


def _identity(observation: Any) -> tuple[str, str]:
    return observation.candidate.key, json.dumps(observation.measurement.to_json(), sort_keys=True)


def _events(path: Path, format: str | None) -> list[dict[str, Any]]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    chosen = [f for f in files if format == "jsonl" or ".jsonl" in f.suffixes]
    return [
        value["event"]
        for file in chosen
        for _, value in lines(read_text(file), file)
        if isinstance(value.get("event"), dict)
    ]
