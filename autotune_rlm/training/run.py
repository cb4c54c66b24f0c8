"""From a recipe to a checkpoint."""

from __future__ import annotations

import logging
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.landscapes.architectures import is_reserved, read_architectures
from autotune_rlm.landscapes.programs import is_reserved_program, program_landscapes
from autotune_rlm.landscapes.regression import read_regression_table
from autotune_rlm.store import Store
from autotune_rlm.surrogate.backbone import BackboneReader, backbone_tokenizer
from autotune_rlm.surrogate.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from autotune_rlm.surrogate.fields import FieldTable
from autotune_rlm.surrogate.known import SEVERAL, together, trained_on
from autotune_rlm.surrogate.metrics import BINS, NumberScale
from autotune_rlm.surrogate.network import FieldTensors, Network
from autotune_rlm.surrogate.text import candidate_columns, shared_fields
from autotune_rlm.surrogate.tokenizer import TextTokenizer
from autotune_rlm.training.examples import (
    Encoded,
    Example,
    encode_all,
    encode_landscape,
    is_held_out,
)
from autotune_rlm.training.facts_table import FactsTable
from autotune_rlm.training.prompts import live_renderings
from autotune_rlm.training.recipe import Recipe, Source
from autotune_rlm.training.sequences import (
    MAX_TARGETS,
    SequenceExample,
    distinct_candidates,
    encode_sequence,
)
from autotune_rlm.training.trainer import train_network
from autotune_rlm.types import Task

__all__ = ["TrainingData", "grow", "load_data", "read_source", "run_recipe"]

logger = logging.getLogger(__name__)


_SHARED = ("architectures", "programs")
"""Formats whose landscapes rate the same candidates."""


@dataclass
class TrainingData:
    """The encoded mixture.

    Attributes:
        sources: Examples and share by source.
        table: The fields as they were collected.
        tokenizer: Of all texts.
        sequences: Tables of networks whose targets are written one after the other, with their shares.
        held_out: The landscapes that are not trained on.
        settings: What the checkpoint says of its training, see ``known.trained_on``.
        names: Of the sources, in order.
    """

    sources: dict[str, tuple[list[Example], float]]
    table: FieldTable
    tokenizer: TextTokenizer
    sequences: list[tuple[SequenceExample, float]] = field(default_factory=list)
    held_out: list[Landscape] = field(default_factory=list)
    settings: dict[str, Any] = field(
        default_factory=lambda: {**trained_on([]), "texts": [], "numbers": {}, "facts": False}
    )
    names: list[str] = field(default_factory=list)

    def reads(self, task: Task) -> None:
        """Keep that candidates' texts are read in tasks of this language and metric."""
        pair = [task.language, task.metric]
        if pair not in self.settings["texts"]:
            self.settings["texts"] = sorted([*self.settings["texts"], pair])

    @cached_property
    def fields(self) -> FieldTensors:
        """All distinct fields."""
        return self.table.tensors(self.tokenizer)


def read_source(source: Source, root: Path) -> list[Landscape]:
    """The landscapes of one source.

    Raises:
        ValueError: The format is unknown, or the file is malformed.
    """
    path = root / source.path
    if source.format == "landscapes":
        return read_landscapes(path)
    if source.format == "regression":
        return read_regression_table(path, **source.options)
    if source.format == "store":
        with Store(source.path if "://" in source.path else path, read_only=True) as store:
            return store.landscapes()
    if source.format == "architectures":
        table = read_architectures(path)
        kept = [i for i, c in enumerate(table.configs) if not is_reserved(c, source.reserve)]
        options = dict(source.options)
        table = table.take(kept[: options.pop("limit", len(kept))])
        return table.landscapes(**options, texts=source.texts)
    if source.format == "programs":
        recorded = read_landscapes(path)
        kept_programs = [x for x in recorded if not is_reserved_program(x.task, source.reserve)]
        return program_landscapes(kept_programs, **source.options)
    known = ("landscapes", "regression", "store", "architectures", "programs")
    raise ValueError(f"format of {source.path!r} must be one of {known}, got {source.format!r}")


