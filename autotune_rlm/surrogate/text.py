"""What the model reads: a task and its candidates as fields of text.

A prompt has a *shared* part (device, problem, kernel source: the same for all candidates of a task)
and a *candidate* part (the configuration). Both are lists of ``Field``: a name and a value. Names and
values are normalised, so that ``BLOCK_SIZE_M``, ``BLOCK_M`` and ``block_m`` read alike, and so do
``torch.float16`` and ``fp16``. Where a block size is named after a size of the problem, the candidate
part also says how many blocks, programs and waves of programs follow from it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from autotune_rlm.dtypes import short_name
from autotune_rlm.learn.columns import Column
from autotune_rlm.types import Candidate, Device, Task

__all__ = [
    "Field",
    "candidate_columns",
    "leaf",
    "normalise_name",
    "readable",
    "render",
    "shared_fields",
    "source_text",
]

MAX_SOURCE_CHARS = 24_000
_MAX_SHARED_FIELDS = 96
_MAX_VALUE_CHARS = 96
_LARGEST = 1e300  # larger whole numbers are cut to it

_LEARNED = {"fp8e4nv": "fp8e4"}  # how the weights in use were told of a dtype
_NAMES = {
    "numwarps": "num_warps", "numstages": "num_stages", "numctas": "num_ctas", "warps": "num_warps",
    "stages": "num_stages", "mat1_dtype": "a.dtype", "mat2_dtype": "b.dtype", "dtype": "a.dtype",
}  # fmt: skip
_BLOCK = re.compile(r"^(?:block|tile|b)_?([a-z0-9]+)$|^([a-z0-9]+)_?block$")
_REDUCED = frozenset({"k", "r", "rk", "kk", "red", "reduce"})


class Field(NamedTuple):
    """A name and a value, which is a number or a short text."""

    name: str
    value: float | str


@lru_cache(maxsize=65536)
def normalise_name(name: str) -> str:
    """The one spelling of a parameter's name."""
    name = name.strip().lower().replace("block_size", "block").replace("group_size", "group")
    return _NAMES.get(name, name)


@lru_cache(maxsize=65536)
def _normalise_text(value: str) -> str:
    value = value.strip().removeprefix("torch.").removeprefix("tl.").removeprefix("*")
    name = short_name(value) or value
    return _LEARNED.get(name, name)[:_MAX_VALUE_CHARS]


