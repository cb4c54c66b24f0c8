"""The predictions of a checkpoint's network, computed exactly from its output distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from autotune_rlm.learn.columns import Column
from autotune_rlm.surrogate.checkpoint import Checkpoint
from autotune_rlm.surrogate.codec import FAILED, SPECIAL, BinCodec
from autotune_rlm.surrogate.eye import has_facts
from autotune_rlm.surrogate.fields import FieldTable, encode_candidates, encode_task, encode_texts
from autotune_rlm.surrogate.known import SEVERAL
from autotune_rlm.surrogate.metrics import CODECS, FACTS, NumberScale, work_scale
from autotune_rlm.surrogate.network import Memory, TextVectors
from autotune_rlm.surrogate.text import candidate_columns
from autotune_rlm.surrogate.tokenizer import padded
from autotune_rlm.types import Candidate, Task

_NETWORKS = "onnx"
_CHUNK = 2048
_TEXTS = 16  # texts read in one batch; larger batches do not fit into the processor's caches
_Z75 = 0.6744898  # 75 % quantile of the standard normal distribution
_Z90 = 1.6448536  # its 95 % quantile: 90 % of it lies within
_SMOOTHING = 1.5  # standard deviation of the recipes' soft targets, in bins
_MIN_SCALE_SPREAD = 0.05
_MIN_SPREAD = 1e-3
_TIME = "time_ms"  # the metric of the tasks with which facts of compilation were trained


class Decoded(NamedTuple):
    """The network's prediction: slow-downs of n candidates and their task's scale, as logarithms.

    An absolute number is in ``mean`` as its ``symlog``; ``scale`` and ``scale_spread`` are then 0.
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
    """The range of a metric's absolute values; None where it is not decoded as a number."""
    numbers = checkpoint.settings.get("numbers")
    scale = numbers.get(metric) if isinstance(numbers, dict) else None
    return None if scale is None else NumberScale(**scale)


def reads_texts(checkpoint: Checkpoint, language: str, metric: str = SEVERAL) -> bool:
    """Whether the checkpoint was trained on candidates' texts in this language for this metric."""
    texts = checkpoint.settings.get("texts")
    if checkpoint.network.text is None or not isinstance(texts, list):
        return False
    return [language, metric] in texts


def columns_read(
    checkpoint: Checkpoint, task: Task, candidates: Sequence[Candidate]
) -> dict[str, Column]:
    """The candidates as columns, the compiler's facts included where the checkpoint reads them."""
    informed = bool(checkpoint.settings.get("facts")) and has_facts(candidates)
    return candidate_columns(task, candidates, facts=informed)


@torch.inference_mode()
def ask(
    checkpoint: Checkpoint,
    task: Task,
    candidates: Sequence[Candidate],
    columns: Mapping[str, Column],
) -> Decoded:
    """The network's prediction for a task's n candidates, given their ``columns_read``.

    The task's metric is a fact of compilation, an absolute number, or else decoded as a slow-down and a
    scale.
    """
    config = checkpoint.network.config
    number = number_scale(checkpoint, task.metric)
    metrics = _written(config.metrics, task.metric) if number is None else ["number"]
    shown = replace(task, metric=_TIME) if task.metric in FACTS and metrics[-1] in FACTS else task
    as_read = candidates
    if (
        task.language == _NETWORKS
    ):  # fields alone rank networks better (benchmarks/network_texts.py)
        as_read = [Candidate({}) if c.config else c for c in candidates]
    texts = _Texts(checkpoint, task.language, as_read, metric=task.metric)
    prompt = _Prompt(checkpoint, shown, columns, texts)
    asked = torch.tensor([[config.metrics.index(m) for m in metrics]])
    logits, hidden = prompt.decode(asked)
    if number is not None:
        return _decoded(logits[:, -1], "number", hidden, number)
    decoded = _decoded(logits[:, -1], metrics[-1], hidden)
    if metrics[-1] != "slowdown":
        return decoded
    scale, spread = _scale(task, prompt.scale())
    return decoded._replace(scale=scale, scale_spread=spread)


