"""A measurer whose candidates run on a Ray cluster."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError

from autotune_rlm.devices import lookup
from autotune_rlm.types import Candidate, Device, Measurement, Measurer, Status, Task

from ._cluster import RayClusterError, Worker, accelerator_of, connect, slots
from ._workload import isolated

if TYPE_CHECKING:
    from autotune_rlm.measure.triton import Workload

__all__ = ["Cluster", "RayMeasurer"]

_log = logging.getLogger(__name__)
_POLL_S = 1.0  # between looks at workers that are only starting


@dataclass(eq=False)
class _Actor:
    """A worker as this process sees it."""

    handle: Any
    starts: Any  # the reference of its device, until it is there
    busy: Any = None  # the reference of what it measures


@dataclass(frozen=True)
class _Job:
    candidate: Candidate
    tries: int = 0


class RayMeasurer:
    """A ``Parallel`` measurer: one actor for each GPU of a cluster, or for each CPU where there is none.

    A worker that is lost (its process killed, its machine gone) is replaced as soon as the cluster has
    room, and its candidate is tried by another. What was measured has been given out by then, and a
    ``Tuner`` has written it.

    Args:
        make: Makes the measurer of a worker, once in each, such as ``isolated(workload)``. It is sent
            by ``cloudpickle``; ``autotune_rlm`` has to be installed on the machines.
        address: Of the cluster: ``"auto"``, ``"host:6379"``, ``"ray://host:10001"``, or ``"local"`` for
            one that this process starts. Where Ray is connected already, that cluster is used.
        workers: How many; by default as many as find a place.
        device: Only GPUs of this name, such as ``"NVIDIA H100"``: placed by Ray's ``accelerator_type``;
            each worker then says what it found.
        resources: What else each worker takes of Ray's own resources: ``{"idle_machine": 1}``.
        gpus: Whether each worker takes a GPU; by default where the cluster has any.
        retries: How often a candidate is tried again whose worker was lost; then it is ``skipped``.
        start_timeout_s: Seconds for the first worker to be there.

    Raises:
        RayClusterError: No cluster, no place for a worker in it, none started in time, or none has the
            device.
        ValueError: ``workers`` or ``retries`` is out of range.
    """

    def __init__(
        self,
        make: Callable[[], Measurer],
        *,
        address: str | None = None,
        workers: int | None = None,
        device: str | None = None,
        resources: Mapping[str, float] | None = None,
        gpus: bool | None = None,
        retries: int = 2,
        start_timeout_s: float = 300.0,
    ) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1 or None, got {workers!r}")
        if retries < 0:
            raise ValueError(f"retries must be at least 0, got {retries!r}")
        self._connected = connect(address)
        has_gpus = bool(ray.cluster_resources().get("GPU"))
        gpus = has_gpus if gpus is None else gpus
        kind = accelerator_of(device) if device and gpus else None
        room = slots(kind, resources, gpus=gpus)
        if not room:
            self._disconnect()
            raise RayClusterError(
                f"no place for a worker with {'a GPU' if gpus else 'a CPU'}"
                + (f" of the kind {kind}" if kind else "")
                + (f" and {dict(resources)}" if resources else "")
                + "; `ray status` lists what the cluster has"
            )
        self._make, self._retries = make, retries
        self._wanted_device = None if device is None or not gpus else lookup(device)
        self._options: dict[str, Any] = {
            "num_cpus": 0 if gpus else 1,
            "num_gpus": 1 if gpus else 0,
            "max_restarts": 0,
            **({"accelerator_type": kind} if kind else {}),
            **({"resources": dict(resources)} if resources else {}),
        }
        self.workers = room if workers is None else min(workers, room)
        self.lost = 0
        self._device: Device | None = None
        self._actors = [self._start() for _ in range(self.workers)]
        try:
            self._wait_for_one(start_timeout_s)
        except BaseException:
            self.close()
            raise

    @property
    def device(self) -> Device:
        """What the first worker has."""
        assert self._device is not None
        return self._device

    def measure(
        self, task: Task, candidates: Iterable[Candidate]
    ) -> Iterator[tuple[Candidate, Measurement]]:
        """Yield ``(candidate, measurement)`` as each is done; takes one whenever a worker is free."""
        source, again = iter(candidates), deque[_Job]()
        sent, exhausted = task.to_json(), False
        running: dict[Any, tuple[_Actor, _Job]] = {}
        while True:
            for actor in self._free(running):
                job = again.popleft() if again else next(map(_Job, source), None)
                if job is None:
                    exhausted = True
                    break
                actor.busy = actor.handle.measure.remote(sent, job.candidate.to_json())
                running[actor.busy] = (actor, job)
            if exhausted and not running and not again:
                return
            if not self._actors:
                reason = "all workers of the cluster were lost"
                yield from ((job.candidate, _skipped(reason)) for job in again)
                return
            waiting = [r for a in self._actors for r in (a.starts, a.busy) if r is not None]
            done, _ = ray.wait(waiting, num_returns=1, timeout=_POLL_S) if waiting else ([], [])
            for reference in done:
                if reference not in running:
                    continue
                actor, job = running.pop(reference)
                found = self._result(actor, reference)
                if found is not None:
                    yield job.candidate, found
                elif job.tries < self._retries:
                    again.append(_Job(job.candidate, job.tries + 1))
                else:
                    reason = f"the worker was lost {job.tries + 1} times"
                    yield job.candidate, _skipped(reason)

    def close(self) -> None:
        """End the workers; disconnect where this measurer connected."""
        for actor in self._actors:
            ray.kill(actor.handle)
        self._actors = []
        self._disconnect()

    def __enter__(self) -> RayMeasurer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _disconnect(self) -> None:
        if self._connected:
            self._connected = False
            ray.shutdown()

    def _start(self) -> _Actor:
        handle: Any = ray.remote(Worker).options(**self._options).remote(self._make)
        return _Actor(handle, handle.device.remote())

    def _result(self, actor: _Actor, reference: Any) -> Measurement | None:
        """What a worker answered; None where it was lost."""
        actor.busy = None
        try:
            return Measurement.from_json(ray.get(reference)["measurement"])
        except RayTaskError as error:  # the measurer raised
            return _skipped(f"the worker's measurer raised {_last_line(error)}")
        except RayError as error:
            self._replace(actor, error)
            return None

    def _replace(self, actor: _Actor, error: BaseException) -> None:
        self.lost += 1
        _log.warning("a worker was lost, another is started: %s", type(error).__name__)
        ray.kill(actor.handle)
        self._actors.remove(actor)
        self._actors.append(self._start())

    def _free(self, running: Container[Any] = ()) -> list[_Actor]:
        """Workers that are there and measure nothing.

        Args:
            running: What is measured for the present caller; what an earlier one left is not waited for.
        """
        for actor in list(self._actors):
            if actor.starts is not None:
                self._look_at(actor)
            elif actor.busy not in running and actor.busy is not None:
                done, _ = ray.wait([actor.busy], timeout=0)
                actor.busy = None if done else actor.busy
        return [a for a in self._actors if a.starts is None and a.busy is None]

    def _look_at(self, actor: _Actor) -> None:
        """Whether a starting worker is there, with the right device."""
        if not ray.wait([actor.starts], timeout=0)[0]:
            return
        try:
            device = Device.from_json(ray.get(actor.starts))
        except RayError as error:
            if isinstance(error, RayTaskError) or getattr(error, "actor_init_failed", False):
                self._actors.remove(actor)  # another would fail alike
                raise RayClusterError(f"a worker could not begin: {_last_line(error)}") from None
            self._replace(actor, error)
            return
        wanted = self._wanted_device
        if wanted is not None and lookup(device.name).name != wanted.name:
            _log.warning("a worker has %s, not %s, and is left out", device.name, wanted.name)
            self._actors.remove(actor)
            ray.kill(actor.handle)
            return
        actor.starts = None
        self._device = self._device or device

    def _wait_for_one(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._device is None:
            starts = [a.starts for a in self._actors if a.starts is not None]
            if not starts:
                raise RayClusterError(f"no worker has {self._wanted_device}")
            if time.monotonic() > end:
                raise RayClusterError(
                    f"no worker began within {seconds:g} s; `ray status` says what is in use"
                )
            ray.wait(starts, num_returns=1, timeout=_POLL_S)
            self._free()


def _skipped(reason: str) -> Measurement:
    return Measurement(status=Status.SKIPPED, reason=reason)


def _last_line(error: BaseException) -> str:
    """What was raised there: the end of the traceback that Ray sends."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


