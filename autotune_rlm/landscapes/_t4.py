"""T4, the results format that the autotuning community agreed on, one landscape a file.

Written as schema 1.1.0, read as 1.0.0 and 1.1.0, with the times of Kernel Tuner (``compilation``)
and of KTT (``compilation_time``), in the unit that the metadata name (milliseconds by default).
Schema: https://github.com/AutoTuningAssociation/autotuning_methodology, ``schemas/T4.json``. The
format has no place for kernel and problem; they are read from ``metadata`` where there, else from
the file's name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autotune_rlm._json import plain, shown
from autotune_rlm.devices import lookup
from autotune_rlm.landscapes._common import (
    EXTRA_KEY,
    TO_MS,
    allowed_facts,
    extra_of,
    finite,
    leftovers,
    results_of,
    task_from_extra,
)
from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.types import Candidate, Measurement, Observation, Status, Task

_STATUS = {
    "correct": Status.OK,
    "compile": Status.COMPILE_ERROR,
    "runtime": Status.RUNTIME_ERROR,
    "correctness": Status.WRONG_RESULT,
    "constraints": Status.OUT_OF_RESOURCES,
    "timeout": Status.TIMEOUT,
}
_INVALIDITY = {status: name for name, status in _STATUS.items()} | {
    Status.CRASHED: "runtime",
    Status.SKIPPED: "constraints",
}
_TIME_NAMES = ("time", "totalduration", "duration", "runtime", "latency")
_COMPUTE_API = {"cuda": "CUDA", "triton": "CUDA", "opencl": "OpenCL", "vulkan": "Vulkan"}


def parse(text: str, path: Path) -> list[Landscape]:
    """The landscape of a T4 results file."""
    metadata, results = results_of(text, path, "metadata", "results")
    unit = str(metadata.get("timeunit") or "ms").lower()
    if unit not in TO_MS:
        raise ValueError(f"{path}: metadata.timeunit must be a unit of time, got {unit!r}")
    objective = _objective(results)
    found = []
    for index, result in enumerate(results):
        try:
            found.append(_result(result, objective, TO_MS[unit]))
        except (ValueError, TypeError) as error:  # noqa: PERF203 - the message names the place
            raise ValueError(f"{path}: {_where(text, index)}: {error}") from None
    extra = metadata.get(EXTRA_KEY) or {}
    is_time = objective.lower() in _TIME_NAMES
    device, kernel = _names(path)
    task = task_from_extra(extra) or Task(
        kernel=str(metadata.get("kernel") or kernel),
        device=lookup(str(metadata.get("device") or device)),
        problem=metadata["problem"] if isinstance(metadata.get("problem"), dict) else {},
        language=str(metadata.get("compute_api") or "cuda").lower(),
        metric="time_ms" if is_time else objective,
        minimize=is_time or "flop" not in objective.lower(),
    )
    return [Landscape.from_observations(task, found, id=extra.get("landscape", ""))]


def _names(path: Path) -> tuple[str, str]:
    """Device and kernel as the benchmark hub names files: ``kernel/device_T4.json.gz``."""
    stem = path.name.split(".")[0].removesuffix("_T4").removesuffix("-results")
    return stem, path.absolute().parent.name or stem


def _where(text: str, index: int) -> str:
    """The line on which result ``index`` starts, as far as a look at the text can tell."""
    position = -1
    for _ in range(index + 1):
        found = text.find('"configuration"', position + 1)
        if found < 0:
            return f"results[{index}]"
        position = found
    return f"line {text[:position].count(chr(10)) + 1}: results[{index}]"


def _objective(results: list[Any]) -> str:
    for result in results:
        if isinstance(result, dict) and isinstance(result.get("objectives"), list):
            for name in result["objectives"]:
                return str(name)
    return "time"


def _result(result: Any, objective: str, to_ms: float) -> Observation:
    if not isinstance(result, dict) or not isinstance(result.get("configuration"), dict):
        raise ValueError(f"must be an object with a 'configuration', got {shown(result)}")
    invalidity = result.get("invalidity", "correct")
    if invalidity not in _STATUS:
        raise ValueError(f"invalidity must be one of {', '.join(_STATUS)}, got {invalidity!r}")
    extra = extra_of(result)
    times = result.get("times") or {}
    facts: dict[str, Any] = {}
    value: float | None = None
    for item in result.get("measurements") or ():
        if item.get("name") == objective:
            value = _in_ms(item, objective, to_ms)
        else:
            facts[str(item.get("name"))] = plain(item.get("value"))
    facts |= plain(result.get("compilation_data") or {}) | extra.get("facts", {})
    samples = [t * to_ms for t in times.get("runtimes") or () if finite(t) is not None]
    if value is None and samples and objective.lower() in _TIME_NAMES:
        value = sum(samples) / len(samples)
    compile_ms = finite(times.get("compilation_time", times.get("compilation")))
    compile_s = None if compile_ms is None else compile_ms * to_ms / 1e3
    spent = [finite(times.get(name)) or 0.0 for name in ("benchmark", "validation")]
    status = Status(extra["status"]) if "status" in extra else _STATUS[invalidity]
    if result.get("correctness") == 0 and status is Status.OK:
        status = Status.WRONG_RESULT
    reason = extra.get("reason", "")
    if status is Status.OK and value is None:
        status, reason = Status.RUNTIME_ERROR, f"no value of {objective!r}"
    state = dict(extra.get("state") or {})
    if result.get("timestamp") and not state:
        state["timestamp"] = str(result["timestamp"])
    candidate = Candidate(config=plain(result["configuration"]), text=extra.get("text", ""))
    measurement = Measurement(
        status=status,
        value=value if status is Status.OK else None,
        low=extra.get("low"),
        high=extra.get("high"),
        samples=tuple(samples),
        reason=reason,
        compile_s=compile_s,
        cost_s=extra.get("cost_s", (compile_s or 0.0) + sum(spent) * to_ms / 1e3),
        facts=facts,
        state=state,
    )
    return Observation(candidate, measurement)


def _in_ms(item: dict[str, Any], objective: str, to_ms: float) -> float | None:
    number = finite(item.get("value"))
    if number is None or objective.lower() not in _TIME_NAMES:
        return number
    return number * TO_MS.get(str(item.get("unit")).lower(), to_ms)


def render(landscape: Landscape) -> str:
    """The T4 text of a landscape."""
    task = landscape.task
    metadata: dict[str, Any] = {
        "device": task.device.name,
        "autotuner": "autotune_rlm",
        "timeunit": "milliseconds",
        "kernel": task.kernel,
        "problem": plain(task.problem),
        EXTRA_KEY: {"landscape": landscape.id, "task": plain(task.to_json())},
    }
    if task.language in _COMPUTE_API:
        metadata["compute_api"] = _COMPUTE_API[task.language]
    results = [
        json.dumps(_record(c, m, task), allow_nan=False, separators=(",", ":"))
        for c, m in zip(landscape.candidates, landscape.measurements, strict=True)
    ]
    head = json.dumps(metadata, allow_nan=False)
    body = ",\n".join(results)
    return f'{{"schema_version": "1.1.0",\n"metadata": {head},\n"results": [\n{body}\n]}}\n'


def _record(candidate: Candidate, m: Measurement, task: Task) -> dict[str, Any]:
    timed = task.metric == "time_ms"
    objective = "time" if timed else task.metric
    invalidity = _INVALIDITY[m.status]
    compile_ms = (m.compile_s or 0.0) * 1e3
    times: dict[str, Any] = {
        "runtimes": list(m.samples),
        "benchmark": max(m.cost_s * 1e3 - compile_ms, 0.0),
    }
    if m.compile_s is not None:
        times["compilation_time"] = compile_ms
    measured = [] if m.value is None else [(objective, m.value, "ms" if timed else "")]
    if objective in m.facts:
        raise ValueError(f"a fact has the name of the T4 objective: {objective!r}; write jsonl")
    measured += [(name, value, "") for name, value in allowed_facts(m.facts).items()]
    record: dict[str, Any] = {
        "configuration": dict(candidate.config),
        "objectives": [objective],
        "times": times,
        "invalidity": invalidity,
        "correctness": 0 if m.status is Status.WRONG_RESULT else 1,
        "measurements": [dict(zip(("name", "value", "unit"), x, strict=True)) for x in measured],
    }
    if m.state.get("timestamp"):
        record["timestamp"] = str(m.state["timestamp"])
    extra = leftovers(candidate, m, status=_STATUS[invalidity])
    if extra:
        record[EXTRA_KEY] = extra
    return record
