"""What a checkpoint was trained on: whether its order is worth following on a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autotune_rlm.landscapes import Landscape
from autotune_rlm.surrogate.metrics import FACTS
from autotune_rlm.surrogate.text import normalise_name
from autotune_rlm.types import Candidate, Task

__all__ = ["knows", "together", "trained_on"]

_NETWORKS = "onnx"
_ALIKE = 0.75
_LISTS = ("languages", "devices", "parameters")


def trained_on(landscapes: Iterable[Landscape]) -> dict[str, Any]:
    """Settings of a checkpoint: ``languages``, ``devices``, and the ``parameters`` that were timed."""
    languages: set[str] = set()
    devices: set[str] = set()
    parameters: set[tuple[str, ...]] = set()
    for landscape in landscapes:
        languages.add(landscape.task.language)
        devices.add(landscape.task.device.name)
        if landscape.task.language != _NETWORKS and landscape.task.metric not in FACTS:
            parameters.add(tuple(sorted(_names(landscape.candidates))))
    return {
        "languages": sorted(languages),
        "devices": sorted(devices),
        "parameters": [list(names) for names in sorted(parameters)],
    }


def together(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a checkpoint that was trained twice; what either does not tell stays untold."""
    told = [key for key in _LISTS if key in before and key in after]
    both = {
        key: sorted([*before[key], *(x for x in after[key] if x not in before[key])])
        for key in told
    }
    rest = {k: v for k, v in {**before, **after}.items() if k not in _LISTS}
    return rest | both


def knows(settings: Mapping[str, Any], task: Task, candidates: Sequence[Candidate]) -> bool:
    """Whether configurations like these were timed in training, of whatever kernel and device.

    Alike are sets of parameters that share three quarters of their names. A checkpoint that does
    not say what it was trained on is taken at its word.
    """
    if task.language == _NETWORKS:
        return _NETWORKS in settings.get("languages", (_NETWORKS,))
    if "parameters" not in settings:
        return True
    names = _names(candidates)
    return any(
        len(names & set(timed)) >= _ALIKE * max(len(names | set(timed)), 1)
        for timed in settings["parameters"]
    )


def _names(candidates: Sequence[Candidate]) -> set[str]:
    return {normalise_name(str(name)) for c in candidates for name in c.config}
