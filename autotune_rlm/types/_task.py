"""What is tuned, on what device, and the choices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from autotune_rlm._checks import check_number, check_type
from autotune_rlm._json import digest, has_non_finite, known_fields, non_finite_as_text

__all__ = ["Candidate", "Device", "Task"]


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
        return cls(**known_fields(cls, data))


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
        known = known_fields(cls, data)
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
