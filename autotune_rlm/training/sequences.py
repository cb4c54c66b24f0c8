"""Several targets of one network, written one after the other: accuracy, then latency on each device.

A table of networks gives one example for all of its columns. The task's part of the prompt says what
kind of networks they are; metric, device and data describe each target by itself ("Regression Language
Models for Code", arXiv 2509.26476, figure 6, has the same order).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from autotune_rlm.landscapes import Landscape
from autotune_rlm.surrogate.fields import EncodedTask, FieldTable, encode_candidates, encode_task
from autotune_rlm.surrogate.metrics import CODECS, ErrorScale, work_scale
from autotune_rlm.surrogate.text import shared_task, target_fields
from autotune_rlm.surrogate.tokenizer import TextTokenizer
from autotune_rlm.training.examples import Batch, Encoded, bare, collate_texts
from autotune_rlm.types import Candidate

__all__ = ["SequenceExample", "SequenceSampler", "distinct_candidates", "encode_sequence"]

_NEVER, _FAILED = -2.0, -1.0
_ACCURACY_FIRST = 0.8


@dataclass(frozen=True, eq=False)
class SequenceExample:
    """n networks with k targets.

    Attributes:
        id: Of the table.
        prompt: The shared part.
        index: Candidates' fields, (n, c).
        described: Fields of each target, k arrays.
        targets: Fractional bins of the slow-downs, (n, k); -2 where not measured.
        scale: Fractional bins of the targets' scales, (k,).
        leading: Which targets are accuracies, (k,).
        texts: Tokens of the candidates' distinct texts.
        text_of: Which of them each candidate has, (n,); empty where no text is read.
    """

    id: str
    prompt: EncodedTask
    index: np.ndarray
    described: tuple[np.ndarray, ...]
    targets: np.ndarray
    scale: np.ndarray
    leading: np.ndarray
    texts: Sequence[np.ndarray] = ()
    text_of: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.index)


def encode_sequence(
    name: str,
    landscapes: Sequence[Landscape],
    table: FieldTable,
    tokenizer: TextTokenizer,
    *,
    encoded: Encoded | None = None,
) -> SequenceExample:
    """One example of landscapes that rate the same networks.

    Args:
        name: Of the table.
        landscapes: One for each target.
        table: Collects the fields.
        tokenizer: Of the texts.
        encoded: The networks in the order of ``distinct_candidates`` as they were encoded before; None
            to encode them here, without their texts.
    """
    candidates = distinct_candidates(landscapes)
    place = {id(c): i for i, c in enumerate(candidates)}
    targets = np.full((len(candidates), len(landscapes)), _NEVER, dtype=np.float32)
    scale = np.full(len(landscapes), _NEVER)
    for j, landscape in enumerate(landscapes):
        errors = ErrorScale.of(landscape.task, landscape.values).to_error(landscape.values)
        worked = np.isfinite(errors)
        best = float(np.nanmin(errors))
        bins = CODECS["slowdown"].position(np.log(np.where(worked, errors, best) / best))
        rows = [place[id(c)] for c in landscape.candidates]
        targets[rows, j] = np.where(worked, bins, _FAILED)
        logs = np.log(np.array([best / work_scale(landscape.task)]))
        scale[j] = CODECS["scale"].position(logs)[0]
    tasks = [x.task for x in landscapes]
    shared = shared_task(tasks)
    described = [[table.add(f) for f in target_fields(t)] for t in tasks]
    if encoded is None:
        nothing = np.zeros(0, dtype=np.int64)
        encoded = Encoded(encode_candidates(shared, candidates, table)[0], (), nothing)
    return SequenceExample(
        name,
        encode_task(shared, table, tokenizer, max_source=0),
        encoded.index,
        tuple(np.array(d, dtype=np.int64) for d in described),
        targets,
        scale,
        np.array([t.metric.startswith("accuracy") for t in tasks]),
        encoded.texts,
        encoded.text_of,
    )


def distinct_candidates(landscapes: Sequence[Landscape]) -> list[Candidate]:
    """The candidates of landscapes that share them, each once, in the order in which they come."""
    return list({id(c): c for x in landscapes for c in x.candidates}.values())


class SequenceSampler:
    """Draws batches of several targets.

    Args:
        examples: Tables with their weights.
        tables: Tables of a batch.
        candidates: Networks of each.
        targets: Targets of each.
        drop: Rate at which a network's text is hidden.
        seed: Seed.
    """

    def __init__(
        self,
        examples: Sequence[tuple[SequenceExample, float]],
        *,
        tables: int,
        candidates: int,
        targets: int,
        drop: float = 0.5,
        seed: int = 0,
    ) -> None:
        self._examples = [e for e, _ in examples]
        weights = np.array([w for _, w in examples])
        self._weights = weights / weights.sum()
        self._tables, self._candidates, self._targets = tables, candidates, targets
        self._drop = drop
        self.rng = np.random.default_rng(seed)

    def draw(self) -> Batch:
        """The next batch."""
        rng = self.rng
        chosen = rng.choice(len(self._examples), size=self._tables, p=self._weights)
        examples = [self._examples[i] for i in chosen]
        rows = [rng.choice(len(e), min(self._candidates, len(e)), replace=False) for e in examples]
        columns = [self._columns(e) for e in examples]
        shown = [e if rng.random() >= self._drop else _without_text(e) for e in examples]
        return bare(collate_sequences(shown, rows, columns), rng)

    def _columns(self, example: SequenceExample) -> np.ndarray:
        order = self.rng.permutation(len(example.described))
        leading = order[example.leading[order]]
        if len(leading) and self.rng.random() < _ACCURACY_FIRST:
            order = np.concatenate([leading[:1], order[order != leading[0]]])
        return order[: self._targets]


def _without_text(example: SequenceExample) -> SequenceExample:
    return replace(example, texts=(), text_of=np.zeros(0, dtype=np.int64))


def collate_sequences(
    examples: Sequence[SequenceExample],
    rows: Sequence[np.ndarray],
    columns: Sequence[np.ndarray],
) -> Batch:
    """Put rows of examples into one batch, with the targets at ``columns``, in this order."""
    b, g, m = len(examples), max(map(len, rows)), max(map(len, columns))
    shared = np.full((b, max(len(e.prompt.fields) for e in examples)), -1, dtype=np.int64)
    index = np.full((b, g, max(e.index.shape[1] for e in examples)), -1, dtype=np.int64)
    targets = np.full((b, g, m), _NEVER, dtype=np.float32)
    scale = np.full((b, m), _NEVER)
    longest = max(len(d) for e in examples for d in e.described)
    described = np.full((b, m, longest), -1, dtype=np.int64)
    padded = [np.concatenate([r, np.full(g - len(r), -1)]) for r in rows]
    for i, (e, chosen, which) in enumerate(zip(examples, rows, columns, strict=True)):
        shared[i, : len(e.prompt.fields)] = e.prompt.fields
        index[i, : len(chosen), : e.index.shape[1]] = e.index[chosen]
        targets[i, : len(chosen), : len(which)] = e.targets[chosen][:, which]
        scale[i, : len(which)] = e.scale[which]
        for j, column in enumerate(which):
            described[i, j, : len(e.described[column])] = e.described[column]
    nothing = np.zeros((b, 0), dtype=np.int64)
    texts, text_of = collate_texts(examples, padded)
    return Batch(shared, nothing, index, targets, scale, texts, text_of, described)
