"""Slow learning: fine-tuning of the weights on what the store holds, accepted only if it helps.

A round trains a copy of the network on recent landscapes mixed with a replay sample, pulled towards
the weights it started from (L2-SP, Li et al. 2018, arXiv 1802.01483), and compares both on landscapes
that neither was trained on in the round. The new weights are kept only where held-out rank accuracy has
not become worse. Every accepted version stays on disk, so that any can be gone back to.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from scipy.stats import spearmanr

from autotune_rlm._checks import check_all, check_number, check_path, check_type
from autotune_rlm._files import replacing
from autotune_rlm._private import private_folder
from autotune_rlm.landscapes import Landscape
from autotune_rlm.store import Store, read_rounds, weights_folder, weights_version
from autotune_rlm.surrogate.checkpoint import Checkpoint, load_checkpoint
from autotune_rlm.surrogate.fields import FieldTable
from autotune_rlm.surrogate.known import together, trained_on
from autotune_rlm.surrogate.rlm import RLMSurrogate
from autotune_rlm.training.examples import Sampler, encode_landscape
from autotune_rlm.training.loss import batch_loss

__all__ = ["FineTuneOptions", "FineTuneRound", "Versions", "fine_tune", "rank_accuracy"]

logger = logging.getLogger(__name__)
_TOLERANCE = 0.005
_TASKS, _CANDIDATES = 8, 32  # of a batch
_WARMUP = 10  # steps
_SMOOTHING = 1.5  # bins, as in training
_RANKED = 3  # working candidates from which an order is judged


@dataclass(frozen=True, kw_only=True)
class FineTuneOptions:
    """How a round is run.

    Attributes:
        steps: Optimiser steps at most.
        seconds: Wall-clock limit of the training.
        lr: Learning rate.
        pull: Strength of the pull towards the weights at the start.
        replay: Share of the batches drawn from the replay landscapes.
        held_out: Share of the landscapes (or, of a single one, of its candidates) to judge by.
        seed: Of everything random.
    """

    steps: int = 60
    seconds: float = 45.0
    lr: float = 2e-4
    pull: float = 1e-3
    replay: float = 0.5
    held_out: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("steps", self.steps, least=1, whole=True)
        check_number("seconds", self.seconds, above=0)
        check_number("lr", self.lr, above=0)
        for name in ("pull", "replay"):
            check_number(name, getattr(self, name), least=0, most=1)
        check_number("held_out", self.held_out, above=0, below=1)


@dataclass(frozen=True, kw_only=True)
class FineTuneRound:
    """What a round did; JSON-able through ``to_json``.

    Attributes:
        accepted: Whether the new weights were kept. Where no landscape has three working candidates
            (tables of single texts), that is whether the error of the numbers became smaller.
        before: Held-out rank accuracy (mean Spearman) before.
        after: The same after.
        replay_before: On the replay landscapes before; None where there are none.
        replay_after: The same after.
        measurements: Number of measurements trained on.
        seconds: Wall-clock seconds of the round.
        when: Time in UTC, ISO format.
        version: Version number of the accepted weights; None where they were not saved.
    """

    accepted: bool
    before: float
    after: float
    replay_before: float | None
    replay_after: float | None
    measurements: int
    seconds: float
    when: str
    version: int | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return dataclasses.asdict(self)


def rank_accuracy(surrogate: RLMSurrogate, landscapes: Sequence[Landscape]) -> float:
    """Mean zero-shot Spearman correlation over landscapes with at least three working candidates.

    Returns:
        Within [-1, 1]; 0 where no landscape can be judged.
    """
    found = []
    for landscape in landscapes:
        if landscape.ok.sum() < _RANKED:
            continue
        predicted = surrogate.predict(landscape.task, landscape.candidates).median[landscape.ok]
        rho = spearmanr(predicted, landscape.values[landscape.ok]).statistic
        found.append(0.0 if not np.isfinite(rho) else float(rho))
    return float(np.mean(found)) if found else 0.0


def log_error(surrogate: RLMSurrogate, landscapes: Sequence[Landscape]) -> float:
    """Median absolute error of the logarithms of all working values, nothing measured.

    Returns:
        At least 0; infinity where there is no positive value to compare.
    """
    off: list[float] = []
    for landscape in landscapes:
        ok = landscape.ok & (landscape.values > 0)
        if ok.any():
            predicted = surrogate.predict(landscape.task, landscape.candidates).median[ok]
            off += np.abs(np.log(np.maximum(predicted, 1e-300) / landscape.values[ok])).tolist()
    return float(np.median(off)) if off else float("inf")


def fine_tune(
    surrogate: RLMSurrogate,
    landscapes: Sequence[Landscape],
    *,
    replay: Sequence[Landscape] = (),
    options: FineTuneOptions | None = None,
) -> tuple[RLMSurrogate, FineTuneRound]:
    """Run one round.

    Args:
        surrogate: Left as it is.
        landscapes: What was measured lately; partial landscapes are fine.
        replay: Older landscapes that must not be forgotten.
        options: How.

    Returns:
        The surrogate to use from now on (the same one where the round was rejected) and the record.

    Raises:
        ValueError: There are fewer than 8 working measurements to learn from.
    """
    options = options or FineTuneOptions()
    check_type("surrogate", surrogate, RLMSurrogate)
    check_all("landscapes", landscapes, Landscape)
    started = time.monotonic()
    working = sum(int(x.ok.sum()) for x in landscapes)
    if working < 8:
        raise ValueError(f"landscapes hold {working} working measurements; at least 8 are needed")
    train, judge = _split(landscapes, options)
    kept, old_judge = _split(replay, options) if len(replay) > 1 else (list(replay), [])
    network = copy.deepcopy(surrogate.checkpoint.network).requires_grad_(True).train()
    _train(network, surrogate.checkpoint, train, kept, options)
    checkpoint = surrogate.checkpoint
    settings = together(checkpoint.settings, trained_on([*train, *kept]))
    tuned = RLMSurrogate(dataclasses.replace(checkpoint, network=network.eval(), settings=settings))
    network.requires_grad_(False)
    before, after = rank_accuracy(surrogate, judge), rank_accuracy(tuned, judge)
    old_before = rank_accuracy(surrogate, old_judge) if old_judge else None
    old_after = rank_accuracy(tuned, old_judge) if old_judge else None
    error_before, error_after = log_error(surrogate, judge), log_error(tuned, judge)
    accepted = after >= before - (_TOLERANCE if old_judge else 0.0)
    if not any(x.ok.sum() >= _RANKED for x in judge):  # no order to compare: the numbers themselves
        accepted = error_after < error_before
    if old_before is not None and old_after is not None:
        accepted = accepted and old_after >= old_before - _TOLERANCE
    record = FineTuneRound(
        accepted=accepted,
        before=before,
        after=after,
        replay_before=old_before,
        replay_after=old_after,
        measurements=sum(map(len, train)),
        seconds=time.monotonic() - started,
        when=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    logger.info(
        "fine-tuning %s: held-out Spearman %.3f -> %.3f",
        "accepted" if accepted else "rejected",
        before,
        after,
    )
    return (tuned if accepted else surrogate), record


def _split(
    landscapes: Sequence[Landscape], options: FineTuneOptions
) -> tuple[list[Landscape], list[Landscape]]:
    """What to train on and what to judge by: whole landscapes, or parts of too few of them."""
    rng = np.random.default_rng(options.seed)
    if len(landscapes) >= 4:
        order = rng.permutation(len(landscapes))
        cut = max(1, round(len(landscapes) * options.held_out))
        judge = [landscapes[i] for i in order[:cut]]
        return [landscapes[i] for i in order[cut:]], judge
    train, judge = [], []
    for landscape in landscapes:
        order = rng.permutation(len(landscape))
        cut = max(3, round(len(landscape) * options.held_out))
        judge.append(landscape.take(order[:cut]))
        train.append(landscape.take(order[cut:]))
    return [x for x in train if len(x)], judge


def _train(
    network: Any,
    checkpoint: Checkpoint,
    train: Sequence[Landscape],
    replay: Sequence[Landscape],
    options: FineTuneOptions,
) -> None:
    table = FieldTable()
    limit = network.config.max_source
    groups = {"new": (train, 1.0 - options.replay), "replay": (replay, options.replay)}
    sources = {}
    for name, (landscapes, share) in groups.items():
        examples = [
            e
            for x in landscapes
            if (e := encode_landscape(x, table, checkpoint.tokenizer, max_source=limit)) is not None
        ]
        if examples:
            sources[name] = (examples, share)
    if "new" not in sources:
        return
    fields = table.tensors(checkpoint.tokenizer)
    sampler = Sampler(sources, tasks=_TASKS, candidates=_CANDIDATES, drop=0.0, seed=options.seed)
    anchor = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.lr, weight_decay=0.0)
    metric = torch.tensor([network.config.metrics.index("slowdown")])
    torch.manual_seed(options.seed)
    deadline = time.monotonic() + options.seconds
    for step in range(options.steps):
        if time.monotonic() > deadline:
            break
        for group in optimizer.param_groups:
            group["lr"] = options.lr * min(1.0, (step + 1) / _WARMUP) * (1 - step / options.steps)
        loss = batch_loss(network, fields, sampler.draw(), metric, smoothing=_SMOOTHING)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for p, start in zip(network.parameters(), anchor, strict=True):
                p.lerp_(start, options.pull)


class Versions:
    """Accepted weights on disk, newest in use, any of them to go back to.

    What is in use in the folder of a store is what ``load_surrogate(store=...)`` gives: to the decorator,
    ``rank``, ``tune``, the searches and the samplers.

    Args:
        folder: Where they are kept; None for the folder of ``store``.
        store: The ``Store`` whose measurements they learn from, or what its constructor takes; None for
            that of the environment, else the user's own.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        store: Store | str | os.PathLike[str] | None = None,
    ) -> None:
        self.folder = weights_folder(store) if folder is None else check_path("folder", folder)
        self._guard = threading.Lock()

    def numbers(self) -> list[int]:
        """The versions that are kept, oldest first."""
        return sorted(int(p.name[1:]) for p in self.folder.glob("v*") if p.name[1:].isdigit())

    @property
    def current(self) -> int | None:
        """The version in use; None for the bundled weights."""
        return weights_version(self.folder)

    def load(self) -> RLMSurrogate:
        """The surrogate in use."""
        current = self.current
        return RLMSurrogate(load_checkpoint(self.folder / f"v{current}" if current else None))

    def use(self, version: int | None) -> None:
        """Go back (or forward) to a version; None for the bundled weights.

        Raises:
            ValueError: There is no such version.
        """
        if version is not None and version not in self.numbers():
            raise ValueError(f"version must be one of {self.numbers()} or None, got {version}")
        private_folder(self.folder)
        with replacing(self.folder / "current.json") as draft:
            draft.write_text(json.dumps({"version": version}))

    def history(self) -> list[dict[str, Any]]:
        """The records of all rounds, accepted and rejected, oldest first."""
        return read_rounds(self.folder)

    def round(
        self,
        landscapes: Sequence[Landscape],
        *,
        replay: Sequence[Landscape] = (),
        options: FineTuneOptions | None = None,
    ) -> FineTuneRound:
        """Fine-tune the version in use and, where accepted, save the result and use it."""
        private_folder(self.folder)
        with self._guard, FileLock(str(self.folder / "lock"), mode=0o600):
            tuned, record = fine_tune(self.load(), landscapes, replay=replay, options=options)
            if record.accepted:
                version = max(self.numbers(), default=0) + 1
                tuned.save(self.folder / f"v{version}")
                self.use(version)
                record = dataclasses.replace(record, version=version)
            with (self.folder / "rounds.jsonl").open("a") as log:
                log.write(json.dumps(record.to_json()) + "\n")
        return record
