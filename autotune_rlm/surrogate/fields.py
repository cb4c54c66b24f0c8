"""Fields as arrays: every distinct field once, candidates as rows of indices into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autotune_rlm.learn.columns import Column, encode
from autotune_rlm.surrogate.network import FieldTensors
from autotune_rlm.surrogate.numbers import NUMBER_FEATURES, number_features
from autotune_rlm.surrogate.text import (
    Field,
    readable,
    shared_fields,
    source_text,
)
from autotune_rlm.surrogate.tokenizer import TextTokenizer, padded
from autotune_rlm.types import Candidate, Task

__all__ = [
    "EncodedTask",
    "FieldTable",
    "encode_candidates",
    "encode_task",
    "encode_texts",
    "parameter_features",
]


class FieldTable:
    """Gives each distinct field a number."""

    def __init__(self) -> None:
        self._ids: dict[Field, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, field: Field) -> int:
        """The field's number; a new one for a field not seen before."""
        return self._ids.setdefault(field, len(self._ids))

    @property
    def fields(self) -> list[Field]:
        """All fields in the order of their numbers."""
        return list(self._ids)

    def tensors(self, tokenizer: TextTokenizer) -> FieldTensors:
        """All fields as arrays, in the order of their numbers."""
        fields = self.fields
        is_number = np.array([isinstance(f.value, float) for f in fields], dtype=bool)
        numbers = np.zeros((len(fields), NUMBER_FEATURES), dtype=np.float32)
        values = np.array([f.value for f in fields if isinstance(f.value, float)], dtype=np.float64)
        if len(values):
            numbers[is_number] = number_features(values)
        texts = [() if isinstance(f.value, float) else tokenizer.pieces(f.value) for f in fields]
        return FieldTensors(
            name=torch.from_numpy(padded([tokenizer.pieces(f.name) for f in fields])),
            text=torch.from_numpy(padded(texts)),
            number=torch.from_numpy(numbers),
            is_number=torch.from_numpy(is_number),
        )


@dataclass(frozen=True)
class EncodedTask:
    """The shared part of a prompt.

    Attributes:
        fields: Field numbers, int64, shape (s,).
        source: Source tokens, int64, shape (t,).
    """

    fields: np.ndarray
    source: np.ndarray


def encode_task(
    task: Task, table: FieldTable, tokenizer: TextTokenizer, *, max_source: int
) -> EncodedTask:
    """Encode the shared part."""
    fields = [table.add(f) for f in shared_fields(task)]
    source = tokenizer.encode(source_text(task), limit=max_source) if task.source else []
    return EncodedTask(np.array(fields, dtype=np.int64), np.array(source, dtype=np.int64))


def encode_candidates(columns: Mapping[str, Column], n: int, table: FieldTable) -> np.ndarray:
    """Field numbers of n candidates, int64 (n, c), -1 where one has no such parameter.

    New fields are added to ``table``.

    Args:
        columns: The c columns of the candidates (``text.candidate_columns``).
        n: How many candidates there are.
        table: The distinct fields.
    """
    index = np.full((n, max(1, len(columns))), -1, dtype=np.int64)
    for j, (name, column) in enumerate(columns.items()):
        if column.numeric:
            distinct, inverse = np.unique(column.values, return_inverse=True)
            ids = [-1 if np.isnan(v) else table.add(Field(name, float(v))) for v in distinct]
            index[:, j] = np.array(ids, dtype=np.int64)[inverse]
        else:
            ids = [-1 if v is None else table.add(Field(name, v)) for v in column.values]
            index[:, j] = ids
    return index


def encode_texts(
    candidates: Sequence[Candidate], tokenizer: TextTokenizer, *, limit: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Tokens of the distinct texts of n candidates, and which of them each candidate has.

    Returns:
        The texts' tokens, and int64 of shape (n,): -1 where a candidate has no text.
    """
    places: dict[str, int] = {"": -1}
    for c in candidates:
        places.setdefault(c.text, len(places) - 1)
    texts = [readable(text) for text in places if text]
    tokens = [np.array(x, dtype=np.int64) for x in tokenizer.encode_batch(texts, limit=limit)]
    return tokens, np.array([places[c.text] for c in candidates], dtype=np.int64)


def parameter_features(columns: Iterable[Column], n: int) -> np.ndarray:
    """The parameters of n candidates as numbers of unit variance, for distances between them.

    Returns:
        Shape (n, f); a single column of zeros where nothing varies.
    """
    x = encode(columns, n).x
    if not x.shape[1]:
        return np.zeros((n, 1))
    return (x - x.mean(0)) / x.std(0)
