"""What a checkpoint was trained on: whether its order is worth following on a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from autotune_rlm.landscapes import Landscape
from autotune_rlm.surrogate.metrics import FACTS
from autotune_rlm.surrogate.text import normalise_name
from autotune_rlm.types import Candidate, Device, Task

__all__ = [
    "CERTAIN",
    "SEVERAL",
    "Doubt",
    "doubt",
    "kind_of",
    "knows",
    "knows_device",
    "together",
    "trained_on",
    "unfamiliar",
]

SEVERAL = "several"
"""Stands for the metric where texts are read in sequences of targets."""
_NETWORKS = "onnx"
_ALIKE = 0.75
_KINDS = ("product",)
"""Kinds of kernels that checkpoints were timed on which do not list them."""
_LISTS = ("languages", "devices", "parameters", "networks", "whole", "texts")


def trained_on(landscapes: Iterable[Landscape]) -> dict[str, Any]:
    """Settings of a checkpoint.

    ``languages``, ``devices``, the sets of ``parameters`` that were timed, and ``networks``: pairs of
    metric and device of the neural networks that were measured. A training adds ``texts``: pairs of
    language and metric whose candidates' texts were read, ``numbers``: where the absolute values of
    metrics lie, ``facts``: whether the compiler's facts were read, ``sequences``: the most targets that
    were written one after the other.
    """
    languages: set[str] = set()
    devices: set[str] = set()
    parameters: set[tuple[str, ...]] = set()
    networks: set[tuple[str, str]] = set()
    whole: set[tuple[str, str]] = set()  # languages and metrics of tasks without parameters
    for landscape in landscapes:
        languages.add(landscape.task.language)
        devices.add(landscape.task.device.name)
        if landscape.task.language == _NETWORKS:
            networks.add((landscape.task.metric, landscape.task.device.name))
        elif landscape.task.metric not in FACTS:
            names = tuple(sorted(_names(landscape.candidates)))
            parameters.add(names)
            if not names:
                whole.add((landscape.task.language, landscape.task.metric))
    return {
        "languages": sorted(languages),
        "devices": sorted(devices),
        "parameters": [list(names) for names in sorted(parameters)],
        "networks": [list(pair) for pair in sorted(networks)],
        "whole": [list(pair) for pair in sorted(whole)],
    }


def together(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a checkpoint that was trained twice; what either does not tell stays untold."""
    told = [key for key in _LISTS if key in before and key in after]
    both = {
        key: sorted([*before[key], *(x for x in after[key] if x not in before[key])])
        for key in told
    }
    rest = {k: v for k, v in {**before, **after}.items() if k not in _LISTS}
    if "numbers" in before and "numbers" in after:
        rest["numbers"] = {**after["numbers"], **before["numbers"]}
    return rest | both


def knows(settings: Mapping[str, Any], task: Task, candidates: Sequence[Candidate]) -> bool:
    """Whether configurations like these were timed in training, of whatever kernel and device.

    Alike are sets of parameters that share three quarters of their names and name the same tiles: an
    attention has BLOCK_M and BLOCK_N as a matrix product has, but no BLOCK_K. Where the compiler's
    facts are known, the kernel must also be of a ``kind`` that was timed. Of tasks without
    parameters, and of candidates with texts, alike are those in the same language with the same metric. A
    checkpoint that does not say what it was trained on is taken at its word.
    """
    if task.language == _NETWORKS:
        return _NETWORKS in settings.get("languages", (_NETWORKS,))
    if "parameters" not in settings:
        return True
    kind = kind_of(candidates)
    if kind and kind not in settings.get("kinds", _KINDS):
        return False
    names, pair = _names(candidates), [task.language, task.metric]
    if pair in settings.get("texts", []):
        return True
    if not names:  # a text stands for the whole
        whole = settings.get("whole")
        return pair in whole if whole is not None else [] in settings["parameters"]
    return any(
        len(names & set(timed)) >= _ALIKE * max(len(names | set(timed)), 1)
        and _tiles(names) == _tiles(timed)
        for timed in settings["parameters"]
    )


def kind_of(candidates: Sequence[Candidate]) -> str:
    """What the facts say that a kernel is, such as ``"product"``; empty where they are not known."""
    facts = next((c.facts for c in candidates if "exchanges" in c.facts), None)
    if facts is None:
        return ""
    product = "chained products" if facts.get("chained") else "product"
    parts = [product] if facts.get("dot_ms") else []
    parts += ["exchange"] if facts["exchanges"] else []
    return " with ".join(parts) or "element-wise"


def _tiles(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.startswith(("block", "tile"))}


def knows_device(
    settings: Mapping[str, Any], device: Device, *, networks: str | None = None
) -> bool:
    """Whether a device of this name was in training; true where the checkpoint does not say.

    Args:
        settings: Of the checkpoint.
        device: The device.
        networks: A metric of neural networks: whether that was measured there. Kernels that were
            timed on a device say nothing of it.
    """
    if networks is not None:
        return [networks, device.name] in settings.get("networks", [])
    devices = settings.get("devices")
    return not isinstance(devices, list) or device.name in devices


def unfamiliar(
    settings: Mapping[str, Any], task: Task, candidates: Sequence[Candidate]
) -> tuple[str, ...]:
    """Why little is known of a task, as sentences; nothing where the like of it was in training."""
    found = []
    if not knows(settings, task, candidates):
        names = ", ".join(sorted(_names(candidates))) or "no parameters"
        found.append(f"no kernel with parameters like these ({names}) was timed in training")
    if not knows_device(settings, task.device):
        found.append(f"{task.device.name or 'the device'} was not among the devices of training")
    return tuple(found)


class Doubt(NamedTuple):
    """What to doubt of a network, which is as sure of itself where it was never trained.

    ``scale`` and ``slowdown`` are standard deviations on the logarithm of a time, to add to those
    that it writes; ``trust`` is the weight of its order before any of it is checked.
    """

    scale: float
    slowdown: float
    trust: float


CERTAIN = Doubt(0.0, 0.0, 0.9)
_OTHER_DEVICE = Doubt(0.7, 0.3, 0.9)
_OTHER_KERNEL = Doubt(5.0, 1.2, 0.3)


def doubt(settings: Mapping[str, Any], task: Task, candidates: Sequence[Candidate]) -> Doubt:
    """How far off the network may be on a task unlike those that it was trained on.

    The figures are about the errors of earlier weights on landscapes that these had never seen: on
    other devices (CLBlast and a convolution on a V100, another on an A4000), and on another kernel
    (dedispersion on four devices). The trust in the order of another kernel was chosen on ten
    convolutions and judged on GEMMs (CLBlast, SGEMM) by weights that had seen none.
    """
    if not knows(settings, task, candidates):
        return _OTHER_KERNEL
    return CERTAIN if knows_device(settings, task.device) else _OTHER_DEVICE


def _names(candidates: Sequence[Candidate]) -> set[str]:
    return {normalise_name(str(name)) for c in candidates for name in c.config}
