"""Parameters as columns of numbers: made once per task, for distances, processes and other models."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Column", "Encoded", "columns_of", "encode", "encode_configs"]

_LOG_RATIO = 4.0  # positive numbers with a larger ratio of largest to smallest become logarithms
_MAX_SIZE = 1e300
_MAX_KINDS = 64  # most frequent values of a text parameter that get an indicator column each


@dataclass(frozen=True)
class Column:
    """One parameter of n configurations.

    Attributes:
        name: The parameter's name.
        values: Floats with NaN where it is missing, or an object array of texts and None.
        derived: Whether it follows from other columns and the task (blocks, waves, facts of the
            compiler): read by models, but no dimension of the space that is searched.
    """

    name: str
    values: np.ndarray
    derived: bool = False

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return bool(self.values.dtype != object)


class Encoded(NamedTuple):
    """Columns as numbers.

    Attributes:
        x: A step in any parameter moves about as far as in any other, shape (n, columns).
        groups: Which parameter each column belongs to, counted from 0, shape (columns,).
    """

    x: np.ndarray
    groups: np.ndarray


def columns_of(configs: Sequence[Mapping[str, Any]]) -> list[Column]:
    """One column per name in any of n configurations of JSON values, by name."""
    names = sorted({name for config in configs for name in config})
    return [Column(name, _values([config.get(name) for config in configs])) for name in names]


def encode(columns: Iterable[Column], n: int) -> Encoded:
    """Encode the columns that are not derived.

    Numbers become a column in [0, 1]: their base-2 logarithm where all are positive and span more
    than two octaves, themselves otherwise. Text becomes indicators, scaled so that two values are 1
    apart. A number that is missing gets the column's mean and an indicator. What never varies gives
    no column.

    Args:
        columns: Of n values each.
        n: How many configurations there are.
    """
    parts = [part for c in columns if not c.derived and len(part := _encoded(c.values))]
    if not parts:
        return Encoded(np.zeros((n, 0)), np.zeros(0, dtype=int))
    return Encoded(
        np.column_stack([x for part in parts for x in part]),
        np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
    )


def encode_configs(configs: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """``encode`` of n configurations, names may differ between them; shape (n, columns)."""
    return encode(columns_of(configs), len(configs)).x


def _values(values: list[Any]) -> np.ndarray:
    if all(v is None or _is_number(v) for v in values):
        return np.array([math.nan if v is None else float(v) for v in values])
    texts = [v if isinstance(v, (str, type(None))) else repr(v) for v in values]
    return np.array(texts, dtype=object)


def _encoded(values: np.ndarray) -> list[np.ndarray]:
    if values.dtype != object:
        return _numeric(values)
    kinds, index = np.unique(["" if v is None else f"={v}" for v in values], return_inverse=True)
    if len(kinds) < 2:
        return []
    if len(kinds) == 2:
        return [index.astype(float)]
    often = np.argsort(-np.bincount(index), kind="stable")[:_MAX_KINDS]
    return [(index == i) * math.sqrt(0.5) for i in np.sort(often)]


def _numeric(x: np.ndarray) -> list[np.ndarray]:
    missing = np.isnan(x)
    if missing.all():
        return []
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
    return isinstance(value, (bool, int, float)) and abs(value) < _MAX_SIZE
