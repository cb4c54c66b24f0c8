"""What a Ray cluster has, and an actor for each part of it."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util import accelerators

from autotune_rlm.types import Candidate, Measurer, Task

__all__ = ["RayClusterError", "Worker", "accelerator_of", "connect", "slots"]


class RayClusterError(RuntimeError):
    """The cluster cannot do what is asked; the message says what it has."""


class Worker:
    """Runs in an actor: measures one candidate at a time.

    Args:
        make: Makes the measurer, once.
    """

    def __init__(self, make: Callable[[], Measurer]) -> None:
        self._measurer = make()
        self._where = {"host": platform.node(), "worker": os.getpid()}

    def device(self) -> dict[str, Any]:
        """What is here, as ``Device.to_json`` gives it."""
        from autotune_rlm.measure.detect import cpu_device, current_device

        return (current_device() if ray.get_gpu_ids() else cpu_device()).to_json()

    def measure(self, task: Mapping[str, Any], candidate: Mapping[str, Any]) -> dict[str, Any]:
        """The measurement of a candidate, all as JSON; ``seconds`` is what it took here."""
        begin = time.perf_counter()
        given = Candidate.from_json(candidate)
        ((_, found),) = self._measurer.measure(Task.from_json(task), [given])
        data = found.to_json()
        data["state"] = {**data["state"], **self._where}
        return {"measurement": data, "seconds": time.perf_counter() - begin}


def connect(address: str | None) -> bool:
    """Connect to a cluster; whether it was done here.

    Raises:
        RayClusterError: None answers at the address.
    """
    if ray.is_initialized():
        return False
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise RayClusterError(
            f"no Ray cluster at {address!r} ({type(error).__name__}: {error}); start one with "
            "`ray start --head`, or give address='local' for one in this machine"
        ) from None
    return True


def accelerator_of(device: str) -> str | None:
    """Ray's name of a device's kind: ``"H100"`` of ``"NVIDIA H100 80GB HBM3"``; None without one."""
    known = {
        value
        for name, value in vars(accelerators).items()
        if name.isupper() and isinstance(value, str)
    }
    words = set(re.split(r"[^A-Za-z0-9]+", device))
    fits = [name for name in known if name == device or set(name.split("-")) <= words]
    return max(fits, key=lambda name: (len(name), name), default=None)


def slots(accelerator: str | None, resources: Mapping[str, float] | None, *, gpus: bool) -> int:
    """How many workers find a place in the cluster.

    Args:
        accelerator: Only machines with this kind of accelerator.
        resources: What else each worker takes.
        gpus: Whether each takes a GPU; otherwise a CPU.
    """
    kind = None if accelerator is None else f"accelerator_type:{accelerator}"
    needs = {"GPU" if gpus else "CPU": 1.0, **(resources or {})}
    n = 0
    for node in ray.nodes():
        has = node["Resources"]
        if node["Alive"] and (kind is None or kind in has):
            n += min(int(has.get(name, 0.0) / amount) for name, amount in needs.items() if amount)
    return n
