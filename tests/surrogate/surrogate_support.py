from __future__ import annotations

import numpy as np

from autotune_rlm.devices import lookup
from autotune_rlm.landscapes import Landscape
from autotune_rlm.types import Candidate, Measurement, Status, Task


def make_task(size: int = 1024, *, kernel: str = "matmul", device: str = "NVIDIA A100") -> Task:
    return Task(
        kernel=kernel,
        device=lookup(device),
        problem={"M": size, "N": size, "K": size, "dtype": "fp16"},
    )


def make_candidates() -> list[Candidate]:
    return [
        Candidate({"BLOCK_M": m, "BLOCK_N": n, "num_warps": w})
        for m in (16, 32, 64, 128)
        for n in (16, 32, 64, 128)
        for w in (2, 4, 8)
    ]


def make_landscape(size: int = 1024, *, seed: int = 0, **kwargs: str) -> Landscape:
    """A smooth bowl with its minimum at 64 x 64 x 4; blocks of 128 x 128 with 8 warps fail."""
    rng = np.random.default_rng(seed)
    candidates, measurements = make_candidates(), []
    for c in candidates:
        m, n, w = (np.log2(c.config[k]) for k in ("BLOCK_M", "BLOCK_N", "num_warps"))
        log = 0.2 * (m - 6) ** 2 + 0.2 * (n - 6) ** 2 + 0.1 * (w - 2) ** 2
        if m == n == 7 and w == 3:
            measurements.append(Measurement(status=Status.OUT_OF_RESOURCES, reason="too large"))
        else:
            value = size**3 * 1e-9 * np.exp(log + 0.001 * rng.standard_normal())
            measurements.append(Measurement(status=Status.OK, value=float(value)))
    return Landscape(make_task(size, **kwargs), tuple(candidates), tuple(measurements))
