"""Several targets of one network, written one after the other: accuracy, then latency on each device.

A table of networks gives one example for all of its columns. Each target is asked as it is alone, and
told the values of some of the others ("Regression Language Models for Code", arXiv 2509.26476, figure 6,
writes accuracy and then latencies).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune_rlm.landscapes import Landscape
from autotune_rlm.surrogate.codec import FAILED, SPECIAL
from autotune_rlm.surrogate.fields import EncodedTask, FieldTable, encode_task
from autotune_rlm.surrogate.metrics import CODECS, FAILED_BIN, UNKNOWN_BIN, ErrorScale, work_scale
from autotune_rlm.surrogate.tokenizer import TextTokenizer, padded
from autotune_rlm.training.examples import Batch, Encoded, bare, collate_texts
from autotune_rlm.types import Candidate

__all__ = [
    "MAX_TARGETS",
    "SequenceExample",
    "SequenceSampler",
    "distinct_candidates",
    "encode_sequence",
]

MAX_TARGETS = 8
_ACCURACY_FIRST = 0.8  # share of the sequences that begin with one, as the paper writes them


@dataclass(frozen=True, eq=False, kw_only=True)
class SequenceExample(Encoded):
    """n networks with k targets.

    Attributes:
        id: Of the table.
        prompts: The shared part of each target, k.
        targets: Fractional bins of the slow-downs, (n, k); -2 where not measured.
        scale: Fractional bins of the targets' scales, (k,).
        leading: Which targets are accuracies, (k,).
    """

    id: str
    prompts: tuple[EncodedTask, ...]
    targets: np.ndarray
    scale: np.ndarray
    leading: np.ndarray


def encode_sequence(
    name: str,
    landscapes: Sequence[Landscape],
    table: FieldTable,
    tokenizer: TextTokenizer,
    encoded: Encoded,
) -> SequenceExample:
    """One example of landscapes, one for each target, that rate the same networks.

    ``encoded`` are the networks in the order of ``distinct_candidates``.
    """
    place = {id(c): i for i, c in enumerate(distinct_candidates(landscapes))}
    targets = np.full((len(place), len(landscapes)), UNKNOWN_BIN, dtype=np.float32)
    scale = np.full(len(landscapes), UNKNOWN_BIN)
    for j, landscape in enumerate(landscapes):
        errors = ErrorScale.of(landscape.task, landscape.values).to_error(landscape.values)
        worked = np.isfinite(errors)
        best = float(np.nanmin(errors))
        bins = CODECS["slowdown"].position(np.log(np.where(worked, errors, best) / best))
        rows = [place[id(c)] for c in landscape.candidates]
        targets[rows, j] = np.where(worked, bins, FAILED_BIN)
        logs = np.log(np.array([best / work_scale(landscape.task)]))
        scale[j] = CODECS["scale"].position(logs)[0]
    return SequenceExample(
        **vars(encoded),
        id=name,
        prompts=tuple(encode_task(x.task, table, tokenizer, max_source=0) for x in landscapes),
        targets=targets,
        scale=scale,
        leading=np.array([x.task.metric.startswith("accuracy") for x in landscapes]),
    )


def distinct_candidates(landscapes: Sequence[Landscape]) -> list[Candidate]:
    """The candidates of landscapes that share them, each once, in the order in which they come."""
    return list({id(c): c for x in landscapes for c in x.candidates}.values())


class SequenceSampler:
    """Draws batches of so many targets, of so many candidates each, that are told others.

    ``drop`` is the rate at which the networks' texts are hidden.
    """

    def __init__(
        self,
        examples: Sequence[tuple[SequenceExample, float]],
        *,
        tasks: int,
        candidates: int,
        drop: float = 0.5,
        seed: int = 0,
    ) -> None:
        self._examples = [e for e, _ in examples]
        weights = np.array([w for _, w in examples])
        self._weights = weights / weights.sum()
        self._tasks, self._candidates, self._drop = tasks, candidates, drop
        self.rng = np.random.default_rng(seed)

    def draw(self, metrics: Sequence[str] = ("slowdown",)) -> Batch:
        """The next batch; slow-downs are all that tables of networks have."""
        rng = self.rng
        chosen = rng.choice(len(self._examples), size=self._tasks, p=self._weights)
        examples = [self._examples[i] for i in chosen]
        rows = [
            rng.choice(len(e), self._candidates, replace=len(e) < self._candidates)
            for e in examples
        ]
        columns = [self._columns(e) for e in examples]
        shown = [e if rng.random() >= self._drop else _without_text(e) for e in examples]
        return bare(collate_sequences(shown, rows, columns), rng)

    def _columns(self, example: SequenceExample) -> np.ndarray:
        """The targets that are told, mostly an accuracy first, and last the one that is asked."""
        order = self.rng.permutation(len(example.prompts))
        leading = order[example.leading[order]]
        if len(leading) and self.rng.random() < _ACCURACY_FIRST:
            order = np.concatenate([leading[:1], order[order != leading[0]]])
        return order[: 1 + self.rng.integers(min(MAX_TARGETS, len(order)))]


def _without_text(example: SequenceExample) -> SequenceExample:
    return replace(example, texts=(), text_of=np.zeros(0, dtype=np.int64))


def collate_sequences(
    examples: Sequence[SequenceExample],
    rows: Sequence[np.ndarray],
    columns: Sequence[np.ndarray],
) -> Batch:
    """Put rows of examples into one batch: of ``columns`` the last is asked, the others are told."""
    b, g, most = len(examples), len(rows[0]), max(map(len, columns)) - 1
    asked = [e.prompts[c[-1]].fields for e, c in zip(examples, columns, strict=True)]
    shared = padded(asked)
    index = np.full((b, g, max(e.index.shape[1] for e in examples)), -1, dtype=np.int64)
    targets = np.full((b, g, 1), UNKNOWN_BIN, dtype=np.float32)
    scale = np.full(b, UNKNOWN_BIN)
    longest = max(len(p.fields) for e in examples for p in e.prompts)
    described = np.full((b, most, longest), -1, dtype=np.int64)
    told = np.full((b, g, most), -1, dtype=np.int64)
    for i, (e, chosen, which) in enumerate(zip(examples, rows, columns, strict=True)):
        index[i, :, : e.index.shape[1]] = e.index[chosen]
        targets[i, :, 0] = e.targets[chosen, which[-1]]
        scale[i] = e.scale[which[-1]]
        for j, column in enumerate(which[:-1]):
            fields = e.prompts[column].fields
            described[i, j, : len(fields)] = fields
            bins = e.targets[chosen, column]
            tokens = np.where(bins < 0, FAILED, np.round(bins) + SPECIAL).astype(np.int64)
            told[i, :, j] = np.where(bins <= UNKNOWN_BIN, -1, tokens)
    nothing = np.zeros((b, 0), dtype=np.int64)
    return Batch(
        shared, nothing, index, targets, scale, *collate_texts(examples, rows), described, told
    )
