"""Fields beside a text as columns of numbers, the same for rows that come later."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_MAX_KINDS = 64
_RATIO = 16.0  # numbers that span more count by their logarithm too


@dataclass(frozen=True)
class FieldColumns:
    """Numbers standardised (and their signed logarithms where they span much), kinds as indicators."""

    numbers: tuple[tuple[str, bool, float, float], ...]  # name, logarithm?, mean, deviation
    kinds: tuple[tuple[str, str], ...]  # name and value of each indicator

    @classmethod
    def fit(cls, rows: Sequence[Mapping[str, Any]]) -> FieldColumns:
        """The columns of n rows; names may differ between them."""
        names = sorted({name for row in rows for name in row})
        numbers: list[tuple[str, bool, float, float]] = []
        kinds: list[tuple[str, str]] = []
        for name in names:
            values = [row.get(name) for row in rows]
            present = np.array([v for v in values if _is_number(v)], dtype=float)
            if len(present) and np.ptp(present) > 0:
                small, large = np.quantile(np.abs(present), (0.05, 0.95))
                for log in (False, True) if large > _RATIO * max(small, 1e-300) else (False,):
                    x = _logarithm(present) if log else present
                    numbers.append((name, log, float(x.mean()), float(x.std()) or 1.0))
            texts = Counter(str(v) for v in values if v is not None and not _is_number(v))
            kinds += [(name, text) for text, _ in texts.most_common(_MAX_KINDS)]
        return cls(tuple(numbers), tuple(kinds))

    def transform(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Shape (n, columns); what is missing is 0."""
        x = np.zeros((len(rows), len(self.numbers) + len(self.kinds)))
        for j, (name, log, mean, spread) in enumerate(self.numbers):
            given = [row.get(name) for row in rows]
            value = np.array([v if _is_number(v) else np.nan for v in given], dtype=float)
            if log:
                value = _logarithm(value)
            x[:, j] = np.clip(np.nan_to_num((value - mean) / spread), -10.0, 10.0)
        for j, (name, text) in enumerate(self.kinds, len(self.numbers)):
            x[:, j] = [(v := r.get(name)) is not None and str(v) == text for r in rows]
        return x

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FieldColumns:
        """The inverse of ``to_json``."""
        numbers = tuple((str(n), bool(g), float(m), float(s)) for n, g, m, s in data["numbers"])
        return cls(numbers, tuple((str(n), str(v)) for n, v in data["kinds"]))


def _is_number(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return True
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def _logarithm(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.log1p(np.abs(x))
