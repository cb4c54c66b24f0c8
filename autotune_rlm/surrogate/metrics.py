"""The metrics that the model writes, each with the transform and the codec of its numbers.

Times are not written in milliseconds. ``slowdown`` is the logarithm of the value over the best of the
task, which exists for any kernel and never leaves the trained range; ``scale`` is the logarithm of the
task's best value over ``work_scale``. The two together give the absolute value; the first alone ranks.
A bounded score to maximise (accuracy in per cent) is turned into an error to minimise first.

``number`` is an absolute value, such as the memory that a program takes: any finite float, on the
scale of ``NumberScale``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autotune_rlm.dtypes import dtype_bytes
from autotune_rlm.surrogate.codec import BinCodec
from autotune_rlm.surrogate.text import problem_fields
from autotune_rlm.types import Task

__all__ = [
    "BINS",
    "CODECS",
    "FACTS",
    "FAILED_BIN",
    "METRICS",
    "UNKNOWN_BIN",
    "ErrorScale",
    "NumberScale",
    "symlog",
    "work_scale",
]

BINS = 128
UNKNOWN_BIN, FAILED_BIN = -2.0, -1.0
"""What stands in place of a fractional bin where a value is not known, and where there is none."""
FACTS = ("shared_bytes", "registers", "spills", "compile_s")
"""Facts of compilation that can be decoded, as ``log(1 + value)`` (``compile_s``: in ms)."""
METRICS = ("slowdown", "scale", *FACTS, "number")
CODECS: dict[str, BinCodec] = {
    "slowdown": BinCodec(low=0.0, high=5.5, knee=0.05, bins=BINS),
    "scale": BinCodec(low=-16.0, high=16.0, knee=math.inf, bins=BINS),
    **{name: BinCodec(low=0.0, high=16.0, knee=math.inf, bins=BINS) for name in FACTS},
    "number": BinCodec(low=-6.0, high=6.0, knee=math.inf, bins=BINS),
}


def symlog(values: np.ndarray) -> np.ndarray:
    """``sign(x) * log(1 + |x|)``: close to x near nothing, a logarithm far from it."""
    x = np.asarray(values, dtype=np.float64)
    return np.sign(x) * np.log1p(np.abs(x))


@dataclass(frozen=True, kw_only=True)
class NumberScale:
    """Where the absolute values of a metric lie: ``(symlog(value) - center) / spread`` is decoded.

    Attributes:
        center: Median of ``symlog`` of the values of the training.
        spread: Their standard deviation.
        positive: Whether all of them were above nothing.
        width: What a distribution's width is multiplied by, so that 90 % of the values of texts never
            seen lie inside its interval.
    """

    center: float
    spread: float
    positive: bool = True
    width: float = 1.0

    @classmethod
    def of(cls, values: np.ndarray) -> NumberScale:
        """The scale of known values; NaN and infinities do not count.

        Raises:
            ValueError: None is finite.
        """
        known = np.asarray(values, dtype=np.float64)
        known = known[np.isfinite(known)]
        if not len(known):
            raise ValueError("values must hold at least one finite number")
        logs = symlog(known)
        spread = max(float(logs.std()), 1e-3)
        return cls(center=float(np.median(logs)), spread=spread, positive=bool((known > 0).all()))

    def position(self, values: np.ndarray) -> np.ndarray:
        """Fractional bins of values, (n,); NaN stays NaN."""
        return CODECS["number"].position((symlog(values) - self.center) / self.spread)

    def symlog_of(self, decoded: np.ndarray) -> np.ndarray:
        """``symlog`` of the value that a decoded number stands for."""
        return self.center + self.spread * decoded


@dataclass(frozen=True)
class ErrorScale:
    """Turns a metric into a positive value to minimise, and back.

    Attributes:
        kind: ``"value"``: the value itself, where smaller is better; ``"count"``: 1 plus it, and
            ``"seconds"``: 1 plus its thousandfold (facts of compilation, which may be 0);
            ``"share"``: 1 minus it; ``"percent"``: 100 minus it; ``"rate"``: its reciprocal;
            ``"number"``: the exponential of its ``symlog``.
    """

    kind: str

    @classmethod
    def of(cls, task: Task, values: np.ndarray | None = None) -> ErrorScale:
        """The scale of a task's metric, as far as known values (NaN where failed) tell."""
        if task.metric in FACTS:
            return cls("seconds" if task.metric == "compile_s" else "count")
        if task.minimize:
            return cls("value")
        known = np.asarray(values if values is not None else [], dtype=np.float64)
        known = known[np.isfinite(known)]
        if len(known):
            return cls("share" if known.max() <= 1 else "percent" if known.max() <= 100 else "rate")
        rate = any(word in task.metric.lower() for word in ("throughput", "per_s", "tflops"))
        return cls("rate" if rate else "percent")

    def to_error(self, values: np.ndarray) -> np.ndarray:
        """Errors of values; NaN stays NaN, and what cannot be positive becomes tiny."""
        x = np.asarray(values, dtype=np.float64)
        with np.errstate(divide="ignore"):
            errors = {
                "value": x,
                "count": 1.0 + x,
                "seconds": 1.0 + 1e3 * x,
                "share": 1.0 - x,
                "percent": 100.0 - x,
                "rate": 1.0 / x,
                "number": np.where(x >= 0, 1.0 + x, 1.0 / (1.0 + np.abs(x))),
            }[self.kind]
        return np.where(np.isnan(errors), np.nan, np.clip(errors, 1e-9, 1e30))

    def from_error(self, errors: np.ndarray) -> np.ndarray:
        """Values of errors."""
        if self.kind == "value":
            return errors
        if self.kind in ("count", "seconds"):
            return np.maximum(errors - 1.0, 0.0) / (1e3 if self.kind == "seconds" else 1.0)
        if self.kind == "rate":
            return 1.0 / errors
        if self.kind == "number":
            return np.where(errors >= 1.0, errors - 1.0, 1.0 - 1.0 / np.maximum(errors, 1e-300))
        return (1.0 if self.kind == "share" else 100.0) - errors


