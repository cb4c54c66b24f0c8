"""The training loop: resumable, on any device that accelerate drives, with progress shown."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autotune_rlm._files import replacing
from autotune_rlm.progress import ProgressLine
from autotune_rlm.surrogate.metrics import FACTS
from autotune_rlm.surrogate.network import FieldTensors, Network
from autotune_rlm.training.examples import Example, Sampler
from autotune_rlm.training.loss import average, batch_loss
from autotune_rlm.training.mining import favourites
from autotune_rlm.training.recipe import Recipe
from autotune_rlm.training.sequences import SequenceExample, SequenceSampler

__all__ = ["TrainingState", "train_network"]

logger = logging.getLogger(__name__)
_SAVE_EVERY_S = 60.0
_MINE_EVERY = 40
_FLAT = 0.4  # of the time, before the rate of learning falls
_LEAST_RATE = 0.005  # of the recipe's
_SEQUENCES = 8  # of a batch
_GOLDEN = 0.6180339887498949
"""Multiples of it, without their whole part, are spread evenly: so are the kinds of batches."""


@dataclass
class TrainingState:
    """What a finished (or interrupted) run leaves behind.

    With several processes all of them end with the same weights, and the main one writes them.
    """

    network: Network
    averaged: Network
    step: int
    losses: list[float]
    is_main: bool = True


class _WithLoss(nn.Module):
    """The network together with its loss: gradients of several processes meet in a ``forward``."""

    def __init__(self, network: Network, loss_of: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.network = network
        self._loss_of = loss_of

    def forward(self, *args: Any, **options: Any) -> torch.Tensor:
        """The loss of a batch."""
        return self._loss_of(self.network, *args, **options)


def train_network(
    network: Network,
    fields: FieldTensors,
    sources: Mapping[str, tuple[Sequence[Example], float]],
    recipe: Recipe,
    *,
    folder: Path | None = None,
    device: str | None = None,
    progress: bool = True,
    loss_of: Callable[..., torch.Tensor] = batch_loss,
    sequences: Sequence[tuple[SequenceExample, float]] = (),
) -> TrainingState:
    """Train a network.

    Args:
        network: Starts from its present weights.
        fields: All distinct fields of the data.
        sources: By name, examples and share of the batches.
        recipe: Steps, sizes and rates.
        folder: Where checkpoints are written every minute; an interrupted run there is resumed.
        device: ``"cpu"`` or None for what accelerate finds.
        progress: Whether to show how far it is.
        loss_of: The loss, called as ``batch_loss`` is.
        sequences: Tables of networks whose targets are written one after the other, with their weights.

    Raises:
        ValueError: There is nothing to train on.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    sources = {name: (e, w) for name, (e, w) in sources.items() if len(e) and w > 0}
    if not sources and not sequences:
        raise ValueError("sources hold no landscape with two working candidates; nothing to learn")
    # A batch of one metric leaves the parameters of the others without a gradient.
    kwargs = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=device == "cpu", kwargs_handlers=[kwargs])
    torch.manual_seed(recipe.seed)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not recipe.only or name.startswith(recipe.only))
    optimizer = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad],
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        betas=(0.9, 0.98),
        fused=True,
    )
    averaged = copy.deepcopy(network)
    state = TrainingState(network, averaged, 0, [], accelerator.is_main_process)
    spent = _resume(state, optimizer, folder)
    accelerator.wait_for_everyone()  # nobody writes what another still reads
    model, optimizer = accelerator.prepare(_WithLoss(network, loss_of), optimizer)
    averaged.to(accelerator.device)
    offset = 7919 * accelerator.process_index + state.step
    kinds = _kinds(sources, sequences, recipe, offset)
    names = network.config.metrics
    spread = np.cumsum([kind.share for kind in kinds])
    started = saved = time.monotonic()
    limit = recipe.minutes * 60 if recipe.minutes else math.inf
    with ProgressLine(total=1.0, quiet=not (progress and state.is_main)) as line:
        while True:
            elapsed = spent + time.monotonic() - started
            done = _of_all(accelerator, max(state.step / recipe.steps, elapsed / limit))
            if done >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * _schedule(state.step, done, recipe.warmup)
            kind = kinds[int(np.searchsorted(spread, state.step * _GOLDEN % 1.0 * spread[-1]))]
            if kind.mines and state.step % _MINE_EVERY < 1.0 / kind.share:
                _mine(kind.sampler, averaged, fields)
            batch = kind.sampler.draw(kind.metrics)
            asked = [
                names.index(kind.metrics[i % len(kind.metrics)])
                for i in range(batch.targets.shape[2])
            ]
            loss = model(
                fields,
                batch,
                torch.tensor(asked, device=accelerator.device),
                smoothing=recipe.smoothing,
            )
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            state.step += 1
            average(averaged, network, most=recipe.average, step=state.step)
            state.losses.append(float(loss.detach()))
            mean = float(np.mean(state.losses[-100:]))
            line(f"step {state.step:,}, {done:.0%}, loss {mean:.3f}", done)
            if folder and state.is_main and time.monotonic() - saved > _SAVE_EVERY_S:
                saved = time.monotonic()
                _save(state, optimizer, folder, elapsed)
        if folder and state.is_main:
            _save(state, optimizer, folder, spent + time.monotonic() - started)
    return state


