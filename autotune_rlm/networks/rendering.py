"""Networks in the words of the surrogate: the same in training and in use.

A candidate is a network's fields, which exist for every graph, and its choices where its space is
known. A task says what is measured (``accuracy``, ``latency_ms``, ``throughput``, ...), where, on which
data. Training tables (``landscapes.architectures``), ``integrations.onnx`` and ``RLMSampler`` all come
here, so that what was learned of one is known of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune_rlm.devices import lookup
from autotune_rlm.networks.spaces import SPACES
from autotune_rlm.types import Candidate, Device, Task

NO_SPACE = "network"
"""Kernel of a task whose networks belong to no space that the model knows."""
NO_DEVICE = Device(name="none")
"""Of metrics that no device changes, such as accuracy."""

TRAINED_METRICS = frozenset(
    {"accuracy", "accuracy_top5", "latency_ms", "throughput", "train_time_s"}
)
"""Metrics of the tables that the bundled surrogate is trained on; of others it would guess."""
_TABLED = frozenset({"nasbench201", "nasbench101", "fbnet", "mnasnet"})
_LOWER = (
    "_ms",
    "_mb",
    "_s",
    "_j",
    "loss",
    "error",
    "parameters",
    "macs",
    "flops",
    "depth",
    "bytes",
)


def network_candidate(
    fields: Mapping[str, float], choices: Mapping[str, Any] | None = None, *, text: str = ""
) -> Candidate:
    """A network as the surrogate reads it.

    ``fields`` are those of ``network_fields``, kept to three significant digits; ``choices`` its
    configuration in a space that the surrogate knows; ``text`` its ONNX text for those that read it.
    """
    config = dict(choices or {})
    config.update((f"net_{name}", float(f"{value:.3g}")) for name, value in fields.items())
    return Candidate(config, text=text)


def network_task(
    metric: str,
    *,
    device: str | Device | None = None,
    space: str | None = None,
    minimize: bool | None = None,
    context: Mapping[str, Any] | None = None,
) -> Task:
    """What is measured of networks.

    Args:
        metric: ``"accuracy"``, ``"latency_ms"``, ``"throughput"``, ``"train_time_s"`` or another.
        device: Where; left out of metrics that do not depend on it.
        space: Name of the networks' space, if they have one.
        minimize: By default told from the metric.
        context: What else is known: ``dataset``, ``epochs``, ``split``, ``batch``, ``runtime``.
    """
    problem = dict(context or {})
    if "batch" in problem:  # no size of a kernel's work
        problem["input"] = {"batch": problem.pop("batch")}
    place = NO_DEVICE
    if device is not None and depends_on_device(metric):
        place = network_device(device) if isinstance(device, str) else device
    return Task(
        kernel=space or NO_SPACE,
        device=place,
        problem=problem,
        language="onnx",
        metric=metric,
        minimize=is_minimised(metric) if minimize is None else minimize,
    )


def is_known_space(space: object) -> bool:
    """Whether this is a published space, whose choices the surrogate is trained on."""
    name = getattr(space, "name", "")
    return name in _TABLED and type(space) is SPACES[name]


def is_minimised(metric: str) -> bool:
    """Whether less is better: times, sizes and losses, by the name's ending."""
    return metric.lower().endswith(_LOWER) or "latency" in metric.lower()


def depends_on_device(metric: str) -> bool:
    """Whether a metric is that of a network on a device."""
    return metric.endswith("_ms") or any(
        word in metric for word in ("latency", "throughput", "energy", "power")
    )


def network_device(name: str) -> Device:
    """As ``devices.lookup``, which knows accelerators; also phones and CPUs of public tables."""
    known = _DEVICES.get(name.lower().replace(" ", "_"))
    if known is None:
        return lookup(name)
    return known if isinstance(known, Device) else lookup(known)


def _cpu(name: str, arch: str, cores: int, mhz: int, **figures: float) -> Device:
    return Device(name=name, arch=arch, target="cpu", sms=cores, clock_mhz=mhz, **figures)


# Vendors' public figures: cores, boost clock, last-level cache, memory bandwidth.
_DEVICES: dict[str, Device | str] = {
    "1080ti": "NVIDIA GTX 1080 Ti",
    "2080ti": "NVIDIA RTX 2080 Ti",
    "titanx": "NVIDIA GTX Titan X",
    "titanxp": Device(
        name="NVIDIA TITAN Xp", arch="pascal", target="sm_61", sms=30, shared_kb_per_sm=96,
        l2_mb=3, mem_gb_s=548, fp32_tflops=12.1, fp16_tensor_tflops=0.0, clock_mhz=1582,
    ),
    "a100": "NVIDIA A100",
    "3090": "NVIDIA RTX 3090",
    "gold_6240": _cpu("Intel Xeon Gold 6240", "x86_64", 18, 3900, l2_mb=24.75, mem_gb_s=140.8),
    "silver_4114": _cpu("Intel Xeon Silver 4114", "x86_64", 10, 3000, l2_mb=13.75, mem_gb_s=115.2),
    "silver_4210r": _cpu("Intel Xeon Silver 4210R", "x86_64", 10, 3200, l2_mb=13.75, mem_gb_s=115.2),
    "pixel3": _cpu("Google Pixel 3", "aarch64", 8, 2800, l2_mb=2.0, mem_gb_s=29.8),
    "samsung_s7": _cpu("Samsung Galaxy S7", "aarch64", 8, 2600),
    "samsung_a50": _cpu("Samsung Galaxy A50", "aarch64", 8, 2300),
    "essential_ph_1": _cpu("Essential PH-1", "aarch64", 8, 2450, l2_mb=2.0, mem_gb_s=29.8),
    "eagle_cpu_855": _cpu("Snapdragon 855 CPU", "aarch64", 8, 2840, l2_mb=2.0, mem_gb_s=34.1),
    "true_a76": _cpu("Cortex-A76", "aarch64", 8, 2840),
    "cortexa76": _cpu("Cortex-A76", "aarch64", 8, 2840),
    "eagle_i7": _cpu("Intel Core i7", "x86_64", 4, 4200),
}  # fmt: skip
