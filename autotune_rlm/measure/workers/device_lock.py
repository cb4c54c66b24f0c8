"""One lock per device: two processes that time kernels at once would measure each other."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator

from autotune_rlm._private import lock_folder
from autotune_rlm.measure.interpreter import interpreting
from autotune_rlm.types import digest

_log = logging.getLogger(__name__)
_PATIENCE_S = 30.0
_GIVEN_UP_S = 600.0

_waits_again_at = 0.0


def device_identity() -> str:
    """What tells the current accelerator from others of its name, whatever number it has here."""
    with contextlib.suppress(Exception):
        import torch

        return str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    visible = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
    return " ".join(os.environ.get(name, "") for name in visible)


@contextlib.contextmanager
def device_lock() -> Iterator[None]:
    """Held while a candidate is on the device; nothing where there is no accelerator.

    Waits for another process as long as a candidate takes at most, then goes on without.
    """
    torch = sys.modules.get("torch")  # nothing but torch reaches an accelerator
    if torch is None or interpreting() or not torch.accelerator.is_available():
        yield
        return
    with _holding(device_identity()):
        yield


@contextlib.contextmanager
def _holding(device: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    global _waits_again_at
    lock = None
    try:
        if time.monotonic() >= _waits_again_at:
            lock = FileLock(lock_folder() / f"device-{digest(device)}.lock", mode=0o600)
            lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        lock = None
        _waits_again_at = time.monotonic() + _GIVEN_UP_S
        _log.warning(
            "another process has been timing on this device for %d s; timing beside it, which makes "
            "the times of both less exact",
            _PATIENCE_S,
        )
    except OSError as error:
        lock = None
        _log.debug("timing without a lock: %s", error)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
