"""Latency and peak memory of ONNX models under ONNX Runtime, fair over a whole list of them.

A loop that times one network after the other hands whatever else the machine did at that moment to
that one network. Here a list is run in rounds: every network a few times, then again, so that a
disturbance hits all alike; and the value is a low quantile of the runs, since other programs can
only make a run slower. Networks run in a worker process, so that one that crashes or hangs costs
only itself.
"""

from __future__ import annotations

import importlib.util
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from autotune_rlm._checks import check_all, check_number
from autotune_rlm._closing import Closing
from autotune_rlm.measure.errors import Fault, failed, one_line
from autotune_rlm.measure.workers.process import WorkerFailure, WorkerProcess
from autotune_rlm.types import Candidate, Measurement, Status, Task

_METRICS = ("latency_ms", "peak_memory_mb", "energy_j")


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeSettings:
    """How networks are run.

    Attributes:
        providers: Execution providers, the preferred first.
        intra_op_threads: Threads within an operator; 1 is the most repeatable.
        inter_op_threads: Threads across operators.
        optimization: ``"ENABLE_ALL"``, ``"ENABLE_EXTENDED"``, ``"ENABLE_BASIC"``,
        ``"DISABLE_ALL"``.
        dims: Sizes of dynamic dimensions of inputs by symbol; those not named are the ones that
            ``graph_facts`` assumes.
        warmup: Runs after loading.
        rounds: Times that the list is gone through.
        runs: Timed runs per network and round, after an untimed one that warms the caches.
        round_s: Seconds for one network in one round; a slow network is run less often.
        quantile: Of the runs, that is the value.
        clock: ``"wall"``; ``"cpu"``, the running thread's own time, which leaves out the moments
            when the system gave its core to another program; ``"auto"`` for ``"cpu"`` where a
            network runs on one thread of a CPU (both clocks agree there on an idle machine), else
            ``"wall"``.
        together: Networks that are loaded and interleaved at a time.
        precision: ``"given"``; ``"int8"``: weights and activations quantised as they come by
            ``onnxruntime.quantization.quantize_dynamic``; ``"int4"``: weights of matrix products
            packed in 4 bits, in blocks of 32.
    """

    providers: Sequence[str] = ("CPUExecutionProvider",)
    intra_op_threads: int = 1
    inter_op_threads: int = 1
    optimization: str = "ENABLE_ALL"
    dims: Mapping[str, int] = field(default_factory=dict)
    warmup: int = 2
    rounds: int = 10
    runs: int = 3
    round_s: float = 0.25
    quantile: float = 0.05
    clock: str = "auto"
    together: int = 128
    precision: str = "given"

    def __post_init__(self) -> None:
        counts = ("intra_op_threads", "inter_op_threads", "warmup", "rounds", "runs", "together")
        for name in counts:
            check_number(name, getattr(self, name), least=1, whole=True)
        check_number("round_s", self.round_s, above=0)
        check_number("quantile", self.quantile, least=0, below=1)
        check_all("providers", self.providers, str)
        one_thread = self.intra_op_threads == self.inter_op_threads == 1
        on_cpu = one_thread and list(self.providers) == ["CPUExecutionProvider"]
        if self.clock == "auto":
            object.__setattr__(self, "clock", "cpu" if on_cpu else "wall")
        if self.clock not in ("cpu", "wall") or (self.clock == "cpu" and not on_cpu):
            raise ValueError(
                "clock must be 'auto', 'wall' or, for one thread of a CPU, 'cpu', "
                f"got {self.clock!r}"
            )
        if self.precision not in ("given", "int8", "int4"):
            raise ValueError(f"precision must be 'given', 'int8' or 'int4', got {self.precision!r}")
        levels = ("ENABLE_ALL", "ENABLE_EXTENDED", "ENABLE_BASIC", "DISABLE_ALL")
        if self.optimization not in levels:
            raise ValueError(f"optimization must be one of {levels}, got {self.optimization!r}")


@dataclass
class _Run:
    """One network on its way through the rounds."""

    candidate: Candidate
    path: str
    loaded: dict[str, Any] = field(default_factory=dict)
    samples: list[float] = field(default_factory=list)
    fault: Fault | None = None
    cost_s: float = 0.0