def load_data(
    recipe: Recipe,
    tokenizer: TextTokenizer | None = None,
    numbers: Mapping[str, Mapping[str, Any]] | None = None,
) -> TrainingData:
    """Read and encode all sources of a recipe.

    Args:
        recipe: What to read.
        tokenizer: Of the texts; None for the recipe's, or a new one where it has none.
        numbers: Where the absolute values of metrics lie, by metric, as a checkpoint has it that is
            gone on from.
    """
    landscapes = [read_source(s, Path(recipe.root)) for s in recipe.sources]
    if tokenizer is None and recipe.tokenizer:
        tokenizer = TextTokenizer.load(recipe.tokenizer)
    if tokenizer is None:
        everything = (x for found in landscapes for x in found)
        tokenizer = TextTokenizer.train(training_texts(everything))
    if recipe.backbone is not None:
        tokenizer.of_texts = backbone_tokenizer(recipe.backbone)
    table = FieldTable()
    data = TrainingData({}, table, tokenizer)
    data.settings["numbers"] = dict(numbers or {})
    for i, source in enumerate(recipe.sources):
        found, landscapes[i] = landscapes[i], []
        data.held_out += [x for x in found if is_held_out(x, recipe.holdout)]
        kept = [x for x in found if not is_held_out(x, recipe.holdout)]
        name = source.path if source.path not in data.names else f"{source.path} ({i})"
        data.names.append(name)
        if source.sequence:
            data.sequences += _sequences(name, kept, source, recipe, data)
        else:
            data.sources[name] = _examples(kept, source, recipe, data)
        rated = [] if source.numbers else kept  # absolute numbers say nothing of kernels or devices
        data.settings = together(data.settings, {**trained_on(rated), "texts": []})
        logger.info("%s: %d landscapes to train on", source.path, len(kept))
    return data


def _examples(
    landscapes: Sequence[Landscape], source: Source, recipe: Recipe, data: TrainingData
) -> tuple[list[Example], float]:
    """A source's examples and its weight."""
    sizes = recipe.network_config()
    most = sizes.max_text if source.texts else 0
    facts = FactsTable.load(source.facts) if source.facts else None
    scales = _scales(landscapes, data.settings["numbers"]) if source.numbers else {}
    shared = _encoded(landscapes, data, most) if source.format in _SHARED else {}
    examples = []
    for one in landscapes:
        if facts is not None:
            one = replace(
                one, candidates=tuple(facts.candidate(one.task, c) for c in one.candidates)
            )
        example = encode_landscape(
            one,
            data.table,
            data.tokenizer,
            renderings=live_renderings(one.task) if source.live else (),
            max_source=sizes.max_source,
            max_text=most,
            number=scales.get(one.task.metric),
            encoded=shared.get(one.id),
        )
        if example is not None:
            examples.append(example)
            data.settings["facts"] |= example.informed is not None
            if len(example.text_of):
                data.reads(one.task)
    weight = source.weight
    if weight is None:
        weight = sum(map(len, examples)) ** recipe.temperature
    return examples, weight


def _scales(
    landscapes: Sequence[Landscape], known: dict[str, Mapping[str, Any]]
) -> dict[str, NumberScale]:
    """Where the values of each metric lie; new ones are added to those known."""
    for metric in {x.task.metric for x in landscapes}.difference(known):
        values = [x.values for x in landscapes if x.task.metric == metric]
        known[metric] = asdict(NumberScale.of(np.concatenate(values)))
    return {metric: NumberScale(**scale) for metric, scale in known.items()}


def _alike(
    landscapes: Sequence[Landscape], data: TrainingData, max_text: int
) -> Iterator[tuple[list[Landscape], Encoded]]:
    """Landscapes of the same candidates, with these, which are encoded once."""
    for kernel in dict.fromkeys(x.task.kernel for x in landscapes):
        alike = [x for x in landscapes if x.task.kernel == kernel]
        candidates = distinct_candidates(alike)
        yield (
            alike,
            encode_all(alike[0].task, candidates, data.table, data.tokenizer, max_text=max_text),
        )


def _encoded(
    landscapes: Sequence[Landscape], data: TrainingData, max_text: int
) -> dict[str, Encoded]:
    """The candidates of each landscape by its id."""
    found: dict[str, Encoded] = {}
    for alike, whole in _alike(landscapes, data, max_text):
        place = {id(c): i for i, c in enumerate(distinct_candidates(alike))}
        for one in alike:
            found[one.id] = whole.take([place[id(c)] for c in one.candidates])
    return found


def _sequences(
    name: str,
    landscapes: Sequence[Landscape],
    source: Source,
    recipe: Recipe,
    data: TrainingData,
) -> list[tuple[SequenceExample, float]]:
    """A table of networks as examples of several targets, one for each wording of the networks."""
    most = recipe.network_config().max_text if source.texts else 0
    data.settings["sequences"] = MAX_TARGETS
    examples = []
    for alike, encoded in _alike(landscapes, data, most):
        if most:
            data.reads(replace(alike[0].task, metric=SEVERAL))
        examples.append(encode_sequence(name, alike, data.table, data.tokenizer, encoded))
    return [(example, (source.weight or 1.0) / len(examples)) for example in examples]


