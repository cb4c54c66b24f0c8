"""Runs in the worker process of ``OnnxRuntimeMeasurer``: loads networks, runs them in rounds."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from autotune_rlm.networks._dims import input_sizes

__all__ = ["serve", "setup"]

_settings: dict[str, Any] = {}
_networks: dict[str, _Network] = {}

_DTYPES: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


@dataclass
class _Network:
    session: Any
    binding: Any

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()


def setup(init: Mapping[str, Any]) -> None:
    """Keep the settings."""
    _settings.update(init)


def serve(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request: ``{"do": "load" | "round" | "forget", ...}``."""
    if request["do"] == "load":
        return _load(request["key"], request["path"])
    if request["do"] == "forget":
        _networks.clear()
        gc.collect()
        return {}
    clock = time.thread_time if _settings["clock"] == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {}
    for key, path, runs in request["items"]:
        if key not in _networks:
            _load(key, path)
        network = _networks[key]
        network.run()
        samples = times.setdefault(key, [])
        for _ in range(runs):
            begin = clock()
            network.run()
            samples.append((clock() - begin) * 1e3)
    return {"times": times}


def _load(key: str, path: str) -> dict[str, Any]:
    shapes: Mapping[str, tuple[int, ...]] = {}
    with contextlib.suppress(ValueError):  # ONNX Runtime says what is wrong with the file
        shapes = input_sizes(path, _settings["dims"])
    before = _resident_mb(reset=True)
    begin = time.perf_counter()
    network = _open(path, shapes)
    session_s = time.perf_counter() - begin
    begin = time.perf_counter()
    for _ in range(_settings["warmup"]):
        begin = time.perf_counter()
        network.run()
    last_ms = (time.perf_counter() - begin) * 1e3
    _networks[key] = network
    return {
        "session_s": session_s,
        "run_ms": last_ms,
        "peak_memory_mb": None if before is None else max(0.0, _peak_mb() - before),
        "providers": network.session.get_providers(),
    }


def _open(path: str, shapes: Mapping[str, tuple[int, ...]]) -> _Network:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _settings["intra_op_threads"]
    options.inter_op_num_threads = _settings["inter_op_threads"]
    options.log_severity_level = 3
    # Threads that spin while they wait would take the time of the other networks' runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{_settings['optimization']}")
    options.graph_optimization_level = level
    providers = _settings["providers"]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    device = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"
    binding = session.io_binding()
    random = np.random.default_rng(0)
    for value in session.get_inputs():
        array = _input(value, shapes[value.name], random)
        placed = onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)
        binding.bind_ortvalue_input(value.name, placed)
    for value in session.get_outputs():
        binding.bind_output(value.name, device)
    return _Network(session, binding)


def _input(value: Any, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    dtype = _DTYPES.get(value.type)
    if dtype is None:
        raise ValueError(f"input {value.name!r} has type {value.type}, which cannot be made up")
    if np.issubdtype(dtype, np.floating):
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


def _resident_mb(*, reset: bool) -> float | None:
    """Resident memory now; with ``reset`` the peak is counted from here. None where unknown."""
    with contextlib.suppress(Exception):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        return _status_mb("VmRSS")
    return None


def _peak_mb() -> float:
    return _status_mb("VmHWM")


def _status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")
