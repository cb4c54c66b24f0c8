"""The distribution over numbers that a model of token sequences stands for, without sampling.

A number is a short sequence of tokens. Its probability is the product of its tokens', so the most
probable prefixes are expanded position by position, all at once, until whole numbers are left. What is
cut off on the way is known exactly and told, so a reader sees how much of the distribution is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autotune_rlm._checks import check_number
from autotune_rlm.surrogate.codec import FAILED, NAN, NumericCodec

__all__ = ["NumberDistribution", "expand"]


@dataclass(frozen=True, kw_only=True)
class NumberDistribution:
    """A distribution over numbers and the two special values.

    Attributes:
        values: The k numbers that were found, rising, shape (k,).
        probabilities: Of each, shape (k,).
        p_failed: Probability of ``failed``.
        p_nan: Probability of ``nan``.
        missing: Probability of all that was cut off; 0 where the expansion was complete.
    """

    values: np.ndarray
    probabilities: np.ndarray
    p_failed: float
    p_nan: float
    missing: float

    @property
    def mean(self) -> float:
        """Mean of the numbers found; NaN where there is none."""
        total = self.probabilities.sum()
        return float(self.values @ self.probabilities / total) if total > 0 else float("nan")

    def quantile(self, q: float) -> float:
        """The smallest number with at least a share q of the found probability up to it.

        Raises:
            ValueError: q is not within [0, 1].
        """
        check_number("q", q, least=0, most=1)
        if not len(self.values):
            return float("nan")
        below = np.cumsum(self.probabilities)
        return float(self.values[min(np.searchsorted(below, q * below[-1]), len(below) - 1)])


def expand(
    codec: NumericCodec, step: Callable[[np.ndarray], np.ndarray], *, width: int = 256
) -> NumberDistribution:
    """Expand the distribution over a codec's numbers.

    Args:
        codec: Its masks say which tokens may stand where; others get no probability.
        step: Maps prefixes, int64 of shape (m, t) with t from 0 on, to the logits of their next
            token, shape (m, codec.vocab_size). Called once per position.
        width: Prefixes that are kept per position. A ``BinCodec`` needs one step and is exact with
            any; a digit codec is exact once ``width`` reaches the number of its sequences.

    Returns:
        The distribution; equal numbers that several sequences write are added up.

    Raises:
        ValueError: ``width`` is below 1.
    """
    check_number("width", width, least=1, whole=True)
    prefixes, mass = np.zeros((1, 0), dtype=np.int64), np.ones(1)
    special = np.zeros(2)
    for position, allowed in enumerate(codec.masks()):
        joint = mass[:, None] * _softmax(np.where(allowed, step(prefixes), -np.inf))
        if position == 0:  # a special value ends its sequence
            special = joint[:, [FAILED, NAN]].sum(0)
            joint[:, [FAILED, NAN]] = 0.0
        last = position == codec.length - 1
        kept = np.flatnonzero(joint)
        if len(kept) > width and not (last and codec.length == 1):
            kept = np.sort(kept[np.argsort(-joint.flat[kept], kind="stable")[:width]])
        rows, tokens = np.unravel_index(kept, joint.shape)
        prefixes = np.concatenate([prefixes[rows], tokens[:, None]], axis=1)
        mass = joint[rows, tokens]
    values, which = np.unique(codec.decode(prefixes), return_inverse=True)
    probabilities = np.bincount(which.ravel(), weights=mass, minlength=len(values))
    return NumberDistribution(
        values=values,
        probabilities=probabilities,
        p_failed=float(special[0]),
        p_nan=float(special[1]),
        missing=max(0.0, 1.0 - float(special.sum() + mass.sum())),
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)
