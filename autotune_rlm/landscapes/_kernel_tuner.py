"""Kernel Tuner cache files, one landscape each.

A file that a running or killed Kernel Tuner left open (no closing brackets, a comma or half an
entry at the end) is read as far as it goes. Kernel Tuner writes all times in milliseconds. See
https://kerneltuner.github.io/kernel_tuner/stable/cache_files.html; what is written follows the schema
1.0.0 of its branch ``cache_files``, so that Kernel Tuner replays it and turns it into T4.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune_rlm._json import plain, shown, strict_json
from autotune_rlm.devices import lookup
from autotune_rlm.landscapes._common import (
    EXTRA_KEY,
    allowed_facts,
    extra_of,
    failure_status,
    finite,
    leftovers,
    seconds,
    task_from_extra,
)
from autotune_rlm.landscapes._landscape import Landscape
from autotune_rlm.types import Candidate, Measurement, Observation, Status, Task, canonical_json

_ERROR_VALUE = 1e20  # what old versions wrote in place of a failed measurement
_COSTS = ("compile_time", "verification_time", "benchmark_time")
_OVERHEADS = ("strategy_time", "framework_time")
_NAMES = {
    Status.COMPILE_ERROR: "CompilationFailedConfig",
    Status.OUT_OF_RESOURCES: "InvalidConfig",
    Status.SKIPPED: "InvalidConfig",
}
_SCHEMA = "1.0.0"
_MAX_DIMENSIONS = 3  # of a problem's size in Kernel Tuner
_NO_DATE = "1970-01-01T00:00:00+00:00"  # the schema wants one


def parse(text: str, path: Path) -> list[Landscape]:
    """The landscape of a cache file."""
    data = _load(text, path)
    names = data.get("tune_params_keys")
    cache = data.get("cache")
    if not isinstance(names, list) or not isinstance(cache, dict):
        raise ValueError(
            f"{path}: line 1: a Kernel Tuner cache needs 'tune_params_keys' (a list) and 'cache' "
            "(an object)"
        )
    objective = _objective_of(data)
    kept = extra_of(data)
    beside = kept.get("entries", {})
    found = []
    for key, entry in cache.items():
        try:
            found.append(_entry(entry, names, objective, beside.get(key, {})))
        except ValueError as error:  # noqa: PERF203 - the message names the place
            line = text[: max(text.find(json.dumps(key)), 0)].count("\n") + 1
            raise ValueError(f"{path}: line {line}: entry {key!r}: {error}") from None
    task = task_from_extra(kept) or _task(data, path)
    return [Landscape.from_observations(task, found, id=kept.get("landscape", ""))]


def _objective_of(data: Mapping[str, Any]) -> str:
    objective = data.get("objective") or "time"
    return str(objective[0] if isinstance(objective, list) else objective)


def _task(data: Mapping[str, Any], path: Path) -> Task:
    """The task as Kernel Tuner's own fields tell it."""
    objective = _objective_of(data)
    return Task(
        kernel=str(data.get("kernel_name") or path.name.split(".")[0]),
        device=lookup(str(data.get("device_name") or "unknown")),
        problem=_problem(data.get("problem_size")),
        language=str(data.get("language") or "cuda").lower(),
        metric="time_ms" if objective == "time" else objective,
        minimize=not re.search(r"flop|/s$|/w$|throughput|bandwidth", objective.lower()),
    )


