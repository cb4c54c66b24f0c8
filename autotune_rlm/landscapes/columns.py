"""What the columns of published architecture tables measured, and where."""

from __future__ import annotations

import re
from typing import Any

from autotune_rlm.networks.rendering import network_task
from autotune_rlm.types import Task

__all__ = ["column_task", "maximised"]

_ACCURACY = ("acc", "top1", "top5", "val_", "test_", "throughput", "c10_", "c100_", "in16_")
_DATA = {"c10": "cifar10", "c100": "cifar100", "in16": "imagenet16-120"}
_SPACES_DATA = {"nasbench101": "cifar10", "mnasnet": "imagenet", "nasbench_macro": "cifar10"}
_RUNTIMES = ("hwnb_c10", "help", "oneproxy", "nnmeter")
_GPU_BATCH = re.compile(r"^(\d+ti|titanxp?)_(\d+)$")


def maximised(column: str) -> bool:
    """Whether larger values of a column are better: accuracies and throughputs."""
    lower = column.lower()
    if "latency" in lower or "time" in lower or "loss" in lower:
        return False
    return any(mark in lower for mark in _ACCURACY)


def column_task(column: str, space: str, *, named: bool = True) -> Task:
    """The task of a column, in the words of ``networks.rendering``.

    Args:
        column: Name of the column.
        space: Name of the table's space.
        named: Whether the task names the space.
    """
    metric, device, context = _meaning(column, space)
    return network_task(
        metric,
        device=device,
        space=space if named else None,
        minimize=not maximised(column),
        context=context,
    )


def _meaning(column: str, space: str) -> tuple[str, str | None, dict[str, Any]]:
    lower = column.lower()
    data = _SPACES_DATA.get(space)
    context: dict[str, Any] = {"dataset": data} if data else {}
    if maximised(column) and "throughput" not in lower:
        head = lower.split("_")[0]
        if head in _DATA:
            context["dataset"] = _DATA[head]
        for split in ("val", "test"):
            if split in lower.split("_"):
                context["split"] = split
        if epochs := re.search(r"(?:ep|acc_)(\d+)", lower):
            context["epochs"] = int(epochs[1])
        if lower.endswith("_nnmeter"):
            context["source"] = "nnmeter"
        return ("accuracy_top5" if "top5" in lower else "accuracy"), None, context
    if "train_time" in lower:
        if epochs := re.search(r"(\d+)", lower):
            context["epochs"] = int(epochs[1])
        return "train_time_s", None, context
    on_device = lower.startswith(_RUNTIMES) or "latency" in lower or "throughput" in lower
    if space == "fbnet" or on_device:
        return _on_device(lower)
    return column, None, context


def _on_device(column: str) -> tuple[str, str | None, dict[str, Any]]:
    context: dict[str, Any] = {}
    name = column
    for runtime in _RUNTIMES:
        if column.startswith(runtime):
            context["runtime"] = runtime.split("_")[0]
            name = column[len(runtime) + 1 :]
    metric = "throughput" if "throughput" in name else "latency_ms"
    name = re.sub(r"^(latency|throughput)_?|_latency$|_?ms$", "", name)
    name, _, suffix = name.partition("_tflite")
    if suffix:
        context["runtime"] = f"tflite{suffix}"
    context["batch"] = 1
    if batched := _GPU_BATCH.match(name):
        name, context["batch"] = batched[1], int(batched[2])
    return metric, name or None, context
