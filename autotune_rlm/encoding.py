"""Configurations as numbers: one row per configuration, for distances and classical models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["encode_configs"]

_LOG_RATIO = 4.0
_LARGEST = 1e300


def encode_configs(configs: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Encode configurations so that a step in any parameter moves about as far as in any other.

    Numbers become a column in [0, 1]: their base-2 logarithm where all are positive and span more
    than two octaves, themselves otherwise. Everything else (text, booleans mixed with numbers)
    becomes one indicator column per value, scaled so that two values are 1 apart. A number that is
    missing from a configuration gets the column's mean and an indicator. Parameters that never vary
    give no column.

    Args:
        configs: n mappings of JSON scalars; names may differ between them.

    Returns:
        Array of shape (n, columns), float64; columns may be 0.
    """
    names = sorted({name for config in configs for name in config})
    columns: list[np.ndarray] = []
    for name in names:
        columns += _columns([config.get(name) for config in configs])
    if not columns:
        return np.zeros((len(configs), 0))
    return np.column_stack(columns)


def _columns(values: list[Any]) -> list[np.ndarray]:
    distinct = set(map(_hashable, values))
    if len(distinct) <= 1:
        return []
    known = distinct - {None}
    if all(_is_number(v) for v in known):
        return _numeric(values)
    codes = {value: i for i, value in enumerate(sorted(distinct, key=repr))}
    index = np.array([codes[_hashable(v)] for v in values])
    return [(index == i) / math.sqrt(2) for i in range(len(codes))]


def _numeric(values: list[Any]) -> list[np.ndarray]:
    x = np.array([math.nan if v is None else float(v) for v in values])
    missing = np.isnan(x)
    low, high = np.nanmin(x), np.nanmax(x)
    if low > 0 and high > _LOG_RATIO * low:
        x, low, high = np.log2(x), math.log2(low), math.log2(high)
    columns = []
    if high > low:
        x = (x - low) / (high - low)
        columns.append(np.where(missing, np.nanmean(x), x))
    if missing.any():
        columns.append(missing.astype(np.float64))
    return columns


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) and abs(value) < _LARGEST


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str, type(None))) else repr(value)