def _load(text: str, path: Path) -> dict[str, Any]:
    """The JSON of a closed or open cache file."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        first = error
    else:
        if not isinstance(data, dict):
            raise ValueError(f"{path}: line 1: must be a JSON object")
        return data
    whole = text.rstrip().rstrip(",")
    without_last = whole.rpartition("\n")[0].rstrip().rstrip(",")
    for body in (whole, without_last):
        for closing in ("}\n}", "}"):
            try:
                data = json.loads(body + closing)
            except json.JSONDecodeError:
                continue
            if isinstance(data.get("cache"), dict):
                return data
    raise ValueError(
        f"{path}: line {first.lineno}: not a Kernel Tuner cache: {first.msg}"
    ) from None


def _problem(size: Any) -> dict[str, Any]:
    if isinstance(size, str):
        try:
            value = strict_json(size)
        except ValueError:
            value = size
        return value if isinstance(value, dict) else {"size": value}
    return {} if size is None else {"size": size}


def kernel_tuner_observation(
    result: Mapping[str, Any], names: Sequence[str], *, objective: str = "time"
) -> Observation:
    """What one of Kernel Tuner's results says, as ``tune_kernel`` returns it and caches keep it.

    Args:
        result: Parameters, objective, seconds and what else was observed, in one dictionary.
        names: Which of its keys are parameters.
        objective: Which of them is the value.

    Raises:
        ValueError: A parameter is missing.
    """
    failed = {k: str(v) for k, v in result.items() if k == "__error__"}
    return _entry({**result, **failed}, list(names), objective, {})


def _entry(entry: Any, names: list[str], objective: str, beside: Mapping[str, Any]) -> Observation:
    if not isinstance(entry, dict):
        raise ValueError(f"must be an object, got {shown(entry)}")
    missing = [name for name in names if name not in entry]
    if missing:
        raise ValueError(f"parameter {missing[0]!r} is missing")
    extra = {**beside, **extra_of(entry)}
    config = plain({name: entry[name] for name in names})
    value = entry.get(objective)
    known = {*names, objective, "times", "timestamp", "__error__", EXTRA_KEY, *_COSTS, *_OVERHEADS}
    state = dict(extra.get("state") or {})
    if entry.get("timestamp") not in (None, "", _NO_DATE) and not state:
        state["timestamp"] = str(entry["timestamp"])
    costs = [seconds(entry.get(name)) or 0.0 for name in _COSTS]
    fields: dict[str, Any] = {
        "low": extra.get("low"),
        "high": extra.get("high"),
        "samples": tuple(t for t in entry.get("times") or () if finite(t) is not None),
        "compile_s": seconds(entry.get("compile_time")),
        "cost_s": extra.get("cost_s", sum(costs)),
        "facts": {k: plain(v) for k, v in entry.items() if k not in known} | extra.get("facts", {}),
        "state": state,
    }
    error = entry.get("__error__") or (value if isinstance(value, str) else None)
    number = finite(value)
    candidate = Candidate(config=config, text=extra.get("text", ""))
    if error is None and number is not None and number != _ERROR_VALUE:
        return Observation(candidate, Measurement(status=Status.OK, value=number, **fields))
    name = str(error) if error is not None else "no value"
    status = Status(extra["status"]) if "status" in extra else failure_status(name)
    reason = extra.get("reason", "" if extra else name)
    return Observation(candidate, Measurement(status=status, reason=reason, **fields))


def render(landscape: Landscape) -> str:
    """The closed cache file of a landscape, one entry a line as Kernel Tuner writes it."""
    task = landscape.task
    names = list(landscape.candidates[0].config) if landscape.candidates else []
    cache: dict[str, str] = {}
    beside: dict[str, dict[str, Any]] = {}  # what an entry of Kernel Tuner has no place for
    seen: dict[str, Candidate] = {}
    values: dict[str, dict[str, Any]] = {name: {} for name in names}
    for candidate, measurement in zip(landscape.candidates, landscape.measurements, strict=True):
        if set(candidate.config) != set(names):
            raise ValueError(
                f"landscape {landscape.id!r} has candidates with different parameters, which a "
                "Kernel Tuner cache cannot hold; write csv, t4 or jsonl"
            )
        key = ",".join(str(candidate.config[name]) for name in names)
        if seen.setdefault(key, candidate) != candidate:
            raise ValueError(
                f"landscape {landscape.id!r} has two candidates with the Kernel Tuner key {key!r}; "
                "write csv, t4 or jsonl"
            )
        for name in names:
            values[name].setdefault(canonical_json(candidate.config[name]), candidate.config[name])
        cache[key] = json.dumps(_record(candidate, measurement, task), allow_nan=False)
        read_as = Status.OK if measurement.ok else failure_status(_name_of(measurement.status))
        beside[key] = leftovers(candidate, measurement, status=read_as)
    # A file without a size is replayed with any; the schema knows no such file.
    sized = {"problem_size": _problem_size(task.problem)} if task.problem else {}
    header: dict[str, Any] = {
        **({"schema_version": _SCHEMA} if sized else {}),
        "device_name": task.device.name,
        "kernel_name": task.kernel,
        **sized,
        "tune_params_keys": names,
        "tune_params": {name: list(values[name].values()) for name in names},
        "objective": _objective(task),
    }
    read_back = Landscape(_task(header, Path()), landscape.candidates, landscape.measurements)
    extra: dict[str, Any] = {}
    if (read_back.task, read_back.id) != (task, landscape.id):
        extra |= {"landscape": landscape.id, "task": plain(task.to_json())}
    if entries := {key: kept for key, kept in beside.items() if kept}:
        extra["entries"] = entries
    if extra:
        header[EXTRA_KEY] = extra
    lines = [f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}," for k, v in header.items()]
    body = ",\n".join(f"{json.dumps(key)}: {entry}" for key, entry in cache.items())
    return "{\n" + "\n".join(lines) + '\n"cache": {\n' + body + "}\n}"


def _objective(task: Task) -> str:
    return "time" if task.metric == "time_ms" else task.metric


def _problem_size(problem: Mapping[str, Any]) -> int | list[int]:
    """The size as Kernel Tuner takes it: what one of its files said, else the first whole numbers."""
    size = problem.get("size", list(problem.values()))
    if type(size) is int:
        return size
    numbers = [v for v in size if type(v) is int] if isinstance(size, (list, tuple)) else []
    return numbers[:_MAX_DIMENSIONS] or [1]


def _name_of(status: Status) -> str:
    """Kernel Tuner's name of a failure."""
    return _NAMES.get(status, "RuntimeFailedConfig")


def _record(candidate: Candidate, m: Measurement, task: Task) -> dict[str, Any]:
    compile_ms = (m.compile_s or 0.0) * 1000.0
    taken = {*candidate.config, "times", "timestamp", *_COSTS, *_OVERHEADS, _objective(task)}
    clash = taken & set(m.facts)
    if clash or (taken - set(candidate.config)) & set(candidate.config):
        name = next(iter(clash or set(candidate.config)))
        raise ValueError(f"a parameter or fact has a name that Kernel Tuner uses itself: {name!r}")
    return {
        **candidate.config,
        _objective(task): m.value if m.ok else _name_of(m.status),
        "times": list(m.samples),
        "compile_time": compile_ms,
        "verification_time": 0,
        "benchmark_time": max(m.cost_s * 1000.0 - compile_ms, 0.0),
        "strategy_time": 0,
        "framework_time": 0,
        "timestamp": str(m.state.get("timestamp") or _NO_DATE),
        **allowed_facts(m.facts),
    }
