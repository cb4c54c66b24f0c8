"""Rows of texts and numbers as what ``RLMModel`` reads: for ``transformers.Trainer``, for any loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from autotune_rlm.surrogate.fields import FieldTable
from autotune_rlm.surrogate.metrics import UNKNOWN_BIN, NumberScale
from autotune_rlm.surrogate.text import Field, leaf, readable
from autotune_rlm.surrogate.tokenizer import padded
from autotune_rlm.training.hf import RLMModel

__all__ = ["TextCollator"]


class TextCollator:
    """Makes a batch of rows.

    A row is a mapping with ``text``, ``number`` (a finite float; None or absent where it is asked for)
    and any other fields. What the model learns is read by ``load_surrogate`` and ``RLM.load`` where the
    scale stands in its configuration, which this writes there.

    Args:
        model: With a tokenizer, a reader of texts and the metric ``"number"``.
        metric: Name of the number, such as ``"peak_bytes"``.
        scale: Where its values lie, ``NumberScale.of(values)``.
        language: What the texts are in.

    Raises:
        ValueError: The model cannot read texts or write numbers.

    Example:
        ```python
        model = RLMModel.from_pretrained(folder)
        collate = TextCollator(model, "peak_bytes", NumberScale.of(numbers))
        arguments = TrainingArguments("out", remove_unused_columns=False, max_steps=1000)
        Trainer(model, arguments, train_dataset=rows, data_collator=collate).train()
        ```
    """

    def __init__(
        self, model: RLMModel, metric: str, scale: NumberScale, *, language: str = "text"
    ) -> None:
        sizes = model.network.config
        if "number" not in sizes.metrics or model.network.text is None:
            raise ValueError(
                "model: it must read texts (network.text_words) and write the metric 'number', it "
                f"writes {list(sizes.metrics)}"
            )
        self._tokenizer, self._limit = model.tokenizer, sizes.max_text
        self._metric, self._scale = sizes.metrics.index("number"), scale
        self._shared = [Field("language", leaf(language)), Field("metric", leaf(metric))]
        settings = dict(getattr(model.config, "settings", None) or {})
        settings["numbers"] = {**settings.get("numbers", {}), metric: asdict(scale)}
        others = [pair for pair in settings.get("texts", []) if pair != [language, metric]]
        settings["texts"] = sorted([*others, [language, metric]])
        model.config.settings = settings

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Arguments of ``RLMModel.forward`` for b rows."""
        table = FieldTable()
        shared = [table.add(field) for field in self._shared]
        fields = [
            [table.add(Field(str(k), leaf(v))) for k, v in row.items() if k not in _OWN]
            for row in rows
        ]
        places: dict[str, int] = {}
        text_of = [places.setdefault(readable(row["text"]), len(places)) for row in rows]
        tokens = self._tokenizer.encode_batch(list(places), limit=self._limit)
        numbers = [row.get("number") for row in rows]
        values = np.array([np.nan if x is None else float(x) for x in numbers])
        labels = np.nan_to_num(self._scale.position(values), nan=UNKNOWN_BIN)
        b = len(rows)
        return {
            "fields": tuple(table.tensors(self._tokenizer)),
            "shared": torch.tensor([shared] * b),
            "candidates": torch.from_numpy(padded(fields)),
            "metrics": torch.full((b, 1), self._metric),
            "texts": torch.from_numpy(padded(tokens)),
            "text_of": torch.tensor(text_of),
            "labels": torch.from_numpy(labels).float()[:, None],
        }


_OWN = ("text", "number")
