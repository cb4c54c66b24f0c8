"""Whether a checkpoint's training data covers a task, and how far to doubt it where it does not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from autotune_rlm.landscapes import Landscape
from autotune_rlm.surrogate.metrics import FACTS
from autotune_rlm.surrogate.text import normalise_name
from autotune_rlm.types import Candidate, Device, Task

__all__ = [
    "CERTAIN",
    "OTHER_KERNEL",
    "SEVERAL",
    "Doubt",
    "contradiction",
    "doubt",
    "kind_of",
    "knows",
    "knows_device",
    "together",
    "trained_on",
    "unfamiliar",
]

SEVERAL = "several"
"""Replaces the metric in ``texts`` where texts are read in sequences of targets."""
_NETWORKS = "onnx"
_ALIKE = 0.75  # share of parameter names in common from which two sets of parameters are alike
_KINDS = ("product",)
"""Kinds of kernels in the training of checkpoints whose settings do not list the kinds."""
_LISTS = ("languages", "devices", "parameters", "networks", "whole", "texts")


def trained_on(landscapes: Iterable[Landscape]) -> dict[str, Any]:
    """The settings that say what a checkpoint was trained on.

    ``languages``, ``devices``, the sets of ``parameters`` that were timed, and ``networks``: pairs of
    metric and device of the neural networks that were measured. A training adds ``texts``: pairs of
    language and metric whose candidates' texts were read, ``numbers``: the ranges of absolute values by
    metric, ``facts``: whether the compiler's facts were read, ``sequences``: the most targets that
    were decoded one after the other.
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
    """Settings of a checkpoint that was trained twice; a list that either lacks is left out."""
    lists = [key for key in _LISTS if key in before and key in after]
    merged = {
        key: sorted([*before[key], *(x for x in after[key] if x not in before[key])])
        for key in lists
    }
    others = {k: v for k, v in {**before, **after}.items() if k not in _LISTS}
    if "numbers" in before and "numbers" in after:
        others["numbers"] = {**after["numbers"], **before["numbers"]}
    return others | merged


def knows(settings: Mapping[str, Any], task: Task, candidates: Sequence[Candidate]) -> bool:
    """Whether the training timed similar configurations, of whatever kernel and device.

    Two sets of parameters are alike if they share three quarters of their names and have the same tile
    names: an attention has BLOCK_M and BLOCK_N as a matrix product has, but no BLOCK_K. Where the
    candidates have the compiler's facts, the training must also have timed the kernel's kind
    (``kind_of``). Tasks without parameters, and candidates with texts, are alike if language and
    metric are equal. A checkpoint that does not list its training data counts as knowing all tasks.
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
    if not names:  # only the text describes the candidate
        whole = settings.get("whole")
        return pair in whole if whole is not None else [] in settings["parameters"]
    return any(
        len(names & set(timed)) >= _ALIKE * max(len(names | set(timed)), 1)
        and _tiles(names) == _tiles(timed)
        for timed in settings["parameters"]
    )


def kind_of(candidates: Sequence[Candidate]) -> str:
    """The kernel's kind by its facts, such as ``"product"``; empty where it has no facts."""
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
    """Whether a device of this name was in training; true where the settings list no devices.

    Args:
        settings: The checkpoint's settings.
        device: The device.
        networks: A metric of neural networks; then whether training had this metric on the device,
            which kernels timed on it do not imply.
    """
    if networks is not None:
        return [networks, device.name] in settings.get("networks", [])
    devices = settings.get("devices")
    return not isinstance(devices, list) or device.name in devices


def unfamiliar(
    settings: Mapping[str, Any], task: Task, candidates: Sequence[Candidate]
) -> tuple[str, ...]:
    """Reasons, as sentences, why the training does not cover a task; empty where it does."""
    reasons = []
    if not knows(settings, task, candidates):
        names = ", ".join(sorted(_names(candidates))) or "no parameters"
        reasons.append(f"no kernel with parameters like these ({names}) was timed in training")
    if not knows_device(settings, task.device):
        reasons.append(f"{task.device.name or 'the device'} was not among the devices of training")
    return tuple(reasons)


def contradiction(network: float, facts: float) -> str:
    """Why the compiler's facts say that this is no kernel of the training; empty where they do not.

    Parameters may be named as those of a kernel that was timed and mean something else.

    Args:
        network: Logarithm of the best time in ms by the network.
        facts: The same by the compiler's facts.
    """
    factor = math.exp(min(abs(network - facts), 60.0))
    if factor < _CONTRADICTED:
        return ""
    return (
        "its parameters have the names of a kernel that was timed in training, but by the compiler's "
        f"facts it takes another time ({math.exp(facts):.3g} ms, not {math.exp(network):.3g} ms)"
    )


class Doubt(NamedTuple):
    """Uncertainty to add to a network's prediction outside of its training data.

    A network does not widen its own intervals there. ``scale`` and ``slowdown`` are standard
    deviations of the logarithm of a time, added to the predicted ones as independent errors. ``trust``
    is the weight of the network's order before any measurement.
    """

    scale: float
    slowdown: float
    trust: float


CERTAIN = Doubt(0.0, 0.0, 0.9)
_OTHER_DEVICE = Doubt(0.7, 0.3, 0.9)
OTHER_KERNEL = Doubt(5.0, 1.2, 0.3)
_CONTRADICTED = 3.0
"""Factor between the best times by the network and by the compiler's facts from which the network is held
to take the kernel for another one. It is below 2.1 for nineteen of twenty recorded matrix products of its
training."""


def doubt(settings: Mapping[str, Any], task: Task, candidates: Sequence[Candidate]) -> Doubt:
    """How much uncertainty to add on a task outside of the training data.

    The figures approximate the errors of earlier weights on landscapes that these had never seen: on
    other devices (CLBlast and a convolution on a V100, another on an A4000), and on another kernel
    (dedispersion on four devices). The trust in the order of another kernel was chosen on ten
    convolutions and judged on GEMMs (CLBlast, SGEMM) by weights that had seen none.
    """
    if not knows(settings, task, candidates):
        return OTHER_KERNEL
    return CERTAIN if knows_device(settings, task.device) else _OTHER_DEVICE


def _names(candidates: Sequence[Candidate]) -> set[str]:
    return {normalise_name(str(n)) for n in set().union(*(c.config for c in candidates))}
