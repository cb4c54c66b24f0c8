"""From a recipe to a checkpoint."""

from __future__ import annotations

import dataclasses
import logging
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.landscapes.architectures import is_reserved, read_architectures
from autotune_rlm.landscapes.regression import read_regression_table
from autotune_rlm.store import Store
from autotune_rlm.surrogate.checkpoint import load_checkpoint, save_checkpoint
from autotune_rlm.surrogate.fields import FieldTable
from autotune_rlm.surrogate.known import together, trained_on
from autotune_rlm.surrogate.metrics import BINS
from autotune_rlm.surrogate.network import FieldTensors, Network
from autotune_rlm.surrogate.text import candidate_columns, shared_fields
from autotune_rlm.surrogate.tokenizer import TextTokenizer
from autotune_rlm.training.examples import Example, encode_landscape, is_held_out
from autotune_rlm.training.prompts import live_renderings
from autotune_rlm.training.recipe import Recipe, Source
from autotune_rlm.training.trainer import train_network

__all__ = ["TrainingData", "load_data", "read_source", "run_recipe"]

logger = logging.getLogger(__name__)


@dataclass
class TrainingData:
    """The encoded mixture.

    Attributes:
        sources: Examples and share by source.
        fields: All distinct fields.
        held_out: The landscapes that are not trained on.
        tokenizer: Of all texts.
        settings: What the checkpoint says of its training, see ``known.trained_on``.
        table: The fields as they were collected.
    """

    sources: dict[str, tuple[list[Example], float]]
    fields: FieldTensors
    held_out: list[Landscape]
    tokenizer: TextTokenizer
    settings: dict[str, Any]
    table: FieldTable


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
        return table.take(kept).landscapes(**source.options)
    known = ("landscapes", "regression", "store", "architectures")
    raise ValueError(f"format of {source.path!r} must be one of {known}, got {source.format!r}")


def load_data(recipe: Recipe, tokenizer: TextTokenizer | None = None) -> TrainingData:
    """Read and encode all sources of a recipe; trains the tokenizer where there is none."""
    landscapes = [read_source(s, Path(recipe.root)) for s in recipe.sources]
    if tokenizer is None and recipe.tokenizer:
        tokenizer = TextTokenizer.load(recipe.tokenizer)
    if tokenizer is None:
        everything = (x for found in landscapes for x in found)
        tokenizer = TextTokenizer.train(training_texts(everything))
    table = FieldTable()
    sources: dict[str, tuple[list[Example], float]] = {}
    held_out: list[Landscape] = []
    settings = trained_on([])
    limit = recipe.network_config().max_source
    for i, source in enumerate(recipe.sources):
        examples: list[Example] = []
        trained: list[Landscape] = []
        found, landscapes[i] = landscapes[i], []
        for landscape in found:
            if is_held_out(landscape, recipe.holdout):
                held_out.append(landscape)
                continue
            renderings = live_renderings(landscape.task) if source.live else ()
            example = encode_landscape(
                landscape, table, tokenizer, renderings=renderings, max_source=limit
            )
            if example is not None:
                examples.append(example)
                trained.append(landscape)
        settings = together(settings, trained_on(trained))
        weight = source.weight
        if weight is None:
            weight = sum(map(len, examples)) ** recipe.temperature
        name = source.path if source.path not in sources else f"{source.path} ({i})"
        sources[name] = (examples, weight)
        logger.info("%s: %d landscapes to train on", source.path, len(examples))
    return TrainingData(sources, table.tensors(tokenizer), held_out, tokenizer, settings, table)


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
    start: str | Path | None = None,
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
        start: Checkpoint whose tokenizer and weights to go on from.
        device: ``"cpu"`` or None for what accelerate finds.
        minutes: In place of the recipe's.
        steps: In place of the recipe's.
        progress: Whether to show a progress bar; without it the loss is logged now and then.

    Under ``accelerate launch`` with several processes each draws batches of its own, and the main one
    writes.

    Returns:
        The checkpoint's folder.
    """
    recipe = Recipe.load(path)
    if minutes is not None:
        recipe = dataclasses.replace(recipe, minutes=minutes)
    if steps is not None:
        recipe = dataclasses.replace(recipe, steps=steps)
    if data is not None:
        recipe = dataclasses.replace(recipe, root=str(data))
    begun = load_checkpoint(start) if start is not None else None
    loaded = load_data(recipe, begun.tokenizer if begun else None)
    torch.manual_seed(recipe.seed)
    config = recipe.network_config(vocab_size=len(loaded.tokenizer), number_vocab=BINS + 2)
    network = begun.network.requires_grad_(True).train() if begun else Network(config)
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
        on_step=None if progress else _log_step,
        progress=progress,
    )
    if not state.is_main:
        return Path(out)
    return save_checkpoint(
        out,
        state.averaged.cpu(),
        loaded.tokenizer,
        name=recipe.name,
        settings=together(begun.settings, loaded.settings) if begun else loaded.settings,
    )


def _log_step(step: int, loss: float) -> None:
    if step % 100 == 0:
        logger.info("step %d loss %.4f", step, loss)
