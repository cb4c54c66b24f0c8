"""What a Ray cluster has, and workers in it: actors, one for each accelerator, that outlive a search."""

from __future__ import annotations

import logging
import os
import platform
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util import accelerators

from autotune_rlm._checks import check_number, check_type
from autotune_rlm._closing import Closing
from autotune_rlm.devices import lookup
from autotune_rlm.types import Device

if TYPE_CHECKING:
    from autotune_rlm.integrations.ray._measurer import RayMeasurer
    from autotune_rlm.measure.triton import Workload

_log = logging.getLogger(__name__)
_POLL_S = 1.0  # between looks at workers that are only starting
_ANSWERS_S = 10.0  # for a machine at an address; Ray itself tries for minutes
_MOST_COMPILERS = 8  # a worker with more has compiled what is likely next before it is asked for
T = TypeVar("T")


class RayClusterError(RuntimeError):
    """The cluster cannot do what is asked; the message says what it has."""


@dataclass(eq=False)
class Actor:
    """A worker as this process sees it."""

    handle: Any
    starts: Any = None  # the reference of its device, until it is there
    busy: Any = None  # the reference of what it does
    soon: deque[Any] = field(default_factory=deque)  # what it was told to prepare
    ready: frozenset[str] = frozenset()  # keys of what it has prepared, by its last answer


@dataclass(frozen=True)
class Done(Generic[T]):
    """An item with what a worker answered; None, and a reason, where none could."""

    item: T
    actor: Actor | None = None
    answer: Any = None
    reason: str = ""


