"""The device that kernels are launched on, and whether it can be measured now."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

from triton import knobs
from triton.runtime import driver

from autotune_rlm.devices import lookup
from autotune_rlm.measure.detect import cpu_device, current_device
from autotune_rlm.types import Device


def device_of(given: Device | str | None) -> Device:
    """The device that an argument means; None for the active one."""
    if isinstance(given, Device):
        return given
    if given is not None:
        return lookup(given)
    if knobs.runtime.interpret:
        cpu = cpu_device()
        return dataclasses.replace(cpu, name=f"{cpu.name} (Triton interpreter)")
    if has_accelerator():
        return current_device()
    target = driver.active.get_current_target()
    name = f"sm_{target.arch}" if target.backend == "cuda" else str(target.arch)
    return Device(name=name, target=name)


def has_accelerator() -> bool:
    """Whether torch sees a device."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.accelerator.is_available()


def job_of_ranks() -> Any:
    """``torch.distributed`` where this process is one of several ranks that may agree, else None."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or os.environ.get("AUTOTUNE_RLM_AGREE", "1").strip() == "0":
        return None
    if not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed if distributed.get_world_size() > 1 else None


def is_capturing() -> bool:
    """Whether this thread's launches go into a CUDA graph instead of being run."""
    torch = sys.modules.get("torch")
    return (
        torch is not None
        and torch.cuda.is_available()
        and torch.cuda.is_initialized()
        and torch.cuda.is_current_stream_capturing()
    )


def wait_for_device() -> None:
    """Wait for what this process launched before, and raise what an earlier kernel did wrong.

    The device tells it only now: it is the caller's own error, and none of the next configuration.
    """
    if has_accelerator() and not knobs.runtime.interpret:
        sys.modules["torch"].accelerator.synchronize()
