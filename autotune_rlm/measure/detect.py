"""What device is here, and in which state: name and figures, clocks, temperature, driver, versions."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from autotune_rlm._forks import ForkSafeLock

from .. import devices
from ..types import Device
from .interpreter import interpreting

_STATE_LIFETIME_S = 2.0
_lock = ForkSafeLock()
_last_state: tuple[float, dict[str, Any]] = (-1e9, {})


def current_device() -> Device:
    """The device that kernels run on now: torch's current accelerator, or this machine's CPU.

    Figures that the driver tells (multiprocessors, caches, clock) go before the registry's.
    """
    torch = _torch_with_accelerator()
    if torch is None or interpreting():
        return cpu_device()
    index = torch.accelerator.current_device_index()
    kind = torch.accelerator.current_accelerator().type
    return _accelerator(kind, index)


@functools.lru_cache(maxsize=16)
def _accelerator(kind: str, index: int) -> Device:
    import torch

    properties = torch.get_device_module(kind).get_device_properties(index)
    device = devices.lookup(properties.name)
    target = _target(kind, properties)

    def of(name: str, unit: float = 1.0) -> float | None:
        return round(value / unit, 3) if (value := getattr(properties, name, None)) else None

    told: dict[str, Any] = {
        "target": target or device.target,
        "sms": getattr(properties, "multi_processor_count", None)
        or getattr(properties, "gpu_subslice_count", None),
        "l2_mb": of("L2_cache_size", 2**20),
        "shared_kb_per_sm": of("shared_memory_per_multiprocessor", 1024),
        "max_shared_kb_per_block": of("shared_memory_per_block_optin", 1024),
        "clock_mhz": of("clock_rate", 1000),
    }
    bus, memory_khz = of("memory_bus_width"), of("memory_clock_rate")
    if device.mem_gb_s is None and bus and memory_khz:
        told["mem_gb_s"] = 2 * memory_khz * 1e3 * bus / 8 / 1e9
    known = replace(device, **{name: value for name, value in told.items() if value})
    return devices.completed(known)


@functools.lru_cache(maxsize=1)
def cpu_device() -> Device:
    """This machine's CPU: its model, cores that this process may use, last-level cache, clock."""
    frequency = None
    with contextlib.suppress(Exception):
        frequency = psutil.cpu_freq()
    clock = (frequency.max or frequency.current) if frequency else None
    return Device(
        name=_cpu_name(),
        arch=platform.machine(),
        target="cpu",
        sms=len(os.sched_getaffinity(0)),
        l2_mb=_last_level_cache_mb(),
        fp16_tensor_tflops=0.0,
        clock_mhz=round(clock) if clock else None,
    )


@functools.lru_cache(maxsize=1)
def versions() -> Mapping[str, str]:
    """Versions that timings depend on: of Triton, torch and runtimes, where they are installed."""
    found = {}
    for package in ("triton", "torch", "onnxruntime", "openvino"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def device_state() -> dict[str, Any]:
    """The state that a measurement is taken in, as plain JSON; cheap, refreshed every two seconds.

    Keys, as far as they can be read: ``device``, ``clock_mhz``, ``memory_clock_mhz``,
    ``temperature_c``, ``power_w``, ``throttled``, ``driver``, ``load`` (of the CPUs, where they are
    the device), and the versions.
    """
    global _last_state
    with _lock:
        when, state = _last_state
        now = time.monotonic()
        if now - when < _STATE_LIFETIME_S:
            return dict(state)
        device = current_device()
        state = {"device": device.name, **versions()}
        if device.target == "cpu":
            state["load"] = round(os.getloadavg()[0] / max(device.sms or 1, 1), 2)
        else:
            state.update(_gpu_state())
        _last_state = (now, state)
        return dict(state)


def _gpu_state() -> Mapping[str, Any]:
    for read in (_nvml_state, _nvidia_smi_state):
        with contextlib.suppress(Exception):
            return read()
    return {}


def _nvml_state() -> dict[str, Any]:
    nvml = _nvml()
    import torch

    uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    harmless = nvml.nvmlClocksThrottleReasonGpuIdle | nvml.nvmlClocksThrottleReasonNone
    return {
        "clock_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "temperature_c": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "power_w": round(nvml.nvmlDeviceGetPowerUsage(handle) / 1000, 1),
        "throttled": bool(reasons & ~harmless),
        "driver": str(nvml.nvmlSystemGetDriverVersion()),
    }


@functools.lru_cache(maxsize=1)
def _nvml() -> Any:
    import pynvml

    pynvml.nvmlInit()
    return pynvml


@functools.lru_cache(maxsize=1)
def _nvidia_smi_state() -> Mapping[str, Any]:
    """Asked once: starting nvidia-smi takes longer than a measurement."""
    fields = ("clocks.sm", "clocks.mem", "temperature.gpu", "driver_version")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    clock, memory, temperature, driver = (part.strip() for part in out.splitlines()[0].split(","))
    return {
        "clock_mhz": float(clock),
        "memory_clock_mhz": float(memory),
        "temperature_c": float(temperature),
        "driver": driver,
    }


def _torch_with_accelerator() -> Any:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return torch if torch.accelerator.is_available() else None


def _target(kind: str, properties: Any) -> str:
    if gcn := getattr(properties, "gcnArchName", ""):
        return str(gcn).partition(":")[0] if str(gcn).startswith("gfx") else ""
    if kind == "cuda" and hasattr(properties, "major"):
        return f"sm_{properties.major}{properties.minor}"
    return ""


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "CPU"


def _last_level_cache_mb() -> float | None:
    largest = 0.0
    with contextlib.suppress(OSError, ValueError):
        for size in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
            text = size.read_text().strip()
            unit = {"K": 1 / 1024, "M": 1.0, "G": 1024.0}[text[-1]]
            largest = max(largest, float(text[:-1]) * unit)
    return largest or None