class Cluster(Closing):
    """Workers of a Ray cluster: one for each GPU, or for each CPU where there is none.

    They stay for all that is measured until ``close``. One that is lost (its process killed, its
    machine gone) is replaced as soon as the cluster has room, and what it did is tried by another.
    Workers with another GPU than the first are left out: one search is of one device.

    Args:
        address: Of the cluster: ``"auto"``, ``"host:6379"``, ``"ray://host:10001"``, or ``"local"`` for
            one that this process starts. Where Ray is connected already, that cluster is used.
        workers: How many; by default as many as find a place.
        device: Only GPUs of this name, such as ``"NVIDIA H100"``: placed by Ray's ``accelerator_type``;
            each worker then says what it found.
        resources: What else each worker takes of Ray's own resources: ``{"idle_machine": 1}``.
        gpus: Whether each worker takes a GPU; by default where the cluster has any.
        retries: How often an item is tried again whose worker was lost.
        start_timeout_s: Seconds for the first worker to be there.

    Attributes:
        workers: How many are wanted.
        lost: How many were lost so far.
        asking: The worker that an item is taken for.

    Raises:
        RayClusterError: No cluster, no place for a worker in it, none started in time, or none has the
            device.
        ValueError: ``workers`` or ``retries`` is out of range.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        device: str | None = None,
        resources: Mapping[str, float] | None = None,
        gpus: bool | None = None,
        retries: int = 2,
        start_timeout_s: float = 300.0,
    ) -> None:
        check_type("address", address, str, type(None))
        check_number("workers", workers, least=1, whole=True, none=True)
        check_number("retries", retries, least=0, whole=True)
        self._connected = _connect(address)
        self._retries, self._start_timeout_s = retries, start_timeout_s
        self._gpus = bool(ray.cluster_resources().get("GPU")) if gpus is None else gpus
        kind = accelerator_of(device) if device and self._gpus else None
        self._options: dict[str, Any] = {
            "num_cpus": 0 if self._gpus else 1,
            "num_gpus": 1 if self._gpus else 0,
            "max_restarts": 0,
            "accelerator_type": kind,
            "resources": dict(resources or {}),
        }
        self._wanted = device if self._gpus else None
        self._found: Device | None = None
        self._actors: list[Actor] = []
        self.asking = Actor(None)
        self.lost = 0
        try:
            room = _places(kind, {"GPU" if self._gpus else "CPU": 1.0, **(resources or {})})
            if not room:
                raise RayClusterError(
                    f"no place for a worker with {'a GPU' if self._gpus else 'a CPU'}"
                    + (f" of the kind {kind}" if kind else "")
                    + (f" and {dict(resources)}" if resources else "")
                    + "; `ray status` lists what the cluster has"
                )
            self.workers = room if workers is None else min(workers, room)
            self._actors = [self._start() for _ in range(self.workers)]
            self.use(None)
        except BaseException:
            self.close()
            raise

    @property
    def device(self) -> Device:
        """What the first worker has."""
        assert self._found is not None
        return self._found

    @property
    def cores_each(self) -> int:
        """Cores for each worker on the machine that has fewest, up to 8; one with a GPU reserves none."""
        has = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        each = [int(r.get("CPU", 1) / r["GPU"]) for r in has if self._gpus and r.get("GPU")]
        return max(1, min([_MOST_COMPILERS, *each])) if each else 1

    def measurer(self, workload: Workload, **options: Any) -> RayMeasurer:
        """What measures a workload, each candidate in a process of its own.

        Args:
            workload: What to run; its file goes along.
            **options: Of ``IsolatedMeasurer``: ``env``, ``timeout_s``.
        """
        from autotune_rlm.integrations.ray._measurer import RayMeasurer
        from autotune_rlm.integrations.ray._workload import isolated

        return RayMeasurer(isolated(workload, compilers=self.cores_each, **options), cluster=self)

    def use(self, make: Callable[[], Any] | None) -> None:
        """Have each worker make what does its work from now on, and wait for the first that has.

        Args:
            make: Sent by ``cloudpickle``. It gives a function of what ``each`` sends; one with a method
                ``close`` is closed when another takes its place.

        Raises:
            RayClusterError: It cannot be made, or no worker is there in time.
        """
        self._make = ray.put(make)
        for actor in self._actors:
            self._tell(actor)
        end = time.monotonic() + self._start_timeout_s
        while not self._free():
            starts = [a.starts for a in self._actors if a.starts is not None]
            waits = starts or [a.busy for a in self._actors]
            if not waits:
                raise RayClusterError(f"no worker has {self._wanted}")
            if time.monotonic() > end:
                raise RayClusterError(
                    f"no worker began within {self._start_timeout_s:g} s; `ray status` says what is "
                    "in use"
                )
            ray.wait(waits, num_returns=1, timeout=_POLL_S)

    def each(
        self, items: Iterable[T], send: Callable[[T, Actor], Sequence[Any]], *, ahead: int = 0
    ) -> Iterator[Done[T]]:
        """Yield each item as it is done; takes one whenever a worker is free.

        Args:
            items: What to do.
            send: Gives an item's arguments for what ``use`` had made, as its worker is chosen.
            ahead: Items to take for each worker before their turn, which ``send`` finds in ``soon``.
        """
        source, again = iter(items), deque[tuple[T, int]]()
        running: dict[Any, tuple[Actor, T, int]] = {}
        exhausted = False
        while True:
            for actor in self._free(running):
                self.asking = actor
                jobs = [again.popleft()] if again else [(i, 0) for i in self._take(source, ahead)]
                if not jobs:
                    exhausted = True
                    break
                actor.busy = actor.handle.do.remote(*send(jobs[0][0], actor))
                running[actor.busy] = (actor, *jobs[0])
            if exhausted and not running and not again:
                return
            if not self._actors:
                for item, _ in again:
                    yield Done(item, reason="all workers of the cluster were lost")
                return
            waits = [r for a in self._actors for r in (a.starts, a.busy) if r is not None]
            finished, _ = ray.wait(waits, num_returns=1, timeout=_POLL_S) if waits else ([], [])
            for reference in finished:
                if reference not in running:
                    continue
                actor, item, tries = running.pop(reference)
                actor.busy = None
                try:
                    done = Done(item, actor, ray.get(reference))
                except RayTaskError as error:  # what does the work raised
                    done = Done(item, actor, reason=f"the worker raised {_last_line(error)}")
                except RayError as error:
                    again.extend((other, 0) for other in actor.soon)
                    self._replace(actor, error)
                    if tries < self._retries:
                        again.append((item, tries + 1))
                        continue
                    done = Done(item, actor, reason=f"the worker was lost {tries + 1} times")
                yield done

    def close(self) -> None:
        """End the workers; disconnect where this connected."""
        for actor in self._actors:
            ray.kill(actor.handle)
        self._actors = []
        if self._connected:
            self._connected = False
            ray.shutdown()

    def _take(self, source: Iterator[T], ahead: int) -> list[T]:
        """The next item for the worker that asks: its own, or the last of the fullest other's."""
        if not ahead:
            return list(islice(source, 1))
        own = self.asking.soon
        own.extend(islice(source, ahead + 1 - len(own)))
        if own:
            return [own.popleft()]
        fullest = max((a.soon for a in self._actors), key=len)
        return [fullest.pop()] if fullest else []

    def _start(self) -> Actor:
        return Actor(ray.remote(_Worker).options(**self._options).remote())

    def _tell(self, actor: Actor) -> None:
        actor.starts, actor.ready = actor.handle.use.remote(self._make), frozenset()
        actor.soon.clear()

    def _replace(self, actor: Actor, error: BaseException) -> None:
        self.lost += 1
        _log.warning("a worker was lost, another is started: %s", type(error).__name__)
        self._leave_out(actor)
        self._actors.append(self._start())
        self._tell(self._actors[-1])

    def _leave_out(self, actor: Actor) -> None:
        self._actors.remove(actor)
        ray.kill(actor.handle)

    def _free(self, running: Mapping[Any, Any] | None = None) -> list[Actor]:
        """Workers that are there and do nothing but, at most, what an earlier caller left ``running``."""
        for actor in list(self._actors):
            if actor.busy is not None and actor.busy not in (running or {}):
                done, _ = ray.wait([actor.busy], timeout=0)
                actor.busy = None if done else actor.busy
            if actor.starts is not None:
                self._look_at(actor)
        return [a for a in self._actors if a.starts is None and a.busy is None]

    def _look_at(self, actor: Actor) -> None:
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
        if self._wanted is not None and lookup(device.name).name != lookup(self._wanted).name:
            _log.warning("a worker has %s, not %s, and is left out", device.name, self._wanted)
            self._leave_out(actor)
            return
        actor.starts = None
        self._found = self._found or device
        if self._gpus:
            self._wanted = self._found.name


