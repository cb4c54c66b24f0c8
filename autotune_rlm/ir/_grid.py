"""The launch grid of a kernel that nobody launches here: where its stores stop doing anything."""

from __future__ import annotations

import math
import re

import numpy as np

from ._kernel import walk_of
from ._samples import SAMPLES
from ._signature import Signature

_MAX_VALUE = 2.0**31


def guess_grid(text: str, signature: Signature) -> tuple[tuple[int, int, int], bool]:
    """The smallest grid that covers what the kernel's masks, or its outputs' shapes, let it write.

    A persistent kernel is taken to have one program for each of its blocks.

    Args:
        text: The kernel's TTIR.
        signature: Its arguments.

    Returns:
        ``(grid, known)``; where it does not follow, the axis has one program and ``known`` is false.
    """
    used = {axis for axis in "xyz" if re.search(rf"get_program_id {axis}\b", text)}
    grid, open_axes = [1, 1, 1], []
    for place, axis in enumerate("xyz"):
        if axis in used:
            found = _programs(text, signature, place)
            if found is None:
                open_axes.append(place)
            else:
                grid[place] = found
    if len(open_axes) == 1:
        covered = _by_shape(text, signature, grid)
        if covered is not None:
            grid[open_axes[0]], open_axes = covered, []
    return (grid[0], grid[1], grid[2]), not open_axes


def _programs(text: str, signature: Signature, place: int) -> int | None:
    """How many programs along an axis write something, by subdivision; None where all do."""
    low, high = 0.0, _MAX_VALUE
    ids = np.concatenate([[0.0], 2.0 ** np.linspace(0, 31, SAMPLES - 1).round(2)]).round()
    while True:
        writes = _writes(text, signature, place, ids)
        if not writes.any():
            return None
        last = int(np.flatnonzero(writes)[-1])
        if ids[last] >= _MAX_VALUE - 1:
            return None
        low, high = ids[last], ids[last + 1] if last + 1 < len(ids) else high
        if high - low <= 1:
            return int(low) + 1
        ids = np.unique(np.linspace(low, high, SAMPLES).round())
        ids = np.concatenate([ids, np.full(SAMPLES - len(ids), ids[-1])])


def _writes(text: str, signature: Signature, place: int, ids: np.ndarray) -> np.ndarray:
    """Whether a program with this number along an axis, the first along the others, writes."""
    walk = walk_of(text, signature, (1, 1, 1))
    walk.set_programs(place, ids)
    walk.facts()
    return walk.written > 0


def _by_shape(text: str, signature: Signature, grid: list[int]) -> int | None:
    """Programs that cover the largest output whose shape is known."""
    facts = walk_of(text, signature, (1, 1, 1)).facts()
    needed = [
        math.prod(signature.shapes[a.argument]) / max(a.distinct * a.times, 1.0)
        for a in facts.accesses
        if a.kind == "store" and a.argument in signature.shapes
    ]
    if not needed:
        return None
    return max(1, math.ceil(max(needed) / (grid[0] * grid[1] * grid[2])))
