"""Measuring beside other work: in a duty cycle, while the device is idle, stopped at any time."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import psutil

from autotune_rlm._checks import check_number

from ..types import Candidate, Device, Measurement, Measurer, Status, Task

_MAX_REST_S = 60.0


class PacedMeasurer:
    """A ``Measurer`` that lets another one work only part of the time.

    Failures are held back until a first candidate has worked: where none does, the fault is likely the
    workload's and not the candidates', and they are ``skipped`` so that nobody learns from them.

    Args:
        measurer: Does the work.
        duty: Share of the time in (0, 1] that may be spent measuring.
        stop: Ends measuring after the candidate in hand; the rest are ``skipped``.
        idle: Whether the device is free now; asked before each candidate. None for always.
        poll_s: Seconds between two questions while it is not.

    Raises:
        ValueError: ``duty`` is out of range.
    """

    def __init__(
        self,
        measurer: Measurer,
        *,
        duty: float = 1.0,
        stop: threading.Event | None = None,
        idle: Callable[[], bool] | None = None,
        poll_s: float = 2.0,
    ) -> None:
        check_number("duty", duty, above=0, most=1)
        self._measurer, self._duty, self._poll_s = measurer, duty, poll_s
        self._stop = stop or threading.Event()
        self._idle = idle or (lambda: True)
        self.worked = self.failed = False

    def measure(
        self, task: Task, candidates: Iterable[Candidate]
    ) -> Iterator[tuple[Candidate, Measurement]]:
        """See ``Measurer``."""
        listed = list(candidates)
        held: list[tuple[Candidate, Measurement]] = []
        done: set[str] = set()
        results = iter(self._measurer.measure(task, listed))
        while self._may_go_on():
            begin = time.monotonic()
            found = next(results, None)
            if found is None:
                break
            candidate, measurement = found
            done.add(candidate.key)
            self.failed |= measurement.status.is_failure
            if measurement.ok and not self.worked:
                self.worked = True
                yield from held
                held = []
            if self.worked or not measurement.status.is_failure:
                yield found
            else:
                held.append(found)
            self._rest(time.monotonic() - begin)
        for candidate, measurement in held:
            reason = f"no candidate has worked: {measurement.reason}"
            yield candidate, Measurement(status=Status.SKIPPED, reason=reason)
        for candidate in listed:
            if candidate.key not in done:
                yield candidate, Measurement(status=Status.SKIPPED, reason="stopped")

    def _may_go_on(self) -> bool:
        while not self._stop.is_set() and not self._idle():
            self._stop.wait(self._poll_s)
        return not self._stop.is_set()

    def _rest(self, busy_s: float) -> None:
        if self._duty < 1:
            self._stop.wait(min(busy_s * (1 / self._duty - 1), _MAX_REST_S))


def busy_share(device: Device) -> float:
    """How busy a device is with anybody's work, from 0 to 1; 0 where that cannot be read."""
    if device.target == "cpu":
        return psutil.cpu_percent(interval=0.5) / 100
    with suppress(Exception):
        import torch

        return torch.cuda.utilization() / 100  # where pynvml or, of AMD, amdsmi is installed
    with suppress(Exception):
        which = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
        query = ["nvidia-smi", "-i", which, "--query-gpu=utilization.gpu"]
        query.append("--format=csv,noheader,nounits")
        out = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        return float(out.stdout.splitlines()[0]) / 100
    return 0.0