def training_texts(landscapes: Iterable[Landscape]) -> Iterable[str]:
    """What the tokenizer is trained on: Python programs, and the landscapes' names and values."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.glob("*.py")) + sorted(Path(__file__).parents[1].rglob("*.py")):
        yield path.read_text(errors="replace")
    words: set[str] = set()
    for landscape in landscapes:
        for name, value in shared_fields(landscape.task):
            words.update([name] if isinstance(value, float) else [name, value])
        words.update(candidate_columns(landscape.task, landscape.candidates[:1]))
        for rendering in live_renderings(landscape.task):
            words.update(f.name for f in shared_fields(rendering))
    for word in sorted(words):
        yield from [word] * 200


def run_recipe(
    path: str | Path,
    *,
    out: str | Path,
    data: str | Path | None = None,
    start: str | Path | Sequence[str | Path] = (),
    device: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    progress: bool = True,
) -> Path:
    """Train a surrogate from a recipe file and save it.

    Args:
        path: Recipe in YAML.
        out: Folder of the checkpoint; ``out/training`` keeps what resuming needs.
        data: Folder that the sources' paths start from, in place of the recipe's.
        start: Checkpoints whose weights to go on from, the first with its tokenizer; the others, which
            must have the same, give those parts of the network that the ones before do not have.
        device: ``"cpu"`` or None for what accelerate finds.
        minutes: In place of the recipe's.
        steps: In place of the recipe's.
        progress: Whether to show how far it is.

    Under ``accelerate launch`` with several processes each draws batches of its own, and the main one
    writes.

    Returns:
        The checkpoint's folder.
    """
    recipe = Recipe.load(path)
    given: dict[str, Any] = {
        "minutes": minutes,
        "steps": steps,
        "root": None if data is None else str(data),
    }
    recipe = replace(recipe, **{k: v for k, v in given.items() if v is not None})
    begun = [load_checkpoint(s) for s in ([start] if isinstance(start, (str, Path)) else start)]
    before = _settings(begun)
    loaded = load_data(recipe, begun[0].tokenizer if begun else None, before["numbers"])
    torch.manual_seed(recipe.seed)
    config = recipe.network_config(vocab_size=len(loaded.tokenizer), number_vocab=BINS + 2)
    network = Network(config)
    if recipe.backbone is not None and isinstance(network.text, BackboneReader):
        network.text.read(recipe.backbone)
    for checkpoint in reversed(begun):
        grow(network, checkpoint.network)
    Path(out, "training").mkdir(parents=True, exist_ok=True)
    loaded.tokenizer.save(Path(out, "training", "tokenizer.json"))
    parameters = sum(p.numel() for p in network.parameters())
    logger.info("%.2f M parameters, %d fields", parameters / 1e6, len(loaded.fields.name))
    state = train_network(
        network,
        loaded.fields,
        loaded.sources,
        recipe,
        folder=Path(out) / "training",
        device=device,
        progress=progress,
        sequences=loaded.sequences,
    )
    if not state.is_main:
        return Path(out)
    return save_checkpoint(
        out,
        state.averaged.cpu(),
        loaded.tokenizer,
        name=recipe.name,
        settings=together(before, loaded.settings) if begun else loaded.settings,
        eye=begun[0].eye if begun else None,
        program_eye=begun[0].program_eye if begun else None,
    )


def _settings(begun: Sequence[Checkpoint]) -> dict[str, Any]:
    """What checkpoints that are gone on from say of their training, the first before the others."""
    merged: dict[str, Any] = {}
    for checkpoint in begun:
        settings = {"texts": [], "numbers": {}, **checkpoint.settings}
        merged = together(merged, settings) if merged else settings
    return merged or {"texts": [], "numbers": {}}


def grow(network: Network, smaller: Network) -> None:
    """Put the weights of a network into one that has all of its parts and perhaps more.

    Raises:
        ValueError: A part of it is of another size there.
    """
    own = network.state_dict()
    for name, weight in smaller.state_dict().items():
        if (
            name not in own
            or own[name].shape[1:] != weight.shape[1:]
            or len(own[name]) < len(weight)
        ):
            there = tuple(own[name].shape) if name in own else "nothing"
            raise ValueError(
                f"start: the checkpoint's {name} of {tuple(weight.shape)} does not fit into the recipe's "
                f"network, which has {there}; give the recipe the checkpoint's network.* sizes"
            )
        own[name][: len(weight)] = weight
    names, theirs = list(network.config.metrics), list(smaller.config.metrics)
    if names[: len(theirs)] != theirs:
        raise ValueError(
            f"start: network.metrics must begin with the checkpoint's {theirs}, got {names}"
        )
    network.load_state_dict(own)
