"""What a checkpoint's network says of candidates, read exactly from its distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from autotune_rlm.surrogate.checkpoint import Checkpoint
from autotune_rlm.surrogate.codec import FAILED, NAN
from autotune_rlm.surrogate.eye import has_facts
from autotune_rlm.surrogate.fields import FieldTable, encode_candidates, encode_task, encode_texts
from autotune_rlm.surrogate.metrics import CODECS, FACTS, NumberScale, work_scale
from autotune_rlm.surrogate.network import Memory, TextVectors
from autotune_rlm.surrogate.text import shared_task, target_fields
from autotune_rlm.types import Candidate, Task

__all__ = ["Word", "ask", "ask_several", "number_scale", "reads_texts"]

_SPECIAL = max(FAILED, NAN) + 1
_CHUNK = 2048
_TEXTS = 16  # that are read at once: more do not fit into the caches
_Z75, _Z90 = 0.6744898, 1.6448536
_SMOOTHING = 1.5  # of the recipes, in bins
_LEAST_SCALE_SPREAD = 0.05
_LEAST_SPREAD = 1e-3
_TIME = "time_ms"  # the metric of the tasks whose facts of compilation are told


class Word(NamedTuple):
    """The slow-down of n candidates and the scale of their task, as logarithms.

    Of an absolute number all is in ``mean``, as its ``symlog``, and the scale is nothing.
    """

    mean: np.ndarray
    down: np.ndarray
    """Standard deviation of the side of smaller values."""
    up: np.ndarray
    p_valid: np.ndarray
    hidden: np.ndarray
    """The network's last vector of each candidate, (n, d)."""
    scale: float = 0.0
    scale_spread: float = 0.0


def number_scale(checkpoint: Checkpoint, metric: str) -> NumberScale | None:
    """Where the absolute values of a metric lie; None where it is not decoded as a number."""
    numbers = checkpoint.settings.get("numbers")
    found = numbers.get(metric) if isinstance(numbers, dict) else None
    return None if found is None else NumberScale(**found)


def reads_texts(checkpoint: Checkpoint, task: Task) -> bool:
    """Whether it was trained on texts of candidates in this language, for this metric."""
    texts = checkpoint.settings.get("texts")
    if checkpoint.network.text is None or not isinstance(texts, list):
        return False
    return [task.language, task.metric] in texts


@torch.inference_mode()
def ask(checkpoint: Checkpoint, task: Task, candidates: Sequence[Candidate]) -> Word:
    """What the network says of a task's candidates.

    Args:
        checkpoint: Whose network.
        task: What is asked: its metric is a fact of compilation, an absolute number, or else decoded as
            a slow-down and a scale.
        candidates: The n candidates.
    """
    config = checkpoint.network.config
    number = number_scale(checkpoint, task.metric)
    metrics = _written(config.metrics, task.metric) if number is None else ["number"]
    shown = replace(task, metric=_TIME) if task.metric in FACTS and metrics[-1] in FACTS else task
    prompt = _Prompt(checkpoint, shown, candidates)
    asked = torch.tensor([[config.metrics.index(m) for m in metrics]])
    logits, hidden = prompt.decode(asked)
    if number is not None:
        return _word(logits[:, -1], "number", hidden, number)
    word = _word(logits[:, -1], metrics[-1], hidden)
    if metrics[-1] != "slowdown":
        return word
    scale, spread = _scale(task, prompt.scale())
    return word._replace(scale=scale, scale_spread=spread)


@torch.inference_mode()
def ask_several(
    checkpoint: Checkpoint, tasks: Sequence[Task], candidates: Sequence[Candidate]
) -> list[Word]:
    """What the network says of several targets of the same candidates, one after the other.

    Args:
        checkpoint: Whose network.
        tasks: The targets, of one kernel and language.
        candidates: The n candidates.

    Raises:
        ValueError: The network was not trained on sequences of targets, or on none so long.
    """
    config = checkpoint.network.config
    if not config.described_targets:
        raise ValueError(
            f"tasks: {checkpoint.name} decodes one target only; ask for each by itself"
        )
    if len(tasks) > config.max_metrics:
        raise ValueError(
            f"tasks: {checkpoint.name} decodes at most {config.max_metrics} targets in one sequence, "
            f"got {len(tasks)}"
        )
    prompt = _Prompt(checkpoint, shared_task(tasks), candidates, targets=tasks)
    asked = torch.full((1, len(tasks)), config.metrics.index("slowdown"))
    logits, hidden = prompt.decode(asked)
    found = []
    for j, task in enumerate(tasks):
        scale, spread = _scale(task, prompt.scale(j))
        word = _word(logits[:, j], "slowdown", hidden)
        found.append(word._replace(scale=scale, scale_spread=spread))
    return found


