"""Landscapes as training examples: prompts encoded once, batches drawn as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from autotune_rlm._json import is_drawn
from autotune_rlm.landscapes import Landscape
from autotune_rlm.surrogate.eye import has_facts
from autotune_rlm.surrogate.fields import (
    EncodedTask,
    FieldTable,
    encode_candidates,
    encode_task,
    encode_texts,
)
from autotune_rlm.surrogate.metrics import (
    CODECS,
    FACTS,
    FAILED_BIN,
    UNKNOWN_BIN,
    ErrorScale,
    NumberScale,
    work_scale,
)
from autotune_rlm.surrogate.text import candidate_columns
from autotune_rlm.surrogate.tokenizer import TextTokenizer, padded
from autotune_rlm.training.recipe import Holdout
from autotune_rlm.types import Candidate, Task, canonical_json

__all__ = [
    "Batch",
    "Encoded",
    "Example",
    "Sampler",
    "encode_all",
    "encode_landscape",
    "is_held_out",
]

_LARGE = 200  # candidates above which a landscape is sampled by how good they are
_RENDERED = 0.35  # share of the prompts that are shown in other words
_TOP = 64  # candidates among the best ones of a landscape, at least
_HIDE_NAMES = (
    0.15  # share of the prompts that do not tell the kernel, and of those without the device
)
_BARE = 0.3  # share of the candidates with a text that are shown without their parameters


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoded:
    """n candidates as arrays.

    Attributes:
        index: Their fields, (n, c).
        texts: Tokens of the distinct texts.
        text_of: Which of them each candidate has, (n,); -1 for none. Empty where no text is read.
    """

    index: np.ndarray
    texts: Sequence[np.ndarray] = ()
    text_of: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: Sequence[int]) -> Encoded:
        """Some of the candidates."""
        text_of = self.text_of[list(rows)] if len(self.text_of) else self.text_of
        return Encoded(index=self.index[list(rows)], texts=self.texts, text_of=text_of)


@dataclass(frozen=True, eq=False, kw_only=True)
class Example(Encoded):
    """A landscape ready for training, n candidates.

    Attributes:
        id: The landscape's.
        prompts: The shared part in one or more renderings.
        targets: By metric, fractional bins (n,); -1 where the candidate failed, -2 where unknown.
        scale: Fractional bin of the task's scale; -2 where unknown.
        errors: Values to minimise, (n,); NaN where the candidate failed.
        top: Indices of the best candidates of a large landscape.
        informed: Candidates' fields with the compiler's facts among them, (n, c'); None where these
            are not known.
    """

    id: str
    prompts: tuple[EncodedTask, ...]
    targets: Mapping[str, np.ndarray]
    scale: float
    errors: np.ndarray
    top: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    informed: np.ndarray | None = None


def is_held_out(landscape: Landscape, rule: Holdout) -> bool:
    """Whether the rule keeps the landscape out of training."""
    task = landscape.task
    if task.device.name in rule.devices or task.kernel in rule.kernels:
        return True
    if any(landscape.id.startswith(prefix) for prefix in rule.ids):
        return True
    if rule.shapes <= 0 or not task.problem:
        return False
    sizes = sorted((k, v) for k, v in task.problem.items() if k.lower() in ("m", "n", "k"))
    return len(sizes) == 3 and is_drawn(rule.salt + canonical_json(sizes), rule.shapes)


def encode_landscape(
    landscape: Landscape,
    table: FieldTable,
    tokenizer: TextTokenizer,
    *,
    renderings: Sequence[Task] = (),
    max_source: int = 1024,
    max_text: int = 0,
    number: NumberScale | None = None,
    encoded: Encoded | None = None,
) -> Example | None:
    """Encode a landscape; None where nothing can be learnt of it.

    That is where fewer than two candidates worked, unless there is but one: then its text stands for the
    whole, and what is learnt is its scale. Where the candidates come with the compiler's facts, they are
    encoded with and without these.

    Args:
        landscape: What was recorded.
        table: Collects the fields.
        tokenizer: Of the texts.
        renderings: The same task in other words; drawn a third of the time.
        max_source: Longest source in tokens.
        max_text: Longest text of a candidate in tokens; 0 where texts are not read.
        number: Where the values lie, if they are to be learnt as absolute numbers.
        encoded: Its candidates as they were encoded before; None to encode them here.
    """
    task = landscape.task
    if encoded is None:
        encoded = encode_all(task, landscape.candidates, table, tokenizer, max_text=max_text)
    if number is not None:
        return _numbers(landscape, encoded, table, tokenizer, number, max_source)
    errors = ErrorScale.of(task, landscape.values).to_error(landscape.values)
    worked = np.isfinite(errors)
    if worked.sum() < min(2, len(landscape)):
        return None
    best = float(np.nanmin(errors))
    targets, scale = {}, UNKNOWN_BIN
    if task.metric == "compile_s":  # compiled, never run: shown as the task whose facts it tells
        task = replace(task, metric="time_ms")
    else:
        slowdown = CODECS["slowdown"].position(np.log(np.where(worked, errors, best) / best))
        targets["slowdown"] = np.where(worked, slowdown, FAILED_BIN).astype(np.float32)
        scale = float(CODECS["scale"].position(np.log(np.array([best / work_scale(task)])))[0])
    for name in FACTS:
        facts = [_fact(m.facts, m.compile_s, name) for m in landscape.measurements]
        bins = CODECS[name].position(np.log1p(np.array(facts, dtype=np.float64)))
        if np.isfinite(bins).any():
            targets[name] = np.where(np.isfinite(bins), bins, UNKNOWN_BIN).astype(np.float32)
    prompts = tuple(
        encode_task(t, table, tokenizer, max_source=max_source) for t in (task, *renderings)
    )
    top = np.zeros(0, dtype=np.int64)
    if len(landscape) > _LARGE:
        top = np.argsort(np.where(worked, errors, np.inf))[: max(_TOP, len(landscape) // 20)]
    informed = None
    if has_facts(landscape.candidates):
        columns = candidate_columns(task, landscape.candidates, facts=True)
        informed = encode_candidates(columns, len(landscape), table)
    return Example(
        **vars(encoded),
        id=landscape.id,
        prompts=prompts,
        targets=targets,
        scale=scale,
        errors=errors,
        top=top,
        informed=informed,
    )


def encode_all(
    task: Task,
    candidates: Sequence[Candidate],
    table: FieldTable,
    tokenizer: TextTokenizer,
    *,
    max_text: int = 0,
) -> Encoded:
    """Encode a task's candidates with their texts, where ``max_text`` is above nothing."""
    columns = candidate_columns(task, candidates)
    index = encode_candidates(columns, len(candidates), table)
    if not max_text or not any(c.text for c in candidates):
        return Encoded(index=index)
    texts, text_of = encode_texts(candidates, tokenizer, limit=max_text)
    return Encoded(index=index, texts=texts, text_of=text_of)


def _numbers(
    landscape: Landscape,
    encoded: Encoded,
    table: FieldTable,
    tokenizer: TextTokenizer,
    number: NumberScale,
    max_source: int,
) -> Example | None:
    """A landscape of absolute values; None where there is none."""
    values = landscape.values
    known = np.isfinite(values)
    if not known.any():
        return None
    bins = np.where(known, number.position(np.where(known, values, 0.0)), FAILED_BIN)
    return Example(
        **vars(encoded),
        id=landscape.id,
        prompts=(encode_task(landscape.task, table, tokenizer, max_source=max_source),),
        targets={"number": bins.astype(np.float32)},
        scale=UNKNOWN_BIN,
        errors=np.full(len(landscape), np.nan),
    )


def _fact(facts: Mapping[str, object], compile_s: float | None, name: str) -> float:
    value = facts.get(name) if name != "compile_s" else (compile_s or facts.get("compile_s"))
    if not isinstance(value, (int, float)) or value < 0:
        return np.nan
    return float(value) * (1000.0 if name == "compile_s" else 1.0)


class Batch(NamedTuple):
    """b tasks with g candidates each; absent entries are -1."""

    shared: np.ndarray
    """(b, s) field numbers."""
    source: np.ndarray
    """(b, t) source tokens."""
    candidates: np.ndarray
    """(b, g, c) field numbers."""
    targets: np.ndarray
    """(b, g, m) fractional bins of the metrics asked for; -1 failed, -2 unknown."""
    scale: np.ndarray
    """(b,) fractional bins of the tasks' scales; -2 unknown."""
    texts: np.ndarray | None = None
    """(k, t) tokens of the candidates' distinct texts."""
    text_of: np.ndarray | None = None
    """(b, g) which text each candidate has; -1 for none."""
    described: np.ndarray | None = None
    """(b, k, f) field numbers of other targets that are told."""
    told: np.ndarray | None = None
    """(b, g, k) the tokens of these; -1 unknown."""


class Sampler:
    """Draws batches from a mixture of sources.

    Args:
        sources: By name, examples and share of the batches.
        tasks: Landscapes per batch.
        candidates: Candidates per landscape.
        top: Share of a large landscape's candidates that comes from its best twentieth.
        mined: Share that comes from the rows given to ``mine``, where there are any.
        drop: Rate at which shared fields are hidden.
        uninformed: Rate at which the compiler's facts are hidden.
        seed: Of everything random.
    """

    def __init__(
        self,
        sources: Mapping[str, tuple[Sequence[Example], float]],
        *,
        tasks: int,
        candidates: int,
        top: float = 0.25,
        mined: float = 0.25,
        drop: float = 0.05,
        uninformed: float = 0.5,
        seed: int = 0,
    ) -> None:
        self._uninformed = uninformed
        self._examples = [list(examples) for examples, _ in sources.values()]
        weights = np.array([weight for _, weight in sources.values()], dtype=np.float64)
        self._weights = weights / weights.sum()
        self._tasks, self._candidates, self._drop = tasks, candidates, drop
        self._top, self._share_mined = top, mined
        self._mined: dict[int, np.ndarray] = {}
        self.rng = np.random.default_rng(seed)

    def draw(self, metrics: Sequence[str] = ("slowdown",)) -> Batch:
        """The next batch."""
        rng = self.rng
        kinds = rng.choice(len(self._weights), size=self._tasks, p=self._weights)
        examples = [self._examples[k][rng.integers(len(self._examples[k]))] for k in kinds]
        rows = [self._rows(e) for e in examples]
        prompts = [self._prompt(e) for e in examples]
        examples = [
            replace(e, index=e.informed)
            if e.informed is not None and rng.random() >= self._uninformed
            else e
            for e in examples
        ]
        batch = collate(examples, rows, prompts, metrics, drop=self._drop, rng=rng)
        return bare(batch, rng)

    def draw_large(self) -> tuple[Example, EncodedTask] | None:
        """A large landscape in one of its renderings, by the sources' shares; None where none is."""
        weights = self._weights * [any(map(_is_large, e)) for e in self._examples]
        if self._share_mined <= 0 or not weights.any():
            return None
        kind = self.rng.choice(len(weights), p=weights / weights.sum())
        large = [e for e in self._examples[kind] if _is_large(e)]
        example = large[self.rng.integers(len(large))]
        return example, self._prompt(example)

    def mine(self, example: Example, rows: np.ndarray) -> None:
        """Rows of a large landscape to draw from more often, in place of those given before."""
        self._mined[id(example)] = rows

    def _prompt(self, example: Example) -> EncodedTask:
        """The prompt as recorded, or now and then another rendering."""
        others = len(example.prompts) - 1
        if not others or self.rng.random() > _RENDERED:
            return example.prompts[0]
        return example.prompts[1 + self.rng.integers(others)]

    def _rows(self, example: Example) -> np.ndarray:
        g, n = self._candidates, len(example)
        if n <= _LARGE or not len(example.top):
            rows = self.rng.permutation(n)[:g]
            return np.concatenate([rows, np.full(g - len(rows), -1)])
        best, mined = int(g * self._top), int(g * self._share_mined)
        hard = self._mined.get(id(example), np.zeros(0, dtype=np.int64))
        mined = mined if len(hard) else 0
        return np.concatenate(
            [
                self.rng.choice(example.top, best),
                self.rng.choice(hard, mined) if mined else hard[:0],
                self.rng.integers(n, size=g - best - mined),
            ]
        )


def _is_large(example: Example) -> bool:
    return len(example) > _LARGE and "slowdown" in example.targets


def collate(
    examples: Sequence[Example],
    rows: Sequence[np.ndarray],
    prompts: Sequence[EncodedTask],
    metrics: Sequence[str],
    *,
    drop: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Batch:
    """Put examples into one batch."""
    b, g = len(examples), len(rows[0])
    shared = padded([p.fields for p in prompts])
    index = np.full((b, g, max(e.index.shape[1] for e in examples)), -1, dtype=np.int64)
    targets = np.full((b, g, len(metrics)), UNKNOWN_BIN, dtype=np.float32)
    for i, (example, chosen, prompt) in enumerate(zip(examples, rows, prompts, strict=True)):
        if drop and rng is not None:
            shared[i, : len(prompt.fields)][_hidden(len(prompt.fields), drop, rng)] = -1
        there = chosen >= 0
        index[i, there, : example.index.shape[1]] = example.index[chosen[there]]
        for j, metric in enumerate(metrics):
            if metric in example.targets:
                targets[i, there, j] = example.targets[metric][chosen[there]]
    scale = np.array([e.scale for e in examples])
    source = padded([p.source for p in prompts])
    return Batch(shared, source, index, targets, scale, *collate_texts(examples, rows))


def bare(batch: Batch, rng: np.random.Generator) -> Batch:
    """The batch with some of the candidates that have a text left with nothing else."""
    if batch.text_of is None:
        return batch
    hidden = (batch.text_of >= 0) & (rng.random(batch.text_of.shape) < _BARE)
    return batch._replace(candidates=np.where(hidden[..., None], -1, batch.candidates))


def collate_texts(
    examples: Sequence[Encoded], rows: Sequence[np.ndarray]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The texts of the examples' rows in one array, and which each row has; None where there is none."""
    if not any(len(e.text_of) for e in examples):
        return None, None
    text_of = np.full((len(examples), len(rows[0])), -1, dtype=np.int64)
    tokens: list[np.ndarray] = []
    for i, (example, chosen) in enumerate(zip(examples, rows, strict=True)):
        there = np.flatnonzero(chosen >= 0)
        own = example.text_of[chosen[there]] if len(example.text_of) else text_of[i, there]
        used, inverse = np.unique(own[own >= 0], return_inverse=True)
        text_of[i, there[own >= 0]] = inverse + len(tokens)
        tokens += [example.texts[j] for j in used]
    if not tokens:
        return None, None
    return padded(tokens), text_of


def _hidden(n: int, drop: float, rng: np.random.Generator) -> np.ndarray:
    """Which shared fields to hide; the kernel's and the device's name (0 and 3) more often."""
    hidden = rng.random(n) < drop
    hidden[[0, min(3, n - 1)]] |= rng.random(2) < _HIDE_NAMES
    return hidden
