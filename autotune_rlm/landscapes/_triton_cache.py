"""Timings that Triton's autotuner keeps on disk: ``<kernel>.autotune.json`` in folders of its cache.

Written by ``Autotuner.check_disk_cache`` with ``cache_results=True`` or ``TRITON_CACHE_AUTOTUNING=1``. It
says the values of the key arguments without their names, the dtypes of all tensors, and for each
configuration the median, the 20 % and the 80 % quantile in milliseconds. It says neither source nor
device; its folder's name is a digest of both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune_rlm._json import plain, shown
from autotune_rlm.devices import lookup
from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.types import Candidate, Device, Measurement, Observation, Status, Task

SUFFIX = ".autotune.json"
_OPTIONS = {"num_warps": 4, "num_stages": 3}  # always told
_RARE = {"num_ctas": (None, 1), "maxnreg": (None,), "ir_override": (None,)}  # told where set
_NO_DEVICE = "unknown"
_DTYPE = ("torch.", "tl.", "triton.language.")


def parse(text: str, path: Path, device: Device | None = None) -> list[Landscape]:
    """The landscape of a file.

    Args:
        text: Its content.
        path: Where it is: the kernel's name, and below the folder's.
        device: What it was measured on; by default the one target that the cache has binaries of this
            kernel for, as far as that tells.
    """
    try:
        data = json.loads(text)
        pairs = [(dict(config), list(times)) for config, times in data["configs_timings"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not timings of Triton's autotuner: {error}") from None
    kernel = path.name.removesuffix(SUFFIX)
    task = Task(
        kernel=kernel,
        device=device or _device(path, kernel),
        problem=triton_problem(data.get("key") or ()),
        versions={"triton_cache": path.absolute().parent.name},
    )
    try:
        found = [
            Observation(Candidate(_parameters(config)), triton_measurement(times))
            for config, times in pairs
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error!r} in {shown(pairs)}") from None
    return [Landscape.from_observations(task, found)]


def triton_measurement(times: Sequence[float]) -> Measurement:
    """The measurement of median, 20 % and 80 % quantile in ms; infinite where it failed."""
    median, low, high = map(float, [*times, times[0], times[0]][:3])
    state = {"from": "Triton's cache of timings", "interval": "20 % to 80 % of the runs"}
    if not math.isfinite(median):
        reason = "Triton's autotuner has no time for it"
        return Measurement(status=Status.RUNTIME_ERROR, reason=reason, state=state)
    return Measurement(status=Status.OK, value=median, low=low, high=high, state=state)


def triton_problem(key: Iterable[Any], names: Sequence[str] = ()) -> dict[str, Any]:
    """What a key of Triton's autotuner says of a problem.

    Args:
        key: Values of the key arguments, then dtypes of all tensors.
        names: The key arguments; without them they are numbered.
    """
    values = list(key)
    dtypes: list[str] = []
    while len(values) > len(names) and _is_dtype(values[-1]):
        dtypes.insert(0, values.pop())
    named = dict(
        zip([*names, *(f"key{i}" for i in range(len(names), len(values)))], values, strict=False)
    )
    return plain({**named, **({"dtypes": dtypes} if dtypes else {})})


def _is_dtype(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(_DTYPE)


def _parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a candidate from the dictionary of a ``triton.Config``."""
    given = dict(config["kwargs"])
    given |= {name: config.get(name, default) for name, default in _OPTIONS.items()}
    given |= {
        name: config[name]
        for name, unset in _RARE.items()
        if name in config and config[name] not in unset
    }
    return plain(given)


def _device(path: Path, kernel: str) -> Device:
    """The target that all binaries of the kernel in the same cache were compiled for."""
    targets = {_target(file) for file in path.absolute().parent.parent.glob(f"*/{kernel}.json")}
    if len(targets) != 1 or not (target := targets.pop()):
        return Device(name=_NO_DEVICE)
    found = lookup(target)
    return found if found.target == target else Device(name=target, target=target)


def _target(file: Path) -> str:
    try:
        target = json.loads(file.read_text("utf-8"))["target"]
        arch = target["arch"]
    except (OSError, KeyError, TypeError, ValueError):
        return ""
    return f"sm_{arch}" if isinstance(arch, int) else str(arch)