@torch.inference_mode()
def ask_several(
    checkpoint: Checkpoint, tasks: Sequence[Task], candidates: Sequence[Candidate]
) -> list[Decoded]:
    """The network's predictions of several targets of the same n candidates, in one sequence.

    The tasks are the targets in their order, of one kernel and language.

    Raises:
        ValueError: The network was not trained on sequences of targets.
    """
    network = checkpoint.network
    if not network.config.sequences:
        raise ValueError(
            f"tasks: {checkpoint.name} decodes one target only; ask for each by itself"
        )
    asked = torch.tensor([[network.config.metrics.index("slowdown")]])
    predictions: list[Decoded] = []
    tokens: list[Tensor] = []
    described: list[Tensor] = []
    texts = _Texts(checkpoint, tasks[0].language, candidates)
    for task in tasks:
        prompt = _Prompt(checkpoint, task, columns_read(checkpoint, task, candidates), texts)
        condition = None
        if tokens:
            before = torch.stack(described).expand(len(candidates), -1, -1)
            condition = network.condition(torch.cat(tokens, dim=1), before)
        logits, hidden = prompt.decode(asked, condition)
        tokens.append(logits[:, -1:].argmax(-1))
        described.append(prompt.described)
        scale, spread = _scale(task, prompt.scale())
        decoded = _decoded(logits[:, -1], "slowdown", hidden)
        predictions.append(decoded._replace(scale=scale, scale_spread=spread))
    return predictions


class _Texts:
    """The texts of n candidates as vectors of the network; none where it does not read them.

    ``metric`` is what they are read for; ``SEVERAL`` for a sequence of targets.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        language: str,
        candidates: Sequence[Candidate],
        *,
        metric: str = SEVERAL,
    ) -> None:
        self._network = checkpoint.network
        self.of = torch.full((len(candidates),), -1)
        self.read: TextVectors | None = None
        if reads_texts(checkpoint, language, metric):
            limit = self._network.config.max_text
            texts, text_of = encode_texts(candidates, checkpoint.tokenizer, limit=limit)
            if texts:
                self.read, self.of = self._read(texts), torch.from_numpy(text_of)

    def _read(self, texts: Sequence[np.ndarray]) -> TextVectors:
        """Vectors of all texts, computed in batches of similar length."""
        order = np.argsort([len(t) for t in texts], kind="stable")
        parts = []
        for start in range(0, len(order), _TEXTS):
            some = [texts[i] for i in order[start : start + _TEXTS]]
            parts.append(self._network.read_texts(torch.from_numpy(padded(some))))
        back = torch.from_numpy(np.argsort(order, kind="stable"))
        return TextVectors(*(torch.cat(x)[back] for x in zip(*parts, strict=True)))

    def take(self, start: int, stop: int) -> tuple[TextVectors | None, Tensor]:
        """The texts of the candidates from ``start`` to ``stop``, and each one's index among them."""
        of = self.of[start:stop]
        if self.read is None:
            return None, of
        used, inverse = torch.unique(of.clamp(min=0), return_inverse=True)
        return TextVectors(*(x[used] for x in self.read)), torch.where(of >= 0, inverse, -1)