class OnnxRuntimeMeasurer(Closing):
    """A ``Measurer`` of ONNX models: ``latency_ms``, ``peak_memory_mb`` or ``energy_j``.

    The value of ``latency_ms`` is a low quantile of the interleaved runs (5 %), with the interval
    of that quantile; ``facts`` hold ``peak_memory_mb``, ``median_ms`` and ``session_s``. Peak
    memory is what loading and running took on top of the process's resident memory. Energy is that
    of the whole processor during runs of 0.2 s, where Linux tells it (powercap).

    Args:
        model: Gives a candidate's model: serialised bytes, a path or an ``onnx.ModelProto``; None
            for the candidate's payload.
        settings: How networks are run.
        timeout_s: Seconds for loading and warming up one network, and for one round of one network.
        memory_mb: Limit of the worker's address space; None for no limit.

    Raises:
        ValueError: A provider is not available here.
    """

    _runtime = "onnxruntime"

    def __init__(
        self,
        model: Callable[[Candidate], Any] | None = None,
        *,
        settings: OnnxRuntimeSettings | None = None,
        timeout_s: float = 60.0,
        memory_mb: int | None = None,
    ) -> None:
        self.settings = self._checked(settings or OnnxRuntimeSettings())
        self._model = model or (lambda candidate: candidate.payload)
        self._timeout_s = timeout_s
        self._worker = WorkerProcess(
            "autotune_rlm.measure.onnxruntime._worker:serve",
            init={
                **asdict(self.settings),
                "providers": list(self.settings.providers),
                "runtime": self._runtime,
            },
            env={"OMP_NUM_THREADS": str(self.settings.intra_op_threads)},
            memory_mb=memory_mb,
        )

    def _checked(self, settings: OnnxRuntimeSettings) -> OnnxRuntimeSettings:
        import onnxruntime

        available = onnxruntime.get_available_providers()
        missing = [p for p in settings.providers if p not in available]
        if missing:
            raise ValueError(f"providers {missing} are not available here; there are {available}")
        return settings

    def measure(
        self, task: Task, candidates: Iterable[Candidate]
    ) -> Iterator[tuple[Candidate, Measurement]]:
        """Yield ``(candidate, measurement)``: networks that do not load at once, others in groups.

        Raises:
            ValueError: The task's metric is another one.
        """
        if task.metric not in _METRICS:
            raise ValueError(f"task.metric must be one of {_METRICS}, got {task.metric!r}")
        source = iter(candidates)
        while group := list(itertools.islice(source, self.settings.together)):
            with tempfile.TemporaryDirectory(prefix="autotune-rlm-") as folder:
                yield from self._group(task, group, Path(folder))

    def close(self) -> None:
        """End the worker."""
        self._worker.kill()

    def _group(
        self, task: Task, group: list[Candidate], folder: Path
    ) -> Iterator[tuple[Candidate, Measurement]]:
        runs = []
        for number, candidate in enumerate(group):
            run = _Run(candidate, str(folder / f"{number}.onnx"))
            self._load(run)
            if run.fault is None:
                runs.append(run)
            else:
                yield candidate, self._measurement(task, run)
        if task.metric == "latency_ms":
            for _ in range(self.settings.rounds):
                self._round([run for run in runs if run.fault is None])
        for run in runs:
            if task.metric == "energy_j":
                self._do(run, "energy")
            yield run.candidate, self._measurement(task, run)
        try:
            self._worker.call({"do": "forget"}, timeout_s=self._timeout_s)
        except WorkerFailure:
            self._worker.kill()

    def _load(self, run: _Run) -> None:
        try:
            run.path = _written(self._model(run.candidate), run.path)
        except (OSError, TypeError, ValueError) as error:
            run.fault = Fault(Status.COMPILE_ERROR, one_line(f"no ONNX model: {error}"))
        else:
            self._do(run, "load")

    def _do(self, run: _Run, what: str) -> None:
        begin = time.perf_counter()
        request = {"do": what, "key": run.path, "path": run.path}
        try:
            run.loaded.update(self._worker.call(request, timeout_s=self._timeout_s))
        except WorkerFailure as failure:
            run.fault = failure.fault
        run.cost_s += time.perf_counter() - begin

    def _round(self, runs: list[_Run]) -> None:
        """Once through the list; one by one after a fault, to find whose it is."""
        if not runs:
            return
        try:
            self._timed(runs)
        except WorkerFailure as failure:
            if len(runs) == 1:
                runs[0].fault = failure.fault
            else:
                for run in runs:
                    self._round([run])

    def _timed(self, runs: list[_Run]) -> None:
        items = []
        for run in runs:
            room = int(self.settings.round_s * 1e3 / max(run.loaded["run_ms"], 1e-3)) - 1
            items.append([run.path, run.path, max(1, min(self.settings.runs, room))])
        begin = time.perf_counter()
        request = {"do": "round", "items": items}
        timeout_s = self._timeout_s + 2 * self.settings.round_s * len(runs)
        times = self._worker.call(request, timeout_s=timeout_s)["times"]
        cost_s = (time.perf_counter() - begin) / len(runs)
        for run in runs:
            run.samples += times[run.path]
            run.cost_s += cost_s

    def _measurement(self, task: Task, run: _Run) -> Measurement:
        from autotune_rlm.measure.detect import cpu_device, versions

        told = ("session_s", "peak_memory_mb", "energy_j")
        facts = {k: v for k, v in run.loaded.items() if k in told}
        if run.fault is not None:
            return failed(run.fault, cost_s=run.cost_s, facts=facts)
        state = {"device": cpu_device().name, **versions(), "providers": run.loaded["providers"]}
        if task.metric != "latency_ms":
            value = facts.get(task.metric)
            if value is None:
                reason = "this system does not tell the peak memory of a process"
                return Measurement(status=Status.RUNTIME_ERROR, reason=reason, state=state)
            return Measurement(
                status=Status.OK, value=value, cost_s=run.cost_s, facts=facts, state=state
            )
        value, low, high = _quantile_interval(run.samples, self.settings.quantile)
        return Measurement(
            status=Status.OK,
            value=value,
            low=low,
            high=high,
            samples=tuple(run.samples),
            compile_s=run.loaded["session_s"],
            cost_s=run.cost_s,
            facts={**facts, "median_ms": float(np.median(run.samples))},
            state={**state, "quantile": self.settings.quantile, "clock": self.settings.clock},
        )