def work_scale(task: Task) -> float:
    """A crude estimate of the task's time in ms, from the sizes of its problem alone.

    The larger of: bytes of all tensors over the memory bandwidth, and the product of the (at most
    three) integer sizes over the arithmetic rate; 1 where the problem says nothing. The model learns
    what is missing; the estimate only has to grow with the problem as the time does.
    """
    if task.metric not in ("time_ms", "latency_ms") or not task.minimize:
        return 1.0
    bandwidth = (task.device.mem_gb_s or 1000.0) * 1e6
    rate = (task.device.fp16_tensor_tflops or task.device.fp32_tflops or 20.0) * 1e9
    traffic = 0.0
    for value in task.problem.values():
        if isinstance(value, dict) and isinstance(value.get("shape"), (list, tuple)):
            elements = math.prod(max(1, int(s)) for s in value["shape"])
            width = dtype_bytes(str(value.get("dtype")))
            traffic += elements * (width if width > 1 else 4)  # as the weights in use learned it
    sizes = [
        f.value
        for f in problem_fields(task.problem)
        if isinstance(f.value, float)
        and f.value > 1
        and "stride" not in f.name
        and "." not in f.name
    ]
    listed = [
        f.value
        for f in problem_fields(task.problem)
        if isinstance(f.value, float) and f.value > 1 and f.name.startswith("size.")
    ]
    product = math.prod(sorted(sizes or listed)[-3:]) if sizes or listed else 0.0
    estimate = max(traffic / bandwidth, 2 * product / rate, 1e-6 if product or traffic else 0.0)
    return min(max(estimate, 1e-6), 1e9) if estimate else 1.0