class _Prompt:
    """A task and its candidates, encoded by the network."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        task: Task,
        columns: Mapping[str, Column],
        texts: _Texts,
    ) -> None:
        self._network, tokenizer = checkpoint.network, checkpoint.tokenizer
        config, table = self._network.config, FieldTable()
        shared = encode_task(task, table, tokenizer, max_source=config.max_source)
        index = encode_candidates(columns, len(texts.of), table)
        self._fields = self._network.embed_fields(table.tensors(tokenizer))
        self._rows = torch.from_numpy(index)
        self.described = self._network.describe(self._fields, torch.from_numpy(shared.fields))
        own = self._fields[torch.from_numpy(shared.fields)][None]
        source = torch.from_numpy(shared.source)[None] if len(shared.source) else None
        present = torch.ones(own.shape[:2], dtype=torch.bool)
        self._memory: Memory = self._network.encode(own, present, source)
        self._texts = texts

    def decode(self, asked: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (n, m, BINS + 2) of the metrics (1, m), each given those before; and last states."""
        logits, hidden = [], []
        for start in range(0, len(self._rows), _CHUNK):
            rows = self._rows[start : start + _CHUNK]
            texts, text_of = self._texts.take(start, start + _CHUNK)
            steps: list[Tensor] = []
            previous: Tensor | None = None
            for _ in range(asked.shape[1]):
                now, state = self._network.decode(
                    self._memory,
                    self._fields,
                    rows,
                    asked,
                    previous,
                    texts=texts,
                    text_of=text_of,
                    condition=None if condition is None else condition[start : start + _CHUNK],
                    last=True,
                )
                steps.append(now)
                likely = now.argmax(-1)
                previous = likely if previous is None else torch.cat([previous, likely], dim=1)
            logits.append(torch.cat(steps, dim=1))
            hidden.append(state[:, -1])
        return torch.cat(logits), torch.cat(hidden)

    def scale(self) -> np.ndarray:
        """Probabilities of the tokens of the task's scale."""
        asked = torch.tensor([[self._network.config.metrics.index("scale")]])
        nothing = torch.full((1, 1), -1)
        logits, _ = self._network.decode(self._memory, self._fields, nothing, asked)
        p: np.ndarray = logits[0, 0].softmax(-1).double().numpy()
        return p


def _written(metrics: Sequence[str], metric: str) -> list[str]:
    """The metrics to decode until the one asked for, in the order in which they were learned."""
    if metric not in FACTS or metric not in metrics:
        return ["slowdown"]
    facts = [fact for fact in FACTS if fact in metrics]
    return facts[: facts.index(metric) + 1]


def _decoded(
    logits: Tensor, metric: str, hidden: Tensor, number: NumberScale | None = None
) -> Decoded:
    parts = [_values(some, CODECS[metric]) for some in logits.split(_CHUNK)]
    mean, low, high, p_valid = (np.concatenate(part) for part in zip(*parts, strict=True))
    if number is not None:
        low, high = (mean + number.width * (x - mean) for x in (low, high))
        mean, low, high = (number.symlog_of(x) for x in (mean, low, high))
    return Decoded(
        mean,
        np.maximum(mean - low, _MIN_SPREAD) / _Z90,
        np.maximum(high - mean, _MIN_SPREAD) / _Z90,
        p_valid,
        hidden.double().numpy(),
    )


def _values(logits: Tensor, codec: BinCodec) -> tuple[np.ndarray, ...]:
    """Means, 5 % and 95 % quantiles, and the probabilities of working."""
    p = logits.softmax(-1).double().numpy()
    bins = p[:, SPECIAL:] / np.maximum(p[:, SPECIAL:].sum(1, keepdims=True), 1e-12)
    mean = codec.value_at(bins @ np.arange(codec.bins))
    return mean, *codec.quantiles(bins, (0.05, 0.95)), 1.0 - p[:, FAILED]


def _scale(task: Task, p: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, as the middle half of the distribution has it.

    What the soft targets of training added to its width is taken off again.
    """
    codec = CODECS["scale"]
    bins = p[SPECIAL:] / max(p[SPECIAL:].sum(), 1e-12)
    low, high = (float(x[0]) for x in codec.quantiles(bins[None], (0.25, 0.75)))
    added = _SMOOTHING * (codec.high - codec.low) / (codec.bins - 1)
    variance = ((high - low) / (2 * _Z75)) ** 2 - added**2
    spread = float(np.sqrt(max(variance, _MIN_SCALE_SPREAD**2)))
    return float(bins @ codec.centers) + float(np.log(work_scale(task))), spread
