"""The spaces that the servers' own tuners search."""

from __future__ import annotations

import itertools
from functools import cache

from autotune_rlm.integrations.serving._file import ServingFile
from autotune_rlm.landscapes.winners import space_of
from autotune_rlm.types import Candidate, Device

PARAMETERS = (
    "BLOCK_SIZE_M",
    "BLOCK_SIZE_N",
    "BLOCK_SIZE_K",
    "GROUP_SIZE_M",
    "num_warps",
    "num_stages",
)
"""What a configuration of the servers' kernels has, in the order of their files."""
# On ROCm vLLM's script searches other tiles, and two stages only.
_TILES = (16, 32, 64, 128, 256)
_ROCM = (_TILES, _TILES, _TILES[1:], (1, 4, 8, 16, 32), (1, 2, 4, 8), (2,))


def space(file: ServingFile, device: Device) -> tuple[Candidate, ...]:
    """All configurations that a server's tuner would measure for a file's kernel on a device.

    A step of K has one scale, so that no tile is longer than the elements that share one.
    """
    whole = _rocm() if device.target.startswith("gfx") else space_of(file.kernel)
    if file.block_shape is None:
        return whole
    longest = file.block_shape[1]
    return tuple(c for c in whole if c.config["BLOCK_SIZE_K"] <= longest)


@cache
def _rocm() -> tuple[Candidate, ...]:
    grid = itertools.product(*_ROCM)
    return tuple(Candidate(dict(zip(PARAMETERS, values, strict=True))) for values in grid)
