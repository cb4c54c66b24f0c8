"""The shared data types: tasks, candidates, measurements and predictions.

Nothing here imports torch or triton. All classes are frozen, compare by value and turn into plain
JSON with ``to_json`` and back with ``from_json``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from autotune_rlm._checks import check_number, check_type
from autotune_rlm._json import canonical_json, digest, has_non_finite, non_finite_as_text

__all__ = [
    "Candidate",
    "DecodesSequences",
    "Device",
    "Measurement",
    "Measurer",
    "Observation",
    "Parallel",
    "Prediction",
    "Preparing",
    "Status",
    "Surrogate",
    "Task",
    "canonical_json",
    "digest",
]


class Status(str, Enum):
    """How the measurement of one candidate ended."""

    OK = "ok"
    COMPILE_ERROR = "compile_error"
    OUT_OF_RESOURCES = "out_of_resources"
    RUNTIME_ERROR = "runtime_error"
    WRONG_RESULT = "wrong_result"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    SKIPPED = "skipped"

    @classmethod
    def _missing_(cls, value: object) -> Any:
        known = ", ".join(status.value for status in cls)
        raise ValueError(f"status must be one of {known}, got {value!r}")

    @property
    def is_failure(self) -> bool:
        """Whether the candidate was tried and did not work (``skipped`` was never tried)."""
        return self not in (Status.OK, Status.SKIPPED)

    @property
    def is_of_the_binary(self) -> bool:
        """Whether every launch of the compiled candidate fails, whatever its arguments."""
        return self in (Status.COMPILE_ERROR, Status.OUT_OF_RESOURCES)


@dataclass(frozen=True, kw_only=True)
class Device:
    """What runs the candidates. Unknown figures are None.

    Attributes:
        name: Vendor's name, such as ``"NVIDIA H100"``.
        arch: Family, such as ``"hopper"``, ``"cdna3"`` or ``"x86_64"``.
        target: Compiler target, such as ``"sm_90"`` or ``"gfx942"``.
        sms: Streaming multiprocessors, compute units or cores.
        shared_kb_per_sm: Shared memory (LDS) per multiprocessor in KiB.
        l2_mb: Last-level cache in MiB.
        mem_gb_s: Memory bandwidth in GB/s.
        fp32_tflops: Peak fp32 rate.
        fp16_tensor_tflops: Peak dense fp16 matrix rate; 0 where there is none.
        max_shared_kb_per_block: Shared memory that one program may ask for in KiB.
        clock_mhz: Boost clock of the multiprocessors.
    """

    name: str
    arch: str = ""
    target: str = ""
    sms: int | None = None
    shared_kb_per_sm: float | None = None
    l2_mb: float | None = None
    mem_gb_s: float | None = None
    fp32_tflops: float | None = None
    fp16_tensor_tflops: float | None = None
    max_shared_kb_per_block: float | None = None
    clock_mhz: float | None = None

    def __post_init__(self) -> None:
        for field_ in dataclasses.fields(self):
            value = getattr(self, field_.name)
            if field_.default is None:
                check_number(field_.name, value, least=0, none=True)
            else:
                check_type(field_.name, value, str)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary without the unknown figures."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v not in (None, "")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Device:
        """The inverse of ``to_json``; unknown keys are dropped."""
        return cls(**_known_fields(cls, data))


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is tuned: one kernel (or search space) for one problem on one device.

    Attributes:
        kernel: Name, such as ``"matmul_kernel"``.
        device: Where it runs.
        problem: Sizes, dtypes, strides: JSON values by argument name. A tensor argument is
            ``{"dtype": "fp16", "shape": [...], "strides": [...], "align": 16}``. Infinities and NaN,
            which JSON lacks, become their names.
        source: Program text that the model reads, normalised; may be empty.
        language: ``"triton"``, ``"cuda"``, ``"opencl"``, ``"onnx"``, ``"optuna"``.
        metric: Name of the measured value with its unit.
        minimize: Whether smaller values of the metric are better.
        versions: Versions that timings depend on, such as ``{"triton": "3.9"}``.
        binary: Digest of everything except the configuration that a compiled binary depends on. Tasks
            with equal digests share the configurations that do not compile or do not fit. Empty
            where it is not known. No part of the identity.
        like: Digest of everything that must be equal before one task may reuse another's chosen
            configuration; their sizes must also be close. Empty where it is not known. No part of
            the identity.
    """

    kernel: str
    device: Device
    problem: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    language: str = "triton"
    metric: str = "time_ms"
    minimize: bool = True
    versions: Mapping[str, str] = field(default_factory=dict)
    binary: str = field(default="", compare=False, repr=False)
    like: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        check_type("device", self.device, Device, hint="devices.lookup(name) gives one")
        check_type("problem", self.problem, Mapping)
        for name in ("kernel", "source", "language", "metric"):
            check_type(name, getattr(self, name), str)
        check_type("minimize", self.minimize, bool)
        if has_non_finite(self.problem):
            object.__setattr__(self, "problem", non_finite_as_text(self.problem))

    @cached_property
    def source_hash(self) -> str:
        """Digest of the source text."""
        return digest(self.source)

    @cached_property
    def key(self) -> str:
        """Identity in the store: kernel, source, problem, device's name, metric and versions."""
        parts = [self.kernel, self.source, dict(self.problem), self.device.name]
        return digest([*parts, self.language, self.metric, dict(self.versions)])

    def __hash__(self) -> int:
        return hash(self.key)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "kernel": self.kernel,
            "device": self.device.to_json(),
            "problem": dict(self.problem),
            "source": self.source,
            "language": self.language,
            "metric": self.metric,
            "minimize": self.minimize,
            "versions": dict(self.versions),
            **({"binary": self.binary} if self.binary else {}),
            **({"like": self.like} if self.like else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Task:
        """The inverse of ``to_json``."""
        known = _known_fields(cls, data)
        known["device"] = Device.from_json(data["device"])
        return cls(**known)


@dataclass(frozen=True)
class Candidate:
    """One configuration of a task: its parameters as JSON scalars, and the object they describe.

    Attributes:
        config: Parameters by name, such as ``{"BLOCK_M": 64, "num_warps": 4}``.
        text: Text that the model reads in place of the parameters, such as a network's ONNX text;
            empty where the parameters describe the candidate completely.
        facts: Numbers by name that follow from the compiler's first IR and the device
            (``ir.on_device``); empty where the IR was not read. Stored with a measurement, never
            compared.
        payload: The object itself (a ``triton.Config``, a trial); never stored or compared.
    """

    config: Mapping[str, Any]
    text: str = ""
    payload: Any = field(default=None, compare=False, repr=False)
    facts: Mapping[str, float] = field(
        default_factory=dict, compare=False, repr=False, kw_only=True
    )

    def __post_init__(self) -> None:
        if not isinstance(self.config, Mapping) or not isinstance(self.text, str):
            check_type("config", self.config, Mapping)
            check_type("text", self.text, str)

    @cached_property
    def key(self) -> str:
        """Identity within a task."""
        return digest([dict(self.config), self.text])

    def __hash__(self) -> int:
        return hash(self.key)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary without the payload; facts to six digits, where there are any."""
        facts = {name: float(f"{value:.6g}") for name, value in self.facts.items()}
        return {
            "config": dict(self.config),
            "text": self.text,
            **({"facts": facts} if facts else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        """The inverse of ``to_json``."""
        facts = dict(data.get("facts") or {})
        return cls(config=dict(data["config"]), text=data.get("text", ""), facts=facts)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The result of trying one candidate.

    Attributes:
        status: How it ended.
        value: The task's metric (median over the samples); None unless ``status`` is ``ok``.
        low: Lower end of the interval of the median (95 % unless said otherwise in ``state``).
        high: Upper end.
        samples: The single readings in the metric's unit.
        reason: One line on why it is not ``ok``.
        compile_s: Seconds that compilation took; None where unknown or cached.
        cost_s: Wall-clock seconds that the measurement cost in all.
        facts: What the compiler reported: ``shared_bytes``, ``registers``, ``spills``,
            ``binary_bytes``, ``binary_hash``.
        state: Where it was taken: device, clocks, temperature, driver, package versions.
    """

    status: Status
    value: float | None = None
    low: float | None = None
    high: float | None = None
    samples: tuple[float, ...] = ()
    reason: str = ""
    compile_s: float | None = None
    cost_s: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.status, Status):
            object.__setattr__(self, "status", Status(self.status))
        if not isinstance(self.value, (float, type(None))):
            check_number("value", self.value, none=True)
        object.__setattr__(self, "samples", tuple(float(s) for s in self.samples))
        if self.status is Status.OK and (self.value is None or not math.isfinite(self.value)):
            raise ValueError(
                f"value must be a finite number where status is 'ok', got {self.value!r}; "
                "use status 'runtime_error' with a reason for a run that gave none"
            )
        if self.status is not Status.OK and self.value is not None:
            raise ValueError(f"value must be None where status is {self.status.value!r}")

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.status is Status.OK

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        data = dataclasses.asdict(self)
        data["status"] = self.status.value
        data["samples"] = list(self.samples)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """The inverse of ``to_json``."""
        known = _known_fields(cls, data)
        known["samples"] = tuple(known.get("samples") or ())
        return cls(**known)