def _of_all(accelerator: Any, done: float) -> float:
    """How far the main process is, in all processes: rates and the end depend on its clock."""
    if accelerator.num_processes == 1:
        return done
    from accelerate.utils import broadcast

    return float(broadcast(torch.tensor([done], device=accelerator.device)).item())


@dataclass(frozen=True, eq=False)
class _Kind:
    """Batches of one kind: what is asked of them, and which share of the steps they are."""

    sampler: Any
    metrics: tuple[str, ...]
    share: float
    mines: bool = False


def _kinds(
    sources: Mapping[str, tuple[Sequence[Example], float]],
    sequences: Sequence[tuple[SequenceExample, float]],
    recipe: Recipe,
    seed: int,
) -> list[_Kind]:
    """The kinds of batches that a mixture gives; their shares are the sums of their sources' weights."""
    facts = tuple(x for x in FACTS if x in recipe.network_config().metrics)
    found: dict[tuple[str, ...], dict[str, tuple[Sequence[Example], float]]] = {}
    for name, (examples, weight) in sources.items():
        metrics = facts if facts and _has_facts(examples) else ("slowdown",)
        if any("number" in e.targets for e in examples):
            metrics = ("number",)
        read = "texts" if any(len(e.text_of) for e in examples) else ""
        found.setdefault((read, *metrics), {})[name] = (examples, weight)
    kinds = []
    for i, ((read, *asked), mixed) in enumerate(found.items()):
        share = sum(weight for _, weight in mixed.values())
        tasks = min(recipe.tasks, 2) if read else recipe.tasks
        sampler = Sampler(
            mixed,
            tasks=tasks,
            candidates=max(1, recipe.texts // tasks) if read else recipe.candidates,
            top=recipe.top,
            mined=recipe.mined,
            drop=recipe.drop,
            seed=recipe.seed + seed + i,
        )
        kinds.append(
            _Kind(sampler, tuple(asked), share, tuple(asked) == ("slowdown",) and not read)
        )
    if sequences:
        sampler_of_many = SequenceSampler(
            sequences,
            tasks=min(recipe.tasks, _SEQUENCES),
            candidates=max(1, recipe.texts // min(recipe.tasks, _SEQUENCES)),
            seed=recipe.seed + seed + len(kinds),
        )
        kinds.append(_Kind(sampler_of_many, ("slowdown",), sum(w for _, w in sequences)))
    whole = sum(kind.share for kind in kinds)
    return [replace(kind, share=kind.share / whole) for kind in kinds if kind.share > 0]


def _mine(sampler: Sampler, network: Network, fields: FieldTensors) -> None:
    drawn = sampler.draw_large()
    if drawn is not None:
        example, prompt = drawn
        sampler.mine(example, favourites(network, fields, example, prompt))


def _has_facts(examples: Sequence[Example]) -> bool:
    return any(name in e.targets for e in examples for name in FACTS[:3])


def _schedule(step: int, done: float, warmup: int) -> float:
    """Linear warm-up, flat, then a cosine down to nearly nothing."""
    ramp = min(1.0, (step + 1) / warmup)
    left = max(0.0, done - _FLAT) / (1 - _FLAT)
    return ramp * max(0.5 * (1 + math.cos(math.pi * left)), _LEAST_RATE)


def _save(
    state: TrainingState, optimizer: torch.optim.Optimizer, folder: Path, elapsed: float
) -> None:
    blob = {
        "network": state.network.state_dict(),
        "averaged": state.averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with replacing(folder / "state.pt") as draft:
        torch.save(blob, draft)
    facts = {"step": state.step, "elapsed_s": elapsed, "losses": state.losses[-1000:]}
    (folder / "progress.json").write_text(json.dumps(facts))


def _resume(state: TrainingState, optimizer: torch.optim.Optimizer, folder: Path | None) -> float:
    if folder is None or not (folder / "state.pt").exists():
        return 0.0
    blob = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    state.network.load_state_dict(blob["network"])
    state.averaged.load_state_dict(blob["averaged"])
    optimizer.load_state_dict(blob["optimizer"])
    facts = json.loads((folder / "progress.json").read_text())
    state.step, state.losses = facts["step"], facts["losses"]
    logger.info("resumed at step %d", state.step)
    return float(facts["elapsed_s"])