class OpenVinoMeasurer(OnnxRuntimeMeasurer):
    """As ``OnnxRuntimeMeasurer``, with OpenVINO on this machine's CPU, in float32.

    Of the settings, ``providers``, ``optimization`` and ``inter_op_threads`` do not apply. Time is
    that of the wall clock, since OpenVINO computes on threads of its own.
    """

    _runtime = "openvino"

    def _checked(self, settings: OnnxRuntimeSettings) -> OnnxRuntimeSettings:
        if importlib.util.find_spec("openvino") is None:
            raise ValueError("OpenVINO is not installed: pip install 'autotune-rlm[openvino]'")
        return replace(settings, clock="wall")


def _quantile_interval(samples: Sequence[float], quantile: float) -> tuple[float, float, float]:
    """A quantile and its 95 % interval by order statistics, as far as the samples allow."""
    values = np.sort(np.asarray(samples))
    below = special.bdtr(np.arange(len(values)), len(values), quantile)
    low, high = np.searchsorted(below, [0.025, 0.975])
    ends = values[max(low - 1, 0)], values[min(high, len(values) - 1)]
    return float(np.quantile(values, quantile)), float(ends[0]), float(ends[1])


def _written(model: Any, path: str) -> str:
    if isinstance(model, (str, Path)):
        if not Path(model).is_file():
            raise FileNotFoundError(f"there is no file {model}")
        return str(Path(model).resolve())
    if hasattr(model, "SerializeToString"):
        model = model.SerializeToString()
    if not isinstance(model, (bytes, bytearray, memoryview)):
        raise TypeError(f"expected bytes, a path or an onnx.ModelProto, got {type(model).__name__}")
    Path(path).write_bytes(model)
    return path