def leaf(value: Any) -> float | str:
    """A value of a field as the model reads it: a number, or a short normalised text."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, (int, float)):
        number = float(min(max(value, -_LARGEST), _LARGEST)) if isinstance(value, int) else value
        return number if math.isfinite(number) else str(number)
    return _normalise_text("none" if value is None else str(value))


def _flatten(name: str, value: Any) -> list[Field]:
    if isinstance(value, Mapping):
        inner = [_flatten(f"{name}.{str(k).lower()}", v) for k, v in value.items()]
        return [f for fields in inner for f in fields]
    if isinstance(value, (list, tuple)):
        return [f for i, v in enumerate(value) for f in _flatten(f"{name}.{i}", v)]
    return [Field(name, leaf(value))]


def _device_fields(device: Device) -> list[Field]:
    return [Field(f"device.{k}", leaf(v)) for k, v in device.to_json().items()]


def problem_fields(problem: Mapping[str, Any]) -> list[Field]:
    """The problem's sizes, dtypes and strides, nested values flattened.

    Without the launch grid, which follows from sizes and the default configuration.
    """
    given = ((normalise_name(str(k)), v) for k, v in problem.items() if k != "grid")
    return [f for name, value in given for f in _flatten(name, value)]


def shared_fields(task: Task) -> list[Field]:
    """The shared part of the prompt without the source: kernel, device, problem."""
    head = [
        Field("kernel", leaf(task.kernel)),
        Field("language", leaf(task.language)),
        Field("metric", leaf(task.metric)),
    ]
    fields = head + _device_fields(task.device) + problem_fields(task.problem)
    return fields[:_MAX_SHARED_FIELDS]


def source_text(task: Task) -> str:
    """The source as far as the model reads it; anything that is not Unicode is replaced."""
    return readable(task.source)


def readable(text: str) -> str:
    """A text as far as the model reads it; anything that is not Unicode is replaced."""
    return text[:MAX_SOURCE_CHARS].encode("utf-8", "replace").decode("utf-8", "replace")


def _sizes(task: Task) -> dict[str, float]:
    return {
        f.name.rsplit(".", 1)[-1] if f.name.startswith("size.") else f.name: f.value
        for f in problem_fields(task.problem)
        if isinstance(f.value, float) and f.value >= 1
    }


def candidate_columns(
    task: Task, candidates: Sequence[Candidate], *, facts: bool = False
) -> dict[str, Column]:
    """The candidate part of the prompt for n candidates, as columns by field name.

    ``facts`` says whether the compiler's facts are among them.
    """
    configs = [c.config for c in candidates]
    columns: dict[str, Column] = {}
    for raw in dict.fromkeys(itertools.chain.from_iterable(configs)):
        name = normalise_name(str(raw))
        columns[name] = Column(name, _values([config.get(raw) for config in configs]))
    launch = {n: c for n, c in _launch_columns(task, columns).items() if n not in columns}
    return columns | launch | (_fact_columns(candidates) if facts else {})


_FACTS = (
    "registers", "excess_registers", "shared_bytes", "resident", "occupancy", "waves", "tail",
    "intensity", "bytes_in_flight", "trips", "work_per_trip", "warp_redundancy", "operations",
)  # fmt: skip
_FACT_TIMES = (
    "roofline_ms", "dot_ms", "float_ms", "special_ms", "issue_ms", "memory_ms", "l2_ms", "shared_ms",
)  # fmt: skip
_STEPS = 4  # to the factor of two


def _fact_columns(candidates: Sequence[Candidate]) -> dict[str, Column]:
    """What the compiler's first IR says of n candidates, as columns by field name.

    Times are those over the least of all candidates. Values are rounded to a quarter of a factor of
    two, so that thousands of candidates share some hundreds of fields.
    """
    columns = {}
    for name in (*_FACTS, *_FACT_TIMES):
        values = np.array([c.facts.get(name, np.nan) for c in candidates], dtype=np.float64)
        known = np.isfinite(values)
        if not known.any():
            continue
        if name in _FACT_TIMES:
            least = np.min(values[known & (values > 0)], initial=np.inf)
            values = values / least if np.isfinite(least) else values
        with np.errstate(divide="ignore", invalid="ignore"):
            rounded = 2.0 ** (np.round(_STEPS * np.log2(values)) / _STEPS)
        columns[f"ir.{name}"] = Column(
            f"ir.{name}", np.where(values > 0, rounded, values), derived=True
        )
    return columns


def _values(values: list[Any]) -> np.ndarray:
    """The values of one parameter as a column has them."""
    kinds = set(map(type, values))
    if kinds <= {int, float, bool}:
        with contextlib.suppress(OverflowError):
            numbers = np.array(values, dtype=np.float64)
            if (np.abs(numbers) <= _LARGEST).all():
                return numbers
    if any(issubclass(kind, (Mapping, list, tuple)) for kind in kinds):
        values = [None if v is None else render(_flatten("", v)) for v in values]
    leaves = _leaves(values)
    if any(isinstance(v, str) for v in leaves):
        texts = [v if v is None or isinstance(v, str) else f"{v:g}" for v in leaves]
        return np.array(texts, dtype=object)
    return np.array([np.nan if v is None else v for v in leaves], dtype=np.float64)


def _leaves(values: Sequence[Any]) -> list[float | str | None]:
    """``leaf`` of each value, None for None; of many thousand values few are distinct."""
    keys = list(zip(map(type, values), values, strict=True))  # True and 1 are equal, 1 and 1.0 too
    try:
        known = {key: None if key[1] is None else leaf(key[1]) for key in set(keys)}
    except TypeError:  # a value that cannot be hashed
        return [None if v is None else leaf(v) for v in values]
    return [known[key] for key in keys]


def _launch_columns(task: Task, columns: Mapping[str, Column]) -> dict[str, Column]:
    """Blocks, programs and waves that follow from block sizes named after the problem's sizes."""
    sizes = _sizes(task)
    found: dict[str, np.ndarray] = {}
    programs: np.ndarray | None = None
    for name, column in columns.items():
        match = _BLOCK.match(name)
        dim = match and (match[1] or match[2])
        if not column.numeric or not dim or dim not in sizes:
            continue
        values = column.values
        with np.errstate(divide="ignore", invalid="ignore"):
            blocks = np.ceil(sizes[dim] / values)
            blocks[~np.isfinite(blocks)] = np.nan
        found[f"blocks.{dim}"] = blocks
        found[f"overhang.{dim}"] = blocks * values / sizes[dim]
        if dim not in _REDUCED:
            programs = blocks if programs is None else programs * blocks
    if programs is not None:
        if "split_k" in columns and columns["split_k"].numeric:
            programs = programs * columns["split_k"].values
        found["programs"] = programs
        if task.device.sms:
            waves = programs / task.device.sms
            found["waves"] = waves
            found["wave_fill"] = waves / np.ceil(waves)
    return {name: Column(name, values, derived=True) for name, values in found.items()}


def render(fields: Sequence[Field]) -> str:
    """Fields as one line of text, as a person reads them."""
    return " ".join(f"{n}={v:g}" if isinstance(v, float) else f"{n}={v}" for n, v in fields)
