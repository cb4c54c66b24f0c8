"""Periodic benchmarking: serves the problems that programs noted, whenever the device is idle.

With ``mode="predict"`` a program takes the model's choice and notes the problem in the store. A
``Watcher``, in a process or thread of its own, benchmarks the top candidates of the most used problems
and writes to the store, where the programs find the better choice at their next launch.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune_rlm._checks import check_number
from autotune_rlm._private import lock_folder as own_lock_folder
from autotune_rlm.measure.errors import Owner, classify
from autotune_rlm.measure.pace import PacedMeasurer, busy_share
from autotune_rlm.measure.triton.trusted import UntrustedError, trusted_call
from autotune_rlm.types import Device, Measurer, Status, Surrogate, Task, digest

from .policy import Policy
from .progress import Reporter
from .tuner import Tuner

if TYPE_CHECKING:
    from autotune_rlm.store import Request, Store

__all__ = ["AlreadyWatchedError", "FineTune", "Served", "Watcher", "isolated_measurer"]

_log = logging.getLogger(__name__)
_BATCH = 8
_LATER_S = 300.0  # seconds until a request that failed for lack of memory or device is tried again
_TRIES = 3  # attempts at a request in one watcher

FineTune = Callable[["Store"], "tuple[Surrogate, Mapping[str, Any]]"]
"""Fine-tunes on a store; gives the surrogate to use from now on and a record of the round."""


class AlreadyWatchedError(RuntimeError):
    """Another watcher works on this device."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """The result of serving one request.

    Attributes:
        task: The request's task.
        measured: Number of candidates measured for it.
        best: The best measured configuration; None where none works.
        best_value: Its value in the task's metric.
        finished: Whether the request is done; False where the watcher was stopped before its end.
    """

    task: Task
    measured: int
    best: Mapping[str, Any] | None
    best_value: float | None
    finished: bool


class Watcher:
    """Benchmarks noted problems of one device, the most used first.

    Every measurement is stored at once, and a request stays in the store until it is served. A killed
    watcher therefore loses nothing, and the next one continues where it stopped.

    Args:
        store: The store with the requests; it also receives the measurements.
        device: The device to measure on; None for this machine's. Requests for others are ignored.
        surrogate: Ranks the candidates; None keeps the order in which they were noted.
        top: Candidates to measure per problem.
        duty: Share of the time that may be spent measuring.
        busy: Share of the device's time that others may use before the watcher waits; 1 to never wait.
        kernels: Folders below which kernels may be run. Requests of other processes are untrusted: one
            is served only if it describes the launch of a kernel in a file below one of these folders
            that has not changed since. Others are ignored with a warning that gives the reason.
        measurer: Makes the measurer of a request, for a ``with`` statement, in place of the check of
            ``kernels`` and a worker process that runs the kernel.
        fine_tune: Called after ``fine_tune_after`` new measurements; None for no fine-tuning.
        fine_tune_after: See ``fine_tune``.
        quiet: Whether to write nothing about how far a problem is.
        lock_folder: Folder of the devices' locks; None for a folder of the user's own.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        store: Store,
        *,
        device: Device | None = None,
        surrogate: Surrogate | None = None,
        top: int = 8,
        duty: float = 0.25,
        busy: float = 0.3,
        kernels: Sequence[str | os.PathLike[str]] = (),
        measurer: Callable[[Request], contextlib.AbstractContextManager[Measurer]] | None = None,
        fine_tune: FineTune | None = None,
        fine_tune_after: int = 64,
        quiet: bool = True,
        lock_folder: str | Path | None = None,
    ) -> None:
        check_number("top", top, least=1, whole=True)
        check_number("fine_tune_after", fine_tune_after, least=1, whole=True)
        check_number("duty", duty, above=0, most=1)
        check_number("busy", busy, above=0, most=1)
        if device is None:
            from autotune_rlm.measure.detect import current_device

            device = current_device()
        self.store = store
        self.device = device
        self.surrogate = surrogate
        self._top, self._duty, self._busy = top, duty, busy
        missing = [str(folder) for folder in kernels if not Path(folder).is_dir()]
        if missing:
            raise ValueError(f"kernels must be folders that are there, got {', '.join(missing)}")
        self._kernels = tuple(kernels) if measurer is None else None
        self._measurer = measurer or functools.partial(isolated_measurer, kernels=tuple(kernels))
        self._fine_tune, self._fine_tune_after = fine_tune, fine_tune_after
        self._quiet = quiet
        self._lock_file = _lock_file(device, lock_folder)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._new = 0
        self._skipped: set[str] = set()
        self._later: dict[str, float] = {}  # when the machine may be better again, by task
        self._tries: Counter[str] = Counter()

    def run(
        self,
        *,
        once: bool = False,
        seconds: float | None = None,
        poll_s: float = 10.0,
        told: Callable[[Served], None] = lambda served: None,
    ) -> int:
        """Serve requests until stopped; gives the number of those served.

        Args:
            once: Return when no request is left.
            seconds: Return after this time.
            poll_s: Seconds between two looks into the store where it has no request.
            told: Called after each request.

        Raises:
            AlreadyWatchedError: Another process watches this device.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        timer = None
        if seconds is not None:
            timer = threading.Timer(seconds, self._stop.set)
            timer.daemon = True
            timer.start()
        count = 0
        try:
            with self._alone():
                while not self._stop.is_set():
                    served = self.step()
                    if served is not None:
                        count += served.finished
                        told(served)
                    elif once:
                        break
                    else:
                        left = poll_s if deadline is None else deadline - time.monotonic()
                        self._stop.wait(max(0.0, min(poll_s, left)))
        finally:
            if timer is not None:
                timer.cancel()
        return count

    def step(self) -> Served | None:
        """Serve the first request that can be; None where there is none."""
        request = next(filter(self._can_serve, self.store.requests()), None)
        if request is None:
            return None
        served = self._serve(request)
        if served.finished:
            self.store.drop_request(request.task)
        elif not self._stop.is_set():
            self._put_off(request.task)
        self._new += served.measured
        if self._fine_tune is not None and self._new >= self._fine_tune_after:
            self._new = 0
            self._learn(self._fine_tune)
        return served

    def start(self) -> None:
        """Run in a background thread of this process until ``stop``."""
        if self._thread is not None:
            raise RuntimeError("the watcher runs already")
        self._stop.clear()
        self._thread = threading.Thread(target=self._run_quietly, name="watch", daemon=True)
        self._thread.start()

    def stop(self, *, timeout_s: float | None = 60.0) -> None:
        """Finish the candidate in hand and end ``run``."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            self._thread = None

    def _can_serve(self, request: Request) -> bool:
        task = request.task
        if task.device.name != self.device.name or task.key in self._skipped:
            return False
        if self._later.get(task.key, 0.0) > time.monotonic():
            return False
        if request.workload is None or not request.candidates:
            self._leave(task, request.obstacle or "how to run it was not noted")
            return False
        if self._kernels is not None:
            try:
                trusted_call(request.workload, self._kernels)
            except UntrustedError as error:
                self._leave(task, str(error))
                return False
        return True

    def _put_off(self, task: Task) -> None:
        """Try a request again later, at most ``_TRIES`` times; it stays in the store."""
        self._later[task.key] = time.monotonic() + _LATER_S
        self._tries[task.key] += 1
        if self._tries[task.key] >= _TRIES:
            self._leave(task, f"none of its configurations could be tried, {_TRIES} times")

    def _leave(self, task: Task, reason: str) -> None:
        self._skipped.add(task.key)
        _log.warning("cannot benchmark %s: %s", task.kernel, reason)

    def _serve(self, request: Request) -> Served:
        task, candidates = request.task, list(request.candidates)
        idle = (lambda: busy_share(self.device) < self._busy) if self._busy < 1 else None
        try:
            with self._measurer(request) as measurer, Reporter(quiet=self._quiet) as line:
                paced = PacedMeasurer(measurer, duty=self._duty, stop=self._stop, idle=idle)
                policy = Policy(batch=_BATCH)  # a failure counts once another of its batch works
                tuner = Tuner(
                    surrogate=self.surrogate, measurer=paced, store=self.store, policy=policy
                )
                budget = min(self._top, len(candidates))
                result = tuner.tune(task, candidates, budget=budget, progress=line)
        except Exception as error:
            is_machines = classify(error).owner is Owner.MACHINE
            what = "kept for later" if is_machines else "dropped"
            _log.exception("benchmarking %s failed; its request is %s", task.kernel, what)
            return Served(
                task=task, measured=0, best=None, best_value=None, finished=not is_machines
            )
        stopped = self._stop.is_set()
        statuses = {o.measurement.status for o in result.observations}
        # Only the machine failed, such as full memory or no driver.
        untried = statuses <= {Status.SKIPPED} and not paced.failed
        if result.best is None and not stopped:
            reasons = {o.measurement.reason for o in result.observations}
            _log.warning("no candidate of %s works here: %s", task.kernel, "; ".join(reasons))
        best = result.best
        return Served(
            task=task,
            measured=result.event.n_measured,
            best=None if best is None else dict(best.candidate.config),
            best_value=None if best is None else best.measurement.value,
            finished=not stopped and not untried,
        )

    def _learn(self, fine_tune: FineTune) -> None:
        try:
            self.surrogate, record = fine_tune(self.store)
        except Exception as error:
            _log.warning("fine-tuning failed: %s: %s", type(error).__name__, error)
            return
        _log.info("fine-tuned on the store: %s", dict(record))

    def _run_quietly(self) -> None:
        try:
            self.run()
        except AlreadyWatchedError as error:
            _log.warning("%s", error)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        self._lock_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(self._lock_file, mode=0o600)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise AlreadyWatchedError(
                f"another process watches {self.device.name!r} already (lock {self._lock_file}); "
                "stop it first, or let it work"
            ) from None
        try:
            yield
        finally:
            lock.release()


@contextlib.contextmanager
def isolated_measurer(
    request: Request, *, kernels: Sequence[str | os.PathLike[str]]
) -> Iterator[Measurer]:
    """Runs a request's workload in a worker process, compiling in two others.

    Args:
        request: The request, from the store.
        kernels: See ``Watcher``.

    Raises:
        UntrustedError: The request asks for something that may not be run here.
    """
    from autotune_rlm.measure.triton import IsolatedMeasurer
    from autotune_rlm.measure.triton.compile import CompilePool

    workload = trusted_call(request.workload or {}, kernels).workload()
    with CompilePool(2, niceness=10) as pool, IsolatedMeasurer(workload, pool=pool) as measurer:
        yield measurer


def _lock_file(device: Device, folder: str | Path | None) -> Path:
    from autotune_rlm.measure.workers.device_lock import device_identity

    which = [] if device.target == "cpu" else [device_identity()]
    return (
        own_lock_folder() if folder is None else Path(folder)
    ) / f"watch-{digest([device.name, *which])}.lock"
