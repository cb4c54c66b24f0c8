"""Fine-tuning on the rows of a table: early stopping, progress, and going on after an interruption."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autotune_rlm._files import replacing
from autotune_rlm.progress import ProgressLine
from autotune_rlm.regression._model import CODEC, RowModel, Rows
from autotune_rlm.regression._options import FitOptions
from autotune_rlm.surrogate.codec import NAN, SPECIAL
from autotune_rlm.surrogate.metrics import UNKNOWN_BIN
from autotune_rlm.training.loss import average, cross_entropy

_log = logging.getLogger(__name__)
_TOGETHER = 4  # rows of one text in a batch, which share its encoding
_JUDGED = 1024  # held-out rows on which early stopping is decided
_WARMUP = 30
_AVERAGE = 0.98
_SMOOTHING = 1.5
_SAVE_EVERY_S = 30.0


@dataclass
class Training:
    """A training's held-out losses by step, its best step, and its seconds."""

    losses: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0


def train_rows(
    model: RowModel,
    rows: Rows,
    bins: np.ndarray,
    train: np.ndarray,
    judge: np.ndarray,
    *,
    options: FitOptions,
    folder: Path | None,
    progress: bool,
    key: str,
) -> Training:
    """Train the model in place; it ends with the weights that were best on the rows ``judge``.

    ``bins`` are fractional ones of the targets, (n, k), NaN where unknown. The learning rate falls to
    nothing over the minutes. In ``folder`` the state is kept, to go on after an interruption, unless its
    ``key`` (of data and settings) is another.
    """
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    judge = judge if len(judge) <= _JUDGED else np.sort(rng.choice(judge, _JUDGED, replace=False))
    network = model.network.requires_grad_(True)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.lr, weight_decay=0.02, betas=(0.9, 0.98))
    averaged = copy.deepcopy(network).requires_grad_(False).eval()
    best = copy.deepcopy(averaged.state_dict())
    done, least, since, step, spent = Training(), math.inf, 0, 0, 0.0
    state = folder / "state.pt" if folder else None
    if state and state.exists():
        blob = torch.load(state, map_location="cpu", weights_only=True)
        if blob["key"] == key:
            network.load_state_dict(blob["network"])
            averaged.load_state_dict(blob["averaged"])
            optimizer.load_state_dict(blob["optimizer"])
            best, record = blob["best"], json.loads(blob["progress"])
            least, since, step, spent = (record[k] for k in ("least", "since", "step", "spent"))
            done.losses, done.best_step = [tuple(x) for x in record["losses"]], record["best_step"]
            _log.info("going on at step %d", step)
    started = saved = time.monotonic()
    steps_an_epoch = max(1, len(train) // options.batch_size)
    every = min(max(10, steps_an_epoch), 60)
    order: list[np.ndarray] = []

    def elapsed() -> float:
        return spent + time.monotonic() - started

    def judged() -> float:
        ours, model.network = model.network, averaged
        try:
            return _loss(model, rows, bins, judge)
        finally:
            model.network = ours

    def save() -> None:
        if state is None:
            return
        state_of = {"least": least, "since": since, "step": step, "spent": elapsed()}
        record: dict[str, Any] = {**state_of, "losses": done.losses, "best_step": done.best_step}
        blob: dict[str, Any] = {
            "network": network.state_dict(),
            "averaged": averaged.state_dict(),
            "best": best,
        }
        blob |= {"optimizer": optimizer.state_dict(), "progress": json.dumps(record), "key": key}
        with replacing(state) as draft:
            torch.save(blob, draft)

    with ProgressLine(total=1.0, quiet=not progress) as line:
        while (fraction := elapsed() / (60 * options.minutes)) < 1 and (since < options.patience):
            if not order:
                order = _batches(rows, train, options.batch_size, rng)
            for group in optimizer.param_groups:
                ramp = min(1.0, (step + 1) / _WARMUP)
                group["lr"] = (
                    options.lr * ramp * max(0.01, 0.5 * (1 + math.cos(math.pi * fraction)))
                )
            network.train()
            loss = _batch_loss(model, rows, bins, order.pop())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            average(averaged, network, most=_AVERAGE, step=step)
            if step % every == 0:
                value = judged()
                done.losses.append((step, value))
                since += 1
                if value < least - 1e-4:
                    least, since, done.best_step = value, 0, step
                    best = {k: v.clone() for k, v in averaged.state_dict().items()}
            shown = f"{done.losses[-1][1]:.3f}" if done.losses else "..."
            line(f"fitting: step {step:,}, {fraction:.0%}, held-out loss {shown}", fraction)
            if state and time.monotonic() - saved > _SAVE_EVERY_S:
                saved = time.monotonic()
                save()
        save()
    network.load_state_dict(best)
    network.eval().requires_grad_(False)
    done.seconds = elapsed()
    return done


def _batches(
    rows: Rows, which: np.ndarray, size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Each row once, in a random order in which a few rows of one text stand together."""
    which = rng.permutation(which)
    by_text = which[np.argsort(rows.text_of[which], kind="stable")]
    text = rows.text_of[by_text]
    first = np.flatnonzero(np.r_[True, text[1:] != text[:-1]])
    rank = np.arange(len(text)) - np.repeat(first, np.diff(np.r_[first, len(text)]))
    starts = np.flatnonzero(rank % _TOGETHER == 0)
    chunks = np.split(by_text, starts[1:])
    order = [chunks[i] for i in rng.permutation(len(chunks))]
    return np.array_split(np.concatenate(order), max(1, round(len(which) / size)))


def _batch_loss(model: RowModel, rows: Rows, bins: np.ndarray, which: np.ndarray) -> torch.Tensor:
    targets = torch.from_numpy(np.nan_to_num(bins[which], nan=UNKNOWN_BIN)).float()
    targets = targets.to(model.network.head.weight.device)
    previous = None
    if targets.shape[1] > 1:
        tokens = (targets[:, :-1].round() + SPECIAL).long()
        previous = torch.where(targets[:, :-1] < 0, NAN, tokens)
    logits = model(model.batch(rows, which), previous)
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), _SMOOTHING)


@torch.inference_mode()
def _loss(model: RowModel, rows: Rows, bins: np.ndarray, which: np.ndarray) -> float:
    model.network.eval()
    parts = np.array_split(which, max(1, len(which) // 128))
    total = sum(float(_batch_loss(model, rows, bins, p)) * len(p) for p in parts)
    return total / len(which)


def tokens_of(bins: np.ndarray) -> np.ndarray:
    """Tokens of fractional bins, NaN for an unknown number; any shape."""
    tokens = np.clip(np.rint(np.nan_to_num(bins)), 0, CODEC.bins - 1).astype(np.int64) + SPECIAL
    return np.where(np.isnan(bins), NAN, tokens)
