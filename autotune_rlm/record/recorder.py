"""Records a suite: here or on a cluster, on devices, Triton's interpreter, or by compiling alone.

Whatever is compiled first is measured next, so that the device waits only where every compiler is
behind.
"""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autotune_rlm.devices import Target
from autotune_rlm.ir import Launch, NotRead, Reader, as_grid, target_of
from autotune_rlm.measure.detect import device_state, versions
from autotune_rlm.types import Candidate, Device, Measurement, Status, Task

from ._progress import Progress
from ._units import Units, compile_device, sent_units
from .log import RecordLog
from .plan import Unit, round_robin, spread_problems
from .suite import SuiteKernel, binary_class, find_suite, load_suite

_log = logging.getLogger(__name__)

TaskMaker = Callable[[Any, Mapping[str, Any], Device, Sequence[str]], Task]
"""``(kernel, arguments, device, names of the configuration's parameters)`` to the task."""

_AHEAD = 4  # units that a worker of a cluster compiles while it measures another


class Recorder:
    """Measures kernels x problems x configurations of a suite, breadth first.

    Args:
        log: Where to write; what it has is not measured again.
        make_task: Describes a launch as the tuner would.
        device: What the measurements are of.
        suite: ``"all"`` or a folder of suite modules.
        only: Names of kernels; all where empty.
        problems: How many problems of each kernel; all where None.
        targets: Record compilation facts for these in place of measurements.
        interpreter: Measure the small problems on Triton's interpreter with the wall clock.
        seed: Of values and orders.
        cluster: A ``Cluster`` of ``integrations.ray`` whose workers measure; None for this machine.
        **options: ``workers``, ``sample_ms`` and ``verify`` of ``Units``.

    Raises:
        FileNotFoundError, ValueError: See ``load_suite``.
    """

    def __init__(
        self,
        log: RecordLog,
        *,
        make_task: TaskMaker,
        device: Device,
        suite: str | Path = "all",
        only: Sequence[str] = (),
        problems: int | None = None,
        targets: Sequence[Target] = (),
        interpreter: bool = False,
        seed: int = 0,
        cluster: Any = None,
        **options: Any,
    ) -> None:
        self._log, self._make_task, self._device = log, make_task, device
        self._targets = {compile_device(t).name: t for t in targets}
        self._interpreter, self._seed, self._cluster = interpreter, seed, cluster
        self._suite = find_suite(suite)
        self._options = {
            "device": device,
            "targets": self._targets,
            "interpreter": interpreter,
            "seed": seed,
            **options,
        }
        chosen = load_suite(suite, only=only)
        self._kernels = {n: kernel for n, kernel in chosen.items() if self._places(kernel)}
        self._units = Units(self._suite, **self._options)
        self._classes = {name: self._grouped(k, problems) for name, k in self._kernels.items()}
        self._readers: dict[str, Reader] = {}
        self._names: dict[tuple[str, int, str], str] = {}
        self._progress = Progress()
        self._seen_kernels: set[str] = set()

    def run(
        self, *, seconds: float, max_points: int | None = None, show: Callable[[Progress], None]
    ) -> Progress:
        """Record until time is up, the file full or all is there; ``show`` is called after each unit."""
        began = time.monotonic()
        deadline = began + seconds
        self._log.note(
            "recording",
            device=self._device.to_json(),
            versions=versions(),
            state={} if self._targets or self._cluster else device_state(),
            interpreter=self._interpreter,
            targets=sorted(self._targets),
            seed=self._seed,
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        self._open_landscapes()
        do = self._units.each if self._cluster is None else self._on_cluster
        try:
            for unit, measurements in do(self._todo(), deadline):
                self._take(unit, measurements)
                self._progress.elapsed_s = time.monotonic() - began
                self._progress.busy_s = self._units.busy_s
                self._progress.bytes = self._log.size
                show(self._progress)
                if self._log.full or (max_points and self._progress.points >= max_points):
                    break
                if time.monotonic() > deadline:
                    break
        finally:
            self._log.note("stopped", **asdict(self._progress))
            self._log.flush()
            self._units.close()
        return self._progress

    def _on_cluster(
        self, units: Iterator[Unit], deadline: float
    ) -> Iterator[tuple[Unit, list[Measurement]]]:
        files = {file.name: file.read_text("utf-8") for file in self._suite.glob("*.py")}
        self._cluster.use(functools.partial(sent_units, files, self._options))

        def send(unit: Unit, actor: Any) -> tuple[Unit, list[Unit], float]:
            return unit, list(actor.soon), deadline - time.monotonic()

        for done in self._cluster.each(units, send, ahead=_AHEAD):
            if done.reason:
                _log.warning("%s: %s; left for another recording", done.item, done.reason)
                continue
            measurements, busy_s = done.answer
            self._units.busy_s += busy_s
            yield done.item, [Measurement.from_json(m) for m in measurements]

    def _places(self, kernel: SuiteKernel) -> list[str]:
        """The targets that can run the kernel; one empty name for the device at hand."""
        if self._targets:
            return [name for name, t in self._targets.items() if kernel.supports(t[:2])]
        if self._interpreter:
            return [""]
        name = self._device.target
        here: tuple[str, Any] = (
            ("cuda", int(name.removeprefix("sm_"))) if name.startswith("sm_") else ("hip", name)
        )
        return [""] if kernel.supports(here) else []

    def _grouped(self, kernel: SuiteKernel, problems: int | None) -> list[tuple[int, ...]]:
        """Indices of the problems to record, those together that share a binary."""
        groups: dict[str, list[int]] = {}
        for index in range(len(self._units.problems(kernel))):
            args = self._units.arguments(kernel.name, index)
            shared = str(index) if self._interpreter else binary_class(kernel, args)
            groups.setdefault(shared, []).append(index)
        classes = [tuple(group) for group in groups.values()]
        return classes if problems is None else spread_problems(classes, problems)

    def _open_landscapes(self) -> None:
        for kernel in self._kernels.values():
            for place in self._places(kernel):
                device = compile_device(self._targets[place]) if place else self._device
                for index in sorted(itertools.chain(*self._classes[kernel.name])):
                    problem = self._units.problems(kernel)[index]
                    args = self._units.arguments(kernel.name, index)
                    task = self._make_task(kernel.fn, args, device, list(kernel.space.parameters))
                    if place:
                        task = replace(task, metric="compile_s")
                    short = ",".join(f"{k}={v}" for k, v in problem.items())
                    name = f"{kernel.name}/{short}/{device.name}"
                    self._log.open_landscape(name, task)
                    self._names[kernel.name, index, place] = name
        self._log.flush()

    def _todo(self) -> Iterator[Unit]:
        """The units in their order, less what the log has; last those that took too long before."""
        late: list[Unit] = []
        spaces = {name: kernel.space for name, kernel in self._kernels.items()}
        places = {name: self._places(kernel) for name, kernel in self._kernels.items()}
        for unit in round_robin(spaces, self._classes, targets=places, seed=self._seed):
            key = Candidate(dict(unit.config)).key
            left = tuple(
                index
                for index in unit.problems
                if (self._names[unit.kernel, index, unit.target], key) not in self._log.done
            )
            if any((self._names[unit.kernel, i, unit.target], key) in self._log.late for i in left):
                late.append(replace(unit, problems=left))
            elif left:
                yield replace(unit, problems=left)
        yield from late

    def _take(self, unit: Unit, measurements: Sequence[Measurement]) -> None:
        """Write what came out of a unit."""
        self._progress.binaries += 1
        candidate = Candidate(dict(unit.config))
        for index, measurement in zip(unit.problems, measurements, strict=True):
            if measurement.status is Status.SKIPPED:
                self._progress.leave_out(measurement.reason)
                continue
            name = self._names[unit.kernel, index, unit.target]
            if unit.target and measurement.status in (Status.TIMEOUT, Status.CRASHED):
                # says something about this machine, nothing about the kernel
                self._progress.leave_out(measurement.reason)
                self._log.put_off(name, candidate)
                continue
            read = candidate if unit.target else self._read(unit, index, candidate)
            self._log.add(name, read, measurement)
            self._progress.count(measurement)
        self._seen_kernels.add(unit.kernel)
        self._progress.kernels = len(self._seen_kernels)

    def _read(self, unit: Unit, index: int, candidate: Candidate) -> Candidate:
        """The candidate with what the kernel's first IR says of it for a problem."""
        if self._interpreter:
            return candidate
        kernel = self._kernels[unit.kernel]
        given = {**self._units.arguments(unit.kernel, index), **unit.config}
        options = {"num_warps": 4, "num_stages": 3, **unit.config}
        try:
            reader = self._readers.get(unit.kernel)
            if reader is None:
                reader = Reader(kernel.fn, target=target_of(self._device))
                self._readers[unit.kernel] = reader
            grid = as_grid(kernel.grid(given), given)
            launch = Launch(given, grid, options["num_warps"], options["num_stages"])
            return replace(candidate, facts=reader.numbers(launch, self._device))
        except (NotRead, ValueError) as error:
            _log.debug("%s is not read: %s", unit.kernel, error)
            return candidate
