"""Specifications of devices, known by name: from public data sheets, and from the user.

``devices.json`` beside this module holds the vendors' published figures. A user adds devices
with ``register`` or in ``devices.json`` in the configuration folder (``user_file()``), same format.
A multi-die accelerator is described per unit that a program sees (one die of an MI250X).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from autotune_rlm._checks import check_type
from autotune_rlm._forks import ForkSafeLock

from .types import Device

__all__ = [
    "Target",
    "completed",
    "distance",
    "known",
    "lookup",
    "parse_target",
    "register",
    "user_file",
]

Target = tuple[str, "int | str", int]
"""What Triton compiles for: backend, architecture and threads of a warp."""

_log = logging.getLogger(__name__)
_lock = ForkSafeLock()
_registered: dict[str, tuple[Device, tuple[str, ...]]] = {}

# Words that say who sells a device, not what it is. An RTX PRO 6000 is another device than an RTX 6000.
_VENDOR_WORDS = re.compile(
    "nvidia|amd|intel|geforce|tesla|quadro|instinct|radeon|pro|graphics|gpu|corporation|inc|tm|r"
    "|data|center"
)
# Words of a driver's name that do not change the figures (a device that they do change has an
# entry that names them, and the entry that names more words wins).
_NEUTRAL_WORDS = re.compile(r"\d+gb|hbm\d?e?|sxm\d?|pcie|oam|vf|nvl|hf|dgxs?|fhhl")

_STRANGE, _OTHER_ARCH, _OTHER_TARGET, _OTHER_NAME = 8.0, 1.5, 0.5, 0.01

_BY_TARGET: tuple[tuple[str, tuple[str, float, float, float, float]], ...] = (
    # target: architecture, KiB of shared memory of a multiprocessor and of a program at most,
    # operations of a multiprocessor and clock: fp32, and fp16 in the matrix units
    (r"sm_70", ("volta", 96, 96, 128, 1024)),
    (r"sm_75", ("turing", 64, 64, 128, 1024)),
    (r"sm_80", ("ampere", 164, 163, 128, 2048)),
    (r"sm_87", ("ampere", 164, 163, 256, 2048)),
    (r"sm_86", ("ampere", 100, 99, 256, 1024)),
    (r"sm_89", ("ada", 100, 99, 256, 1024)),
    (r"sm_90a?", ("hopper", 228, 227, 256, 4096)),
    (r"sm_(100|101|103|110)[af]?", ("blackwell", 228, 227, 256, 8192)),
    (r"sm_12[01][af]?", ("blackwell", 100, 99, 256, 1024)),
    (r"gfx90a", ("cdna2", 64, 64, 128, 1024)),
    (r"gfx94\d", ("cdna3", 64, 64, 256, 2048)),
    (r"gfx950", ("cdna4", 160, 160, 256, 4096)),
    (r"gfx11\w+", ("rdna3", 64, 64, 256, 512)),
    (r"gfx12\w+", ("rdna4", 64, 64, 256, 1024)),
)


def parse_target(name: str) -> Target:
    """The target that ``"sm_90"``, ``"gfx942"``, ``"cuda:90"`` or ``"hip:gfx942"`` means.

    Raises:
        ValueError: The name is none of these.
    """
    check_type("target", name, str, hint="such as 'sm_90' or 'gfx942'")
    text = name.strip().lower()
    if match := re.fullmatch(r"(?:cuda:|sm_?)(\d+)[af]?", text):
        return ("cuda", int(match[1]), 32)
    if match := re.fullmatch(r"(?:hip:)?(gfx[0-9a-f]+)", text):
        return ("hip", match[1], 32 if re.match(r"gfx1\d\d\d", match[1]) else 64)
    raise ValueError(f"target must look like 'sm_90' or 'gfx942', got {name!r}")


def lookup(name: str) -> Device:
    """The device that ``name`` means; case, vendor words and driver suffixes do not matter.

    ``"H100"``, ``"nvidia h100"`` and ``"NVIDIA H100 80GB HBM3"`` are all ``"NVIDIA H100"``. A slice
    or a variant with other figures (``"... MIG 1g.5gb"``, ``"... Laptop GPU"``) is not the whole
    device. An unknown name gives ``Device(name=name)`` with no figures.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"name must be a device's name, got {name!r}; known: {', '.join(known())}")
    index = _index()
    words = _words(name)
    compact = "".join(words)
    best: tuple[int, Device] | None = None
    for entry_words, device in index:
        if name == device.name or compact == "".join(entry_words):
            return device
        rest = list(words)
        for word in entry_words:
            if word not in rest:
                break
            rest.remove(word)
        else:
            neutral = all(_NEUTRAL_WORDS.fullmatch(word) for word in rest)
            if neutral and (best is None or len(entry_words) > best[0]):
                best = (len(entry_words), device)
    return best[1] if best else Device(name=name.strip())