class Cluster:
    """A cluster to measure many workloads on: what its workers have, and a measurer for each workload.

    Args:
        address: See ``RayMeasurer``.
        workers: Of each measurer; by default as many as find a place.
        device: Only GPUs of this name.
        gpus: Whether each worker takes a GPU; by default where the cluster has any.

    Raises:
        RayClusterError: No cluster, no place in it, or no such device.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        device: str | None = None,
        gpus: bool | None = None,
    ) -> None:
        self._connected = connect(address)
        self._options: dict[str, Any] = {"workers": workers, "device": device, "gpus": gpus}
        try:
            with RayMeasurer(_nothing, **{**self._options, "workers": 1}) as first:
                self.device = first.device
        except BaseException:
            self.close()
            raise

    def measurer(self, workload: Workload, **options: Any) -> RayMeasurer:
        """What measures a workload, each candidate in a process of its own.

        Args:
            workload: What to run; its file goes along.
            **options: Of ``IsolatedMeasurer``: ``env``, ``timeout_s``.
        """
        return RayMeasurer(isolated(workload, **options), **self._options)

    def close(self) -> None:
        """Disconnect where this connected."""
        if self._connected:
            self._connected = False
            ray.shutdown()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Nothing:
    """A measurer of workers that only say what they have."""

    def measure(
        self, task: Task, candidates: Iterable[Candidate]
    ) -> Iterator[tuple[Candidate, Measurement]]:
        return iter(())


def _nothing() -> Measurer:
    return _Nothing()
