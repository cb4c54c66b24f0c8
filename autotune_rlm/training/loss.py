"""Forward pass and loss of a training batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autotune_rlm.surrogate.codec import FAILED, SPECIAL
from autotune_rlm.surrogate.metrics import BINS, UNKNOWN_BIN
from autotune_rlm.surrogate.network import FieldTensors, Memory, Network
from autotune_rlm.training.examples import Batch

__all__ = ["Outputs", "average", "batch_loss", "cross_entropy", "forward", "soft_targets"]

_SCALE_WEIGHT = 0.1


def soft_targets(bins: Tensor, smoothing: float) -> Tensor:
    """Token probabilities, (n, BINS + 2), for fractional bins (n,), of which negative ones failed.

    A value is spread over its neighbours as a Gaussian of ``smoothing`` bins (HL-Gauss, Imani and White
    2018; "Stop Regressing", arXiv 2403.03950), which tells the model that neighbouring bins are near.
    """
    edges = torch.arange(BINS + 1, device=bins.device) - 0.5
    cdf = torch.erf((edges - bins[:, None]) / (smoothing * 2**0.5))
    mass = (cdf[:, 1:] - cdf[:, :-1]).clamp(min=0)
    mass = mass / mass.sum(1, keepdim=True).clamp(min=1e-9)
    failed = (bins < 0).float()
    out = torch.zeros(len(bins), BINS + SPECIAL, device=bins.device)
    out[:, SPECIAL:] = mass * (1 - failed[:, None])
    out[:, FAILED] = failed
    return out


class Outputs(NamedTuple):
    """What a forward pass gives."""

    logits: Tensor
    """(b * g, m, BINS + 2)."""
    memory: Memory
    """The encoded tasks."""
    fields: Tensor
    """The embedded fields."""


def forward(
    network: Network,
    fields: FieldTensors,
    batch: Batch,
    metrics: Tensor,
    previous: Tensor | None = None,
) -> Outputs:
    """Run the network on a batch of b tasks with g candidates each.

    Args:
        network: The network.
        fields: All distinct fields of the data.
        batch: The batch.
        metrics: Long, (m,): numbers of the batch's metrics in the network's list.
        previous: Tokens written before, (b * g, k); None for the batch's own targets as bins.
    """
    device = metrics.device
    b, g, c = batch.candidates.shape
    parts = [batch.shared.ravel(), batch.candidates.ravel()]
    ids = np.concatenate(parts if batch.described is None else [*parts, batch.described.ravel()])
    distinct, inverse = np.unique(ids, return_inverse=True)
    used = torch.from_numpy(np.maximum(distinct, 0))
    embedded = network.embed_fields(FieldTensors(*(t[used].to(device) for t in fields)))
    places = torch.from_numpy(np.where(ids < 0, -1, inverse)).to(device)
    shared, index, told_of = places.split(
        [len(p) for p in parts] + [len(ids) - sum(map(len, parts))]
    )
    shared = shared.view(b, -1)
    condition: Tensor | None = None
    if batch.described is not None and batch.told is not None and batch.told.shape[2]:
        others = network.describe(embedded, told_of.view(batch.described.shape))
        tokens = torch.from_numpy(batch.told).to(device).view(b * g, -1)
        condition = network.condition(tokens, others.repeat_interleave(g, dim=0))
    sources, source_of = np.unique(batch.source, axis=0, return_inverse=True)
    source_of = np.where((batch.source >= 0).any(1), source_of.ravel(), -1)
    memory = network.encode(
        embedded[shared.clamp(min=0)],
        shared >= 0,
        torch.from_numpy(sources).to(device) if (source_of >= 0).any() else None,
        torch.from_numpy(source_of).to(device),
    )
    targets = torch.from_numpy(batch.targets).to(device).view(b * g, -1)
    if previous is None and targets.shape[1] > 1:
        previous = (targets[:, :-1].round().clamp(min=0) + SPECIAL).long()
    texts = None
    if batch.texts is not None:
        texts = network.read_texts(torch.from_numpy(batch.texts).to(device))
    text_of = None if batch.text_of is None else torch.from_numpy(batch.text_of).to(device).view(-1)
    logits, _ = network.decode(
        memory,
        embedded,
        index.view(b * g, c),
        metrics.expand(b, -1),
        previous,
        texts=texts,
        text_of=text_of,
        condition=condition,
    )
    return Outputs(logits, memory, embedded)


def batch_loss(
    network: Network, fields: FieldTensors, batch: Batch, metrics: Tensor, *, smoothing: float
) -> Tensor:
    """Cross-entropy of the metrics asked for, and of the tasks' scale; arguments as of ``forward``."""
    outputs = forward(network, fields, batch, metrics)
    b, targets = len(batch.shared), torch.from_numpy(batch.targets).to(metrics.device)
    loss = cross_entropy(outputs.logits.flatten(0, 1), targets.flatten(), smoothing)
    if not (batch.scale > UNKNOWN_BIN).any():
        return loss
    asked = torch.full_like(metrics[:1], network.config.metrics.index("scale")).expand(b, 1)
    nothing = torch.full_like(asked, -1)
    scale, _ = network.decode(outputs.memory, outputs.fields, nothing, asked)
    scales = torch.from_numpy(batch.scale.astype(np.float32)).to(metrics.device)
    return loss + _SCALE_WEIGHT * cross_entropy(scale[:, 0], scales, smoothing)


def cross_entropy(logits: Tensor, bins: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy of logits (n, BINS + 2) with soft targets of fractional bins (n,).

    Bins that are unknown (-2) do not count; ``smoothing`` is that of ``soft_targets``.
    """
    known = bins > UNKNOWN_BIN
    if not known.any():
        return logits.sum() * 0.0
    target = soft_targets(bins[known], smoothing)
    return -(target * F.log_softmax(logits[known], dim=-1)).sum(1).mean()


@torch.no_grad()
def average(averaged: Network, network: Network, *, most: float, step: int) -> None:
    """Move averaged weights towards those of a step; the decay rises to ``most`` over the first steps."""
    ours: list[Tensor] = [p.detach() for p in averaged.parameters()]
    theirs: list[Tensor] = [p.detach() for p in network.parameters()]
    torch._foreach_lerp_(ours, theirs, 1 - min(most, 1 - 1 / (1 + step / 4)))
