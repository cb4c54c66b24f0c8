"""Winners: what an exhaustive tuner chose, and the space that it chose from.

A winner says that one configuration beat all others of its space that compile and fit; nothing was
recorded of the others. The file is a CSV (plain or gzipped) with the columns ``kernel``, ``device``,
``problem``, ``config`` and, where known, ``in_space`` and ``at_head``.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from autotune_rlm._json import json_object
from autotune_rlm.devices import lookup
from autotune_rlm.landscapes.io import read_text
from autotune_rlm.types import Candidate, Task

__all__ = ["NOISY", "Winner", "read_winners", "space_of"]

NOISY = frozenset({"GROUP_SIZE_M", "GROUP_M", "num_stages", "NUM_STAGES"})
"""Parameters in which two independent tunings of one problem rarely agree."""

_BLOCK_PRODUCT = {
    "BLOCK_SIZE_M": (16, 32, 64, 128, 256),
    "BLOCK_SIZE_N": (32, 64, 128, 256),
    "BLOCK_SIZE_K": (64, 128),
    "GROUP_SIZE_M": (1, 16, 32, 64),
    "num_warps": (4, 8),
    "num_stages": (2, 3, 4, 5),
}
# LightLLM's block-scaled fp8 product is not among them: for 387 of its 475 problems, of 1 to 4,096 rows,
# the file names one and the same configuration, so that nothing was chosen.
_SPACES: dict[str, dict[str, tuple[Any, ...]]] = {
    "fused_moe": {**_BLOCK_PRODUCT, "BLOCK_SIZE_K": (64, 128, 256)},
    "w8a8_block_fp8_matmul": _BLOCK_PRODUCT,
    "w8a8_block_int8_matmul": _BLOCK_PRODUCT,
    "lightllm_grouped_moe_gemm_kernel": {
        "BLOCK_SIZE_M": (16, 32, 64, 128),
        "BLOCK_SIZE_N": (32, 64, 128),
        "BLOCK_SIZE_K": (32, 64, 128),
        "GROUP_SIZE_M": (1, 2, 4),
        "num_warps": (2, 4, 8),
        "num_stages": (1, 2, 3, 4, 5),
    },
    "lightllm_moe_silu_and_mul_kernel": {
        "BLOCK_M": (1, 2, 4, 8, 16, 32),
        "BLOCK_N": (64, 128, 256, 512, 1024),
        "num_warps": (1, 2, 4, 8, 16),
    },
    "tokamax_pallas_triton_gated_linear_unit": {
        "block_m": (32, 64, 128),
        "block_n": (32, 64, 128, 256),
        "block_k": (32,),
        "num_warps": (4, 8),
        "num_stages": (1, 2, 3, 4, 5),
    },
}


@dataclass(frozen=True)
class Winner:
    """One choice.

    Attributes:
        task: What was tuned.
        candidate: What was chosen.
        latest: Whether it is the tuner's present choice, not an older one.
    """

    task: Task
    candidate: Candidate
    latest: bool = True

    def space(self) -> tuple[Candidate, ...]:
        """All that it was chosen from; empty where that is not known or does not hold it."""
        space = space_of(self.task.kernel)
        return space if any(c.key == self.candidate.key for c in space) else ()

    def nearness(self, candidate: Candidate) -> float:
        """1 for the winner, 0.5 for what differs from it in one noisy parameter, 0.2 in two, else 0."""
        mine, other = self.candidate.config, candidate.config
        differs = {name for name in {*mine, *other} if mine.get(name) != other.get(name)}
        return (1.0, 0.5, 0.2)[len(differs)] if differs <= NOISY and len(differs) < 3 else 0.0


def read_winners(path: str | os.PathLike[str]) -> list[Winner]:
    """Read a file of winners.

    Raises:
        ValueError: A column is missing or a row is malformed; names the line.
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    reader = csv.DictReader(io.StringIO(read_text(path)))
    missing = {"kernel", "device", "problem", "config"} - set(reader.fieldnames or ())
    if missing:
        raise ValueError(f"{path}: a file of winners has a column {min(missing)!r}")
    tasks: dict[tuple[str, str, str], Task] = {}
    found = []
    for row in reader:
        try:
            key = row["kernel"], row["device"], row["problem"]
            if key not in tasks:
                problem = json_object(key[2], "problem")
                tasks[key] = Task(kernel=key[0], device=lookup(key[1]), problem=problem)
            config = json_object(row["config"], "config")
        except ValueError as error:
            raise ValueError(f"{path}: line {reader.line_num}: {error}") from None
        found.append(Winner(tasks[key], Candidate(config), row.get("at_head") != "0"))
    return found


@cache
def space_of(kernel: str) -> tuple[Candidate, ...]:
    """The space that a kernel's winners on NVIDIA devices were chosen from; empty where not known."""
    choices: Mapping[str, tuple[Any, ...]] = _SPACES.get(kernel, {})
    grid = itertools.product(*choices.values()) if choices else ()
    return tuple(Candidate(dict(zip(choices, values, strict=True))) for values in grid)


def sample(winner: Winner, number: int, rng: np.random.Generator) -> list[tuple[Candidate, float]]:
    """The winner and ``number`` others of its space, near misses among them, with their nearness."""
    others = [(c, winner.nearness(c)) for c in winner.space() if c.key != winner.candidate.key]
    near = [pair for pair in others if pair[1] > 0]
    far = [pair for pair in others if pair[1] == 0]
    near = [near[i] for i in rng.permutation(len(near))[: number // 5]]
    far = [far[i] for i in rng.permutation(len(far))[: number - len(near)]]
    return [(winner.candidate, 1.0), *near, *far]