def completed(device: Device) -> Device:
    """The device with figures that its target and what it tells imply, where it does not tell them.

    Peak rates follow from the target's operations per clock, the number of multiprocessors and the
    clock; shared memory from the target alone. Sources: CUDA C++ Programming Guide, "Technical
    Specifications per Compute Capability"; the whitepapers of Volta to Blackwell, CDNA 2 to 4 and
    RDNA 3 and 4. GeForce cards do half the operations of their architecture in the matrix units.
    """
    found = next((row for pattern, row in _BY_TARGET if re.fullmatch(pattern, device.target)), None)
    if found is None:
        return device
    arch, shared, per_block, flops, matrix = found
    told: dict[str, Any] = {
        "arch": arch,
        "shared_kb_per_sm": shared,
        "max_shared_kb_per_block": per_block,
    }
    if device.sms and device.clock_mhz:
        clocks = device.sms * device.clock_mhz * 1e6 / 1e12
        halved = 2 if "geforce" in device.name.lower() and device.target >= "sm_86" else 1
        told["fp32_tflops"] = flops * clocks
        told["fp16_tensor_tflops"] = matrix * clocks / halved
    missing = {n: v for n, v in told.items() if getattr(device, n) in (None, "")}
    return dataclasses.replace(device, **missing)


def distance(a: Device, b: Device) -> float:
    """How far apart two devices are; 0.0 for one and the same.

    A factor of two in a figure costs 0.5: multiprocessors, bandwidth, matrix rate and shared memory of a
    program. Another target costs 0.5, another architecture 1.5, and 1 a figure that one of them lacks
    then. Another vendor or a device that nothing is known of is 8 away. For example H100 and H200 are
    0.3 apart, H100 and B200 2.8, H100 and T4 6.9.
    """
    if a.name == b.name:
        return 0.0
    known = bool(a.target and b.target)
    if not known or a.target.startswith("gfx") != b.target.startswith("gfx"):
        return _STRANGE
    same = a.target == b.target
    apart = 0.0 if same else _OTHER_TARGET if a.arch == b.arch else _OTHER_ARCH
    for name in ("sms", "mem_gb_s", "fp16_tensor_tflops", "max_shared_kb_per_block"):
        x, y = getattr(a, name), getattr(b, name)
        if x and y:
            apart += 0.5 * abs(math.log2(x / y))
        elif not same:
            apart += 1.0
    return min(max(apart, _OTHER_NAME), _STRANGE)


def known() -> list[str]:
    """The canonical names that ``lookup`` gives figures for, registered ones included."""
    return list(dict.fromkeys(device.name for _, device in _index()))


def register(device: Device, *, aliases: Iterable[str] = (), save: bool = False) -> None:
    """Make ``device`` known to ``lookup``, in place of a bundled one of the same name.

    Args:
        device: Its specification.
        aliases: Further names for it.
        save: Whether to write it to ``user_file()`` too, for later processes.

    Raises:
        ValueError: The device has no name.
    """
    if not device.name.strip():
        raise ValueError("device.name must not be empty; give the name that the driver reports")
    with _lock:
        _registered[device.name] = (device, tuple(aliases))
        _index.cache_clear()
    if save:
        _save(device, tuple(aliases))


def user_file() -> Path:
    """The user's own ``devices.json``; it need not exist."""
    import platformdirs

    return platformdirs.user_config_path("autotune_rlm") / "devices.json"


def _words(name: str) -> tuple[str, ...]:
    words = re.findall(r"[a-z0-9]+", name.lower())
    own = {"pro"} if "rtx" in words else set()
    return tuple(w for w in words if w in own or not _VENDOR_WORDS.fullmatch(w)) or tuple(words)


@lru_cache(maxsize=1)
def _index() -> list[tuple[tuple[str, ...], Device]]:
    bundled = json.loads(resources.files(__package__).joinpath("devices.json").read_text("utf-8"))
    entries: dict[str, tuple[Device, tuple[str, ...]]] = {}
    for source in (bundled, _read_user_file()):
        for name, fields in source.items():
            entries[name] = (
                Device.from_json({**fields, "name": name}),
                tuple(fields.get("aliases", ())),
            )
    entries.update(_registered)
    return [
        (_words(alias), device)
        for device, aliases in reversed(entries.values())
        for alias in (device.name, *aliases)
    ]


def _read_user_file() -> Mapping[str, Any]:
    try:
        path = user_file()
    except ModuleNotFoundError:  # a checkout may record without platformdirs
        return {}
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text("utf-8"))
        if not isinstance(data, dict) or not all(isinstance(v, dict) for v in data.values()):
            raise ValueError("it must map device names to objects of figures")
    except (OSError, ValueError) as error:
        _log.warning("ignoring the devices in %s: %s", path, error)
        return {}
    return data


def _save(device: Device, aliases: tuple[str, ...]) -> None:
    from filelock import FileLock

    path = user_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        data = dict(_read_user_file())
        fields = {k: v for k, v in device.to_json().items() if k != "name"}
        data[device.name] = {**fields, **({"aliases": list(aliases)} if aliases else {})}
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(json.dumps(data, indent=1), "utf-8")
        scratch.replace(path)
