"""Trustworthy numbers: timing, isolation, parallel compilation, correctness, devices, replay.

Names are imported when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Bench": "job",
    "BenchSettings": "job",
    "Call": "timing",
    "CompilePool": "compile",
    "CompileResult": "compile",
    "CompileSpec": "compile",
    "EventTimer": "device_timers",
    "Fault": "errors",
    "GraphTimer": "device_timers",
    "IsolatedMeasurer": "worker",
    "Job": "job",
    "KernelCall": "kernel_call",
    "OnnxRuntimeMeasurer": "onnxruntime",
    "OnnxRuntimeSettings": "onnxruntime",
    "PacedMeasurer": "pace",
    "ReplayMeasurer": "replay",
    "StoppingRule": "statistics",
    "Timing": "timing",
    "TritonMeasurer": "triton",
    "WallTimer": "timing",
    "Workload": "worker",
    "classify": "errors",
    "current_device": "detect",
    "default_timer": "timing",
    "describe_call": "capture",
    "device_state": "detect",
    "disagreement": "correctness",
    "is_hopeless": "statistics",
    "measure_call": "timing",
    "median_interval": "statistics",
    "note_launch": "kernel_call",
    "parse_target": "compile",
    "race": "statistics",
    "race_calls": "timing",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
