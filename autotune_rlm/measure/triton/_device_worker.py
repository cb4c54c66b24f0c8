"""Runs in the worker process of ``IsolatedMeasurer``: makes the workload once, then measures."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autotune_rlm._files import run_file
from autotune_rlm.measure.detect import cpu_device, versions
from autotune_rlm.measure.errors import WorkloadError
from autotune_rlm.measure.statistics.timing import WallTimer

from .compile import CompileResult
from .job import Bench, BenchSettings, Job

_init: dict[str, Any] = {}
_made: tuple[Callable[[dict[str, Any]], Job], Bench] | None = None


def setup(init: Mapping[str, Any]) -> None:
    """Keep what to run; it is made at the first request, where its failure has a candidate."""
    _init.update(init)


def serve(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request: ``{"do": "prepare" | "describe" | "adopt" | "measure", ...}``."""
    make, bench = _workload()
    if request["do"] == "prepare":
        if request["reference"] is not None:
            bench.adopt(make(request["reference"]))
        return {}
    config = dict(request["config"])
    if request["do"] == "adopt":
        bench.adopt(make(config))
        return {}
    if request["do"] == "describe":
        spec = make(config).spec
        described = spec() if spec is not None else None
        return {"spec": described.to_json() if described is not None else None}
    compiled = CompileResult(**request["compiled"]) if request["compiled"] else None
    best_ms = request.get("best_ms")
    if best_ms is not None:
        bench.best_ms = min(bench.best_ms or best_ms, best_ms)
    measurement = bench.measure(lambda: make(config), compiled)
    return {"measurement": measurement.to_json(), "poisoned": bool(bench.poison)}


def load_function(name: str) -> Any:
    """The function that ``"module:function"`` or ``"file.py:function"`` names."""
    place, _, function = name.rpartition(":")
    if place.endswith(".py"):
        module = run_file(place, f"autotune_rlm_workload_{Path(place).stem}")
    else:
        module = importlib.import_module(place)
    return getattr(module, function)


def current_device_index() -> int | None:
    """This process's current accelerator; None where it uses none, or asking would take it up."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or not getattr(torch, accelerator.type).is_initialized():
        return None
    return int(torch.accelerator.current_device_index())


def _use_device(index: int | None) -> None:
    if index:
        import torch

        torch.accelerator.set_device_index(index)


def _workload() -> tuple[Callable[[dict[str, Any]], Job], Bench]:
    global _made
    if _made is None:
        workload = _init["workload"]
        try:
            _use_device(_init.get("device"))
            make = load_function(workload["factory"])(**workload["arguments"])
        except (Exception, SystemExit) as error:  # a file may end the program that imports it
            raise WorkloadError(f"{type(error).__name__}: {error}") from error
        on_cpu = "torch" not in sys.modules  # nothing but torch reaches an accelerator
        bench = Bench(
            BenchSettings(**_init["settings"]),
            timer=WallTimer() if on_cpu else None,
            expected=getattr(make, "expected", None),
            state=(lambda: {"device": cpu_device().name, **versions()}) if on_cpu else None,
        )
        _made = (make, bench)
    return _made
