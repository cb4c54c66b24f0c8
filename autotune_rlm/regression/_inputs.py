"""Checks and converts users' texts, fields and numbers before any work starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Asked(NamedTuple):
    """n checked texts with the fields beside each, of which so many are read at once."""

    texts: list[str]
    fields: list[dict[str, Any]]
    batch_size: int = 64

    @classmethod
    def of(cls, texts: Any, fields: Any, batch_size: int = 64) -> Asked:
        """Users' texts and fields; raises as ``text_list`` and ``field_rows``."""
        checked = text_list(texts)
        return cls(checked, field_rows(fields, len(checked)), batch_size)


def text_list(texts: Any) -> list[str]:
    """A list of texts, else TypeError."""
    if isinstance(texts, str):
        raise TypeError("texts must be a list or Series of texts, got a single one: pass [text]")
    if hasattr(texts, "columns"):
        raise TypeError(
            f"texts must be one column of texts, got a table with the columns {list(texts.columns)}: "
            "pass table['NAME'], and the others as fields="
        )
    found = list(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f"texts must be strings, got {type(text).__name__} {text!r} in row {i}")
    return found


def field_rows(fields: Any, n: int) -> list[dict[str, Any]]:
    """N rows of fields by name, of a table, columns, mappings or None, without those that are missing."""
    if fields is None:
        return [{} for _ in range(n)]
    if hasattr(fields, "columns") and hasattr(fields, "to_dict"):
        rows = fields.to_dict("records")
    elif isinstance(fields, Mapping):
        columns = {str(k): list(v) for k, v in fields.items()}
        if wrong := next((k for k, v in columns.items() if len(v) != n), None):
            raise ValueError(f"fields: column {wrong!r} has {len(columns[wrong])} rows, texts {n}")
        rows = [{k: v[i] for k, v in columns.items()} for i in range(n)]
    elif isinstance(fields, Sequence) and all(isinstance(r, Mapping) for r in fields):
        rows = list(fields)
    else:
        raise TypeError(
            "fields must be a table, columns by name or a list with a mapping for each text, got "
            f"{type(fields).__name__}"
        )
    if len(rows) != n:
        raise ValueError(f"fields has {len(rows)} rows, texts has {n}")
    return [{str(k): _plain(v) for k, v in row.items() if not _is_missing(v)} for row in rows]


def number_columns(numbers: Any, n: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the k targets and their numbers (n, k), finite or NaN where unknown; each has some."""
    if hasattr(numbers, "columns"):
        names = tuple(str(c) for c in numbers.columns)
        columns = [numbers[c] for c in numbers.columns]
    elif isinstance(numbers, Mapping):
        names, columns = tuple(map(str, numbers)), list(numbers.values())
    else:
        array = _floats(numbers, str(getattr(numbers, "name", None) or "numbers"))
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2:
            raise ValueError(f"numbers must have shape (n,) or (n, k), got {array.shape}")
        name = getattr(numbers, "name", None)
        names = (str(name),) if name else tuple(f"number{i or ''}" for i in range(array.shape[1]))
        columns = list(array.T)
    if not columns:
        raise ValueError("numbers has no columns")
    found = np.column_stack([_floats(c, name) for c, name in zip(columns, names, strict=True)])
    if len(found) != n:
        raise ValueError(f"numbers has {len(found)} rows, texts has {n}")
    for name, column in zip(names, found.T, strict=True):
        if np.isinf(column).any():
            row = int(np.flatnonzero(np.isinf(column))[0])
            raise ValueError(
                f"{name} is infinite in row {row}; leave the row out, or NaN for unknown"
            )
        if not np.isfinite(column).any():
            raise ValueError(f"{name} has no number in any row")
    return names, found


def group_numbers(groups: Any, texts: Sequence[str]) -> np.ndarray:
    """A number for the group of each row; rows of one text are one group where none are given."""
    if groups is not None and (isinstance(groups, str) or not hasattr(groups, "__iter__")):
        raise TypeError(f"groups must be a list with a name for each text, got {groups!r}")
    names = list(texts if groups is None else groups)
    if len(names) != len(texts):
        raise ValueError(f"groups has {len(names)} rows, texts has {len(texts)}")
    places: dict[Any, int] = {}
    return np.array([places.setdefault(name, len(places)) for name in names], dtype=np.int64)


def _floats(values: Any, name: str) -> np.ndarray:
    try:
        if hasattr(values, "iloc"):  # pandas 2 gives no array of its own integers with gaps
            return values.to_numpy(np.float64, na_value=np.nan)
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        pass
    for row, value in enumerate(values):
        try:
            float(value)
        except (TypeError, ValueError):  # noqa: PERF203 - the message names the row
            raise ValueError(f"{name} must be numbers, got {value!r} in row {row}") from None
    raise ValueError(f"{name} must be numbers of one shape")


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, (float, np.floating)):
        return not math.isfinite(value)
    return type(value).__name__ in ("NAType", "NaTType")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (str, bool, int, float)) else str(value)
