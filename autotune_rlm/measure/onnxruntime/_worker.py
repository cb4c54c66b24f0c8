"""Runs in the worker process of ``OnnxRuntimeMeasurer``: loads networks, runs them in rounds.

ONNX Runtime and OpenVINO share all but how a network is opened.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autotune_rlm.measure.statistics.energy import Rapl
from autotune_rlm.networks import input_sizes

_settings: dict[str, Any] = {}
_networks: dict[str, _Network] = {}

_DTYPES: Mapping[str, Any] = {
    **{f"tensor({name})": np.dtype(name) for name in ("float16", "double", "bool", "uint8")},
    **{f"tensor(int{bits})": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    "tensor(float)": np.dtype("float32"),
}


_MIN_ENERGY_S = 0.2  # of runs between two readings of the counters, which move every millisecond


@dataclass
class _Network:
    run: Callable[[], Any]
    providers: list[str]
    inputs: Any = None  # kept: a binding of ONNX Runtime does not hold the arrays that it reads


def setup(init: Mapping[str, Any]) -> None:
    """Keep the settings, and load the runtime, so that no network's memory has it."""
    _settings.update(init)
    importlib.import_module(init["runtime"])


def serve(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request: ``{"do": "load" | "round" | "energy" | "forget", ...}``."""
    if request["do"] == "load":
        return _load(request["key"], request["path"])
    if request["do"] == "forget":
        _networks.clear()
        gc.collect()
        return {}
    if request["do"] == "energy":
        return _energy(request["key"], request["path"])
    clock = time.thread_time if _settings["clock"] == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {}
    for key, path, runs in request["items"]:
        network = _network(key, path)
        network.run()
        samples = times.setdefault(key, [])
        for _ in range(runs):
            begin = clock()
            network.run()
            samples.append((clock() - begin) * 1e3)
    return {"times": times}


def _network(key: str, path: str) -> _Network:
    if key not in _networks:
        _load(key, path)
    return _networks[key]


def _energy(key: str, path: str) -> dict[str, Any]:
    """Joules of one run, everything that the processor does at that time included."""
    counters = Rapl()
    if not counters.available:
        raise OSError("this machine does not tell its energy (no readable powercap zone)")
    network = _network(key, path)
    runs, begin, before = 0, time.perf_counter(), counters.read()
    while runs == 0 or time.perf_counter() - begin < _MIN_ENERGY_S:
        network.run()
        runs += 1
    return {"energy_j": counters.joules(before, counters.read()) / runs, "runs": runs}


def _load(key: str, path: str) -> dict[str, Any]:
    shapes: Mapping[str, tuple[int, ...]] = {}
    with contextlib.suppress(ValueError):  # ONNX Runtime says what is wrong with the file
        shapes = input_sizes(path, _settings["dims"])
    path = _in_precision(path)
    before = _resident_mb()
    begin = time.perf_counter()
    network = _RUNTIMES[_settings["runtime"]](path, shapes)
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
        "peak_memory_mb": None if before is None else max(0.0, _status_mb("VmHWM") - before),
        "providers": network.providers,
    }


def _open_onnxruntime(path: str, shapes: Mapping[str, tuple[int, ...]]) -> _Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _settings["intra_op_threads"]
    options.inter_op_num_threads = _settings["inter_op_threads"]
    options.log_severity_level = 3
    # Threads that spin while they wait would take the time of the other networks' runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{_settings['optimization']}")
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(path, options, providers=_settings["providers"])
    device = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"
    binding = session.io_binding()
    random = np.random.default_rng(0)
    inputs = {}
    for value in session.get_inputs():
        array = _input(value.name, _DTYPES.get(value.type), shapes[value.name], random)
        inputs[value.name] = onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)
        binding.bind_ortvalue_input(value.name, inputs[value.name])
    for value in session.get_outputs():
        binding.bind_output(value.name, device)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return _Network(run, session.get_providers(), inputs)


def _open_openvino(path: str, shapes: Mapping[str, tuple[int, ...]]) -> _Network:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({name: list(shape) for name, shape in shapes.items()})
    options = {
        "INFERENCE_NUM_THREADS": _settings["intra_op_threads"],
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(model, "CPU", options)
    request = compiled.create_infer_request()
    random = np.random.default_rng(0)
    for value in compiled.inputs:
        name = next(n for n in value.get_names() if n in shapes)
        dtype = value.get_element_type().to_dtype()
        array = _input(name, dtype, tuple(value.shape), random)
        request.set_tensor(value, openvino.Tensor(array))
    return _Network(request.infer, ["OpenVINO CPU"])


_RUNTIMES = {"onnxruntime": _open_onnxruntime, "openvino": _open_openvino}


def _in_precision(path: str) -> str:
    """The network in the precision of the settings, quantised by ONNX Runtime beside its file."""
    precision = _settings["precision"]
    if precision == "given":
        return path
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    target = f"{path}.{precision}.onnx"
    try:
        if precision == "int8":
            from onnxruntime.quantization import quantize_dynamic

            quantize_dynamic(path, target)
        else:
            import onnx
            from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

            quantiser = MatMulNBitsQuantizer(onnx.load(path), block_size=32, is_symmetric=True)
            quantiser.process()
            onnx.save(quantiser.model.model, target)
    finally:
        logging.disable(before)
    return target


def _input(
    name: str, dtype: Any, shape: tuple[int, ...], random: np.random.Generator
) -> np.ndarray:
    if dtype is None:
        raise ValueError(f"input {name!r} has a type that cannot be made up")
    if np.issubdtype(dtype, np.floating):
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


def _resident_mb() -> float | None:
    """Resident memory now, from which the peak is counted; None where unknown."""
    with contextlib.suppress(Exception):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _status_mb("VmRSS")
    return None


def _status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")