@dataclass(frozen=True)
class Observation:
    """A candidate with its measurement."""

    candidate: Candidate
    measurement: Measurement


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The surrogate's prediction for n candidates; every array has shape (n,).

    Attributes:
        metric: Name of the predicted value with its unit.
        median: Predicted median in the metric's unit, given that the candidate works.
        low: 5 % quantile in the metric's unit.
        high: 95 % quantile in the metric's unit.
        spread: Standard deviation of ``log(value)`` for positive metrics (``log_scale``), else of
            the value.
        p_valid: Probability that the candidate compiles and runs.
        log_scale: Whether the metric is modelled on a logarithmic scale.
        unfamiliar: Reasons, as sentences, why the training data hardly covers the task; empty where
            it covers the task.
        familiar: Whether the training data has values of similar candidates. Without them the
            predicted order is a guess.
        informed: Whether the compiler's facts order the candidates although no values of similar
            candidates were in the training data.
    """

    metric: str
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    spread: np.ndarray
    p_valid: np.ndarray
    log_scale: bool = True
    unfamiliar: tuple[str, ...] = ()
    familiar: bool = True
    informed: bool = False

    def __post_init__(self) -> None:
        shapes = {name: np.shape(getattr(self, name)) for name in self._arrays()}
        if len(set(shapes.values())) != 1 or len(shapes["median"]) != 1:
            raise ValueError(f"all arrays of a Prediction must have one shape (n,), got {shapes}")

    @staticmethod
    def _arrays() -> tuple[str, ...]:
        return ("median", "low", "high", "spread", "p_valid")

    def __len__(self) -> int:
        return len(self.median)

    @property
    def ordered(self) -> bool:
        """Whether the order is more than a guess: the prediction is ``familiar`` or ``informed``."""
        return self.familiar or self.informed

    @property
    def location(self) -> np.ndarray:
        """The median on the modelled scale: its natural logarithm where ``log_scale``."""
        return np.log(self.median) if self.log_scale else self.median

    def order(self, *, minimize: bool = True) -> np.ndarray:
        """Indices from the most to the least promising; ties keep their order.

        The sort key is the median on the modelled scale plus a penalty of ``-log(p_valid)`` (times the
        medians' standard deviation where the scale is linear), so likely failures rank behind.
        """
        sign = 1.0 if minimize else -1.0
        scale = 1.0 if self.log_scale else float(np.std(self.median)) or 1.0
        penalty = -scale * np.log(np.clip(self.p_valid, 1e-9, 1.0))
        return np.argsort(sign * self.location + penalty, kind="stable")

    def take(self, indices: Sequence[int] | np.ndarray) -> Prediction:
        """The prediction of the candidates at ``indices``."""
        picked = {name: getattr(self, name)[np.asarray(indices)] for name in self._arrays()}
        return dataclasses.replace(self, **picked)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary with lists."""
        arrays = {name: [float(x) for x in getattr(self, name)] for name in self._arrays()}
        reasons = {"unfamiliar": list(self.unfamiliar)} if self.unfamiliar else {}
        names = ("metric", "log_scale", "familiar", "informed")
        return {**{name: getattr(self, name) for name in names}, **reasons, **arrays}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prediction:
        """The inverse of ``to_json``."""
        arrays = {name: np.asarray(data[name], dtype=np.float64) for name in cls._arrays()}
        return cls(
            metric=data["metric"],
            log_scale=data["log_scale"],
            unfamiliar=tuple(data.get("unfamiliar", ())),
            familiar=data.get("familiar", True),
            informed=data.get("informed", False),
            **arrays,
        )


@runtime_checkable
class Surrogate(Protocol):
    """A cost model: text in, numbers out.

    An instance is deterministic for its seed and what it learned, never raises on odd text, and
    may be called from several threads.
    """

    def predict(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        *,
        observed: Sequence[Observation] = (),
    ) -> Prediction:
        """Predict the task's metric for each candidate, given this task's observations."""
        ...


@runtime_checkable
class DecodesSequences(Surrogate, Protocol):
    """A ``Surrogate`` that decodes several targets of the same candidates one after the other."""

    @property
    def longest_sequence(self) -> int:
        """The most targets in one sequence; 1 where its weights were not trained on any."""
        ...

    def predict_several(
        self, tasks: Sequence[Task], candidates: Sequence[Candidate]
    ) -> list[Prediction]:
        """Predict each target, conditioned on the decoded values of the targets before it."""
        ...


@runtime_checkable
class Measurer(Protocol):
    """Runs candidates. Yields one measurement per candidate, in order, failures included."""

    def measure(
        self, task: Task, candidates: Iterable[Candidate]
    ) -> Iterator[tuple[Candidate, Measurement]]:
        """Yield ``(candidate, measurement)`` for each candidate as it is done; never raises."""
        ...


@runtime_checkable
class Preparing(Measurer, Protocol):
    """A ``Measurer`` that can do part of the work ahead, such as compiling in other processes."""

    def prepare(self, task: Task, candidates: Sequence[Candidate]) -> None:
        """Start preparing candidates that may be measured soon, the most likely first; never waits.

        Each call replaces the list of the call before: candidates not begun by then are dropped.
        """
        ...

    def is_ready(self, candidate: Candidate) -> bool:
        """Whether the candidate's preparation is complete."""
        ...


@runtime_checkable
class Simulated(Measurer, Protocol):
    """A ``Measurer`` whose costs are simulated seconds; they count beside those of the wall clock.

    Attributes:
        clock_s: Simulated seconds spent so far.
    """

    clock_s: float


@runtime_checkable
class Parallel(Measurer, Protocol):
    """A ``Measurer`` with several workers, which takes the next candidate when a worker is free.

    It takes no candidate earlier, so each is chosen with every measurement finished by then.
    """

    @property
    def workers(self) -> int:
        """How many candidates are measured at the same time at most."""
        ...


def _known_fields(cls: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(cls)}
    return {k: v for k, v in data.items() if k in names}