class _Worker:
    """Runs in an actor: does one thing at a time."""

    def __init__(self) -> None:
        self._does: Any = None

    def use(self, make: Callable[[], Any] | None) -> dict[str, Any]:
        """What is here, as ``Device.to_json`` gives it, once what does the work is made."""
        from autotune_rlm.measure.detect import cpu_device, current_device

        if hasattr(self._does, "close"):
            self._does.close()
        self._does = None if make is None else make()
        return (current_device() if ray.get_gpu_ids() else cpu_device()).to_json()

    def do(self, *arguments: Any) -> Any:
        return self._does(*arguments)


def _connect(address: str | None) -> bool:
    """Connect to a cluster; whether it was done here."""
    if ray.is_initialized():
        return False
    given = os.environ.get("RAY_ADDRESS", "") if address in (None, "auto") else str(address)
    host, colon, port = given.removeprefix("ray://").rpartition(":")
    try:
        if colon:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS_S).close()
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        raise RayClusterError(
            f"no Ray cluster at {given or address!r} ({type(error).__name__}: {error}); start one "
            "with `ray start --head`, or give address='local' for one in this machine"
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


def _places(kind: str | None, needs: Mapping[str, float]) -> int:
    """How many workers with these needs find a place on machines with this kind of accelerator."""
    n = 0
    for node in ray.nodes():
        has = node["Resources"]
        if node["Alive"] and (kind is None or f"accelerator_type:{kind}" in has):
            n += min(int(has.get(name, 0.0) / amount) for name, amount in needs.items() if amount)
    return n


def _last_line(error: BaseException) -> str:
    """What was raised there: the end of the traceback that Ray sends."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def where() -> dict[str, Any]:
    """The machine and the process that do this, for a measurement's state."""
    return {"host": platform.node(), "worker": os.getpid()}
