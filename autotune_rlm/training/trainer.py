"""The training loop: resumable, on any device that accelerate drives, with progress shown."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from autotune_rlm.surrogate.metrics import FACTS
from autotune_rlm.surrogate.network import FieldTensors, Network
from autotune_rlm.training.examples import Example, Sampler
from autotune_rlm.training.loss import batch_loss
from autotune_rlm.training.mining import favourites
from autotune_rlm.training.recipe import Recipe

__all__ = ["TrainingState", "train_network"]

logger = logging.getLogger(__name__)
_SAVE_EVERY_S = 60.0
_FACTS_EVERY = 8
_MINE_EVERY = 40


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
    on_step: Callable[[int, float], None] | None = None,
    progress: bool = True,
    loss_of: Callable[..., torch.Tensor] = batch_loss,
) -> TrainingState:
    """Train a network.

    Args:
        network: Starts from its present weights.
        fields: All distinct fields of the data.
        sources: By name, examples and share of the batches.
        recipe: Steps, sizes and rates.
        folder: Where checkpoints are written every minute; an interrupted run there is resumed.
        device: ``"cpu"`` or None for what accelerate finds.
        on_step: Called with the step and the loss.
        progress: Whether to show a progress bar.
        loss_of: The loss, called as ``batch_loss`` is.

    Raises:
        ValueError: There is nothing to train on.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    sources = {name: (e, w) for name, (e, w) in sources.items() if len(e) and w > 0}
    if not sources:
        raise ValueError("sources hold no landscape with two working candidates; nothing to learn")
    # A batch of one metric leaves the parameters of the others without a gradient.
    kwargs = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=device == "cpu", kwargs_handlers=[kwargs])
    torch.manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(
        network.parameters(),
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
    timing = _sampler({n: s for n, s in sources.items() if _times(s)}, recipe, offset)
    facts = _sampler({n: s for n, s in sources.items() if _has_facts(s)}, recipe, offset + 1)
    names = network.config.metrics
    numbers = {
        m: torch.tensor([names.index(x) for x in m], device=accelerator.device)
        for m in (("slowdown",), tuple(x for x in FACTS if x in names))
        if m
    }
    started = saved = time.monotonic()
    limit = recipe.minutes * 60 if recipe.minutes else math.inf
    with _bar(progress and accelerator.is_main_process) as bar:
        task = bar.add_task("training", total=1.0, loss="")
        while True:
            elapsed = spent + time.monotonic() - started
            done = _of_all(accelerator, max(state.step / recipe.steps, elapsed / limit))
            if done >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * _schedule(state.step, done, recipe.warmup)
            of_facts = facts is not None and (timing is None or state.step % _FACTS_EVERY == 0)
            sampler, metrics = (facts, list(numbers)[-1]) if of_facts else (timing, ("slowdown",))
            assert sampler is not None
            if timing is not None and state.step % _MINE_EVERY == 0:
                _mine(timing, averaged, fields)
            batch = sampler.draw(metrics)
            loss = model(fields, batch, numbers[metrics], smoothing=recipe.smoothing)
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            state.step += 1
            _average(averaged, network, min(recipe.average, 1 - 1 / (1 + state.step / 4)))
            value = float(loss.detach())
            state.losses.append(value)
            if on_step:
                on_step(state.step, value)
            recent = state.losses[-100:]
            bar.update(task, completed=done, loss=f"{sum(recent) / len(recent):.3f}")
            if folder and state.is_main and time.monotonic() - saved > _SAVE_EVERY_S:
                saved = time.monotonic()
                _save(state, optimizer, folder, elapsed)
        if folder and state.is_main:
            _save(state, optimizer, folder, spent + time.monotonic() - started)
        bar.update(task, completed=1.0)
    return state


def _of_all(accelerator: Any, done: float) -> float:
    """How far the main process is, in all processes: rates and the end depend on its clock."""
    if accelerator.num_processes == 1:
        return done
    from accelerate.utils import broadcast

    return float(broadcast(torch.tensor([done], device=accelerator.device)).item())


def _mine(sampler: Sampler, network: Network, fields: FieldTensors) -> None:
    drawn = sampler.draw_large()
    if drawn is not None:
        example, prompt = drawn
        sampler.mine(example, favourites(network, fields, example, prompt))


def _times(source: tuple[Sequence[Example], float]) -> bool:
    return any("slowdown" in e.targets and e.scale > -1.5 for e in source[0])


def _has_facts(source: tuple[Sequence[Example], float]) -> bool:
    return any(name in e.targets for e in source[0] for name in FACTS[:3])


def _sampler(
    sources: Mapping[str, tuple[Sequence[Example], float]], recipe: Recipe, offset: int
) -> Sampler | None:
    if not sources:
        return None
    return Sampler(
        sources,
        tasks=recipe.tasks,
        candidates=recipe.candidates,
        top=recipe.top,
        mined=recipe.mined,
        drop=recipe.drop,
        seed=recipe.seed + offset,
    )


def _schedule(step: int, done: float, warmup: int) -> float:
    """Linear warm-up, flat for 40 %, then a cosine down to nothing."""
    ramp = min(1.0, (step + 1) / warmup)
    decay = 1.0 if done < 0.4 else 0.5 * (1 + math.cos(math.pi * (done - 0.4) / 0.6))
    return ramp * max(decay, 0.005)


@torch.no_grad()
def _average(averaged: Network, network: Network, decay: float) -> None:
    ours: list[torch.Tensor] = [p.detach() for p in averaged.parameters()]
    theirs: list[torch.Tensor] = [p.detach() for p in network.parameters()]
    torch._foreach_lerp_(ours, theirs, 1 - decay)


def _bar(show: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>5.1f}%  loss {task.fields[loss]}"),
        TimeRemainingColumn(),
        disable=not show,
        transient=True,
    )


def _save(
    state: TrainingState, optimizer: torch.optim.Optimizer, folder: Path, elapsed: float
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    blob = {
        "network": state.network.state_dict(),
        "averaged": state.averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(blob, folder / "state.pt.tmp")
    os.replace(folder / "state.pt.tmp", folder / "state.pt")
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