class _Prompt:
    """A task and its candidates as the network has read them."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        task: Task,
        candidates: Sequence[Candidate],
        *,
        targets: Sequence[Task] = (),
    ) -> None:
        self._network, tokenizer = checkpoint.network, checkpoint.tokenizer
        config, table = self._network.config, FieldTable()
        shared = encode_task(task, table, tokenizer, max_source=config.max_source)
        informed = bool(checkpoint.settings.get("facts")) and has_facts(candidates)
        index, _ = encode_candidates(task, candidates, table, facts=informed)
        described = [[table.add(f) for f in target_fields(t)] for t in targets]
        self._fields = self._network.embed_fields(table.tensors(tokenizer))
        self._rows = torch.from_numpy(index)
        self._targets = self._describe(described)
        own = self._fields[torch.from_numpy(shared.fields)][None]
        source = torch.from_numpy(shared.source)[None] if len(shared.source) else None
        present = torch.ones(own.shape[:2], dtype=torch.bool)
        self._memory: Memory = self._network.encode(own, present, source)
        self._texts: TextVectors | None = None
        self._text_of = torch.full((len(candidates),), -1)
        if reads_texts(checkpoint, task):
            texts, text_of = encode_texts(candidates, tokenizer, limit=config.max_text)
            if texts:
                self._texts = self._read(texts)
                self._text_of = torch.from_numpy(text_of)

    def _describe(self, fields: list[list[int]]) -> Tensor | None:
        if not fields:
            return None
        vectors = [self._network.describe(self._fields, torch.tensor(ids)) for ids in fields]
        return torch.stack(vectors)[None]

    def _read(self, texts: Sequence[np.ndarray]) -> TextVectors:
        """All texts, those of like length together."""
        order = np.argsort([len(t) for t in texts], kind="stable")
        parts = []
        for start in range(0, len(order), _TEXTS):
            some = [texts[i] for i in order[start : start + _TEXTS]]
            padded = np.full((len(some), max(1, *map(len, some))), -1, dtype=np.int64)
            for row, one in zip(padded, some, strict=True):
                row[: len(one)] = one
            parts.append(self._network.read_texts(torch.from_numpy(padded)))
        back = torch.from_numpy(np.argsort(order, kind="stable"))
        return TextVectors(*(torch.cat(x)[back] for x in zip(*parts, strict=True)))

    def decode(self, asked: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, m, BINS + 2) of the metrics (1, m), each told those before, and the last states."""
        logits, hidden = [], []
        for start in range(0, len(self._rows), _CHUNK):
            rows = self._rows[start : start + _CHUNK]
            text_of, texts = self._text_of[start : start + _CHUNK], self._texts
            if texts is not None:
                used, inverse = torch.unique(text_of.clamp(min=0), return_inverse=True)
                texts = TextVectors(*(x[used] for x in texts))
                text_of = torch.where(text_of >= 0, inverse, -1)
            found: list[Tensor] = []
            told: Tensor | None = None
            for _ in range(asked.shape[1]):
                now, state = self._network.decode(
                    self._memory,
                    self._fields,
                    rows,
                    asked,
                    told,
                    texts=texts,
                    text_of=text_of,
                    targets=self._targets,
                    last=True,
                )
                found.append(now)
                likely = now.argmax(-1)
                told = likely if told is None else torch.cat([told, likely], dim=1)
            logits.append(torch.cat(found, dim=1))
            hidden.append(state[:, -1])
        return torch.cat(logits), torch.cat(hidden)

    def scale(self, target: int | None = None) -> np.ndarray:
        """Probabilities of the scale's tokens: of the task, or of one of the targets."""
        asked = torch.tensor([[self._network.config.metrics.index("scale")]])
        targets = None
        if target is not None and self._targets is not None:
            targets = self._targets[:, target : target + 1]
        nothing = torch.full((1, 1), -1)
        logits, _ = self._network.decode(
            self._memory, self._fields, nothing, asked, targets=targets
        )
        p: np.ndarray = logits[0, 0].softmax(-1).double().numpy()
        return p


def _written(metrics: Sequence[str], metric: str) -> list[str]:
    """The metrics to decode until the one asked for, in the order in which they were learned."""
    if metric not in FACTS or metric not in metrics:
        return ["slowdown"]
    known = [fact for fact in FACTS if fact in metrics]
    return known[: known.index(metric) + 1]


def _word(logits: Tensor, metric: str, hidden: Tensor, number: NumberScale | None = None) -> Word:
    p = logits.softmax(-1).double().numpy()
    bins = p[:, _SPECIAL:] / np.maximum(p[:, _SPECIAL:].sum(1, keepdims=True), 1e-12)
    codec = CODECS[metric]
    mean, low, high = (
        codec.value_at(bins @ np.arange(codec.bins)),
        *(codec.quantile(bins, q) for q in (0.05, 0.95)),
    )
    if number is not None:
        low, high = (mean + number.width * (x - mean) for x in (low, high))
        mean, low, high = (number.symlog_of(x) for x in (mean, low, high))
    return Word(
        mean,
        np.maximum(mean - low, _LEAST_SPREAD) / _Z90,
        np.maximum(high - mean, _LEAST_SPREAD) / _Z90,
        1.0 - p[:, FAILED],
        hidden.double().numpy(),
    )


def _scale(task: Task, p: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, as the middle half of the distribution has it.

    What the soft targets of training added to its width is taken off again.
    """
    codec = CODECS["scale"]
    bins = p[_SPECIAL:] / max(p[_SPECIAL:].sum(), 1e-12)
    low, high = (float(codec.quantile(bins[None], q)[0]) for q in (0.25, 0.75))
    added = _SMOOTHING * (codec.high - codec.low) / (codec.bins - 1)
    variance = ((high - low) / (2 * _Z75)) ** 2 - added**2
    spread = float(np.sqrt(max(variance, _LEAST_SCALE_SPREAD**2)))
    return float(bins @ codec.centers) + float(np.log(work_scale(task))), spread
