"""Hard examples: what the network believes to be good in a large landscape.

A few candidates that spill registers among thousands are hardly ever drawn, yet if the network takes
one of them for the best, it is the first to be measured. So its favourites are drawn more often,
right or wrong (hard example mining, Shrivastava et al., CVPR 2016).
"""

from __future__ import annotations

import numpy as np
import torch

from autotune_rlm.surrogate.codec import FAILED, SPECIAL
from autotune_rlm.surrogate.fields import EncodedTask
from autotune_rlm.surrogate.metrics import BINS
from autotune_rlm.surrogate.network import FieldTensors, Network
from autotune_rlm.training.examples import Example, collate
from autotune_rlm.training.loss import forward

__all__ = ["favourites"]

_CHUNK = 2048
_LEAST = 64  # candidates that are mined of a landscape, at least


@torch.no_grad()
def favourites(
    network: Network, fields: FieldTensors, example: Example, prompt: EncodedTask
) -> np.ndarray:
    """Rows of the hundredth (at least 64) of a landscape that the network takes for the fastest."""
    device = next(network.parameters()).device
    metric = torch.tensor([network.config.metrics.index("slowdown")], device=device)
    places = torch.arange(BINS, device=device, dtype=torch.float32)
    believed = []
    for rows in np.array_split(np.arange(len(example)), -(-len(example) // _CHUNK)):
        batch = collate([example], [rows], [prompt], ("slowdown",))
        p = forward(network, fields, batch, metric).logits[:, 0].softmax(-1)
        failed = p[:, FAILED] * BINS
        believed.append((p[:, SPECIAL:] @ places + failed).cpu().numpy())
    count = min(len(example), max(_LEAST, len(example) // 100))
    return np.argpartition(np.concatenate(believed), count - 1)[:count]
