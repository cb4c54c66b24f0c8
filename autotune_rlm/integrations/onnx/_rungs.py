"""Which networks are trained longer: asynchronous successive halving."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_PART = 3  # one in so many goes on, as in arXiv 1810.05934


class Rungs:
    """Rungs of rising numbers of epochs, two or more, with the scores of all that came there."""

    def __init__(self, epochs: Sequence[int]) -> None:
        self.epochs = tuple(epochs)
        if len(self.epochs) < 2 or any(
            a >= b or a < 1 for a, b in zip(self.epochs, self.epochs[1:], strict=False)
        ):
            raise ValueError(f"epochs must be at least two rising numbers, got {epochs!r}")
        self._scores: list[dict[int, float]] = [{} for _ in self.epochs]

    def promoted(self, rung: int, scores: Mapping[int, float]) -> set[int]:
        """The trials that go on from a rung (all, from the last) by their scores, more being better."""
        known = self._scores[rung]
        known.update(scores)
        if rung == len(self.epochs) - 1:
            return set(scores)
        finite = sorted((v for v in known.values() if math.isfinite(v)), reverse=True)
        if not finite:
            return set()
        limit = finite[max(0, math.ceil(len(finite) / _PART) - 1)]
        return {number for number, score in scores.items() if score >= limit}
