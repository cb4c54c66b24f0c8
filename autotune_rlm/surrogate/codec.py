"""Numeric codecs: a float as a short, fixed-length sequence of tokens, and back.

Each position has a static mask of the tokens that may stand there, so that what is decoded is always
a number, or one of the two special values ``failed`` and ``nan``. The distribution over values follows
from the tokens' probabilities (``decoding.expand``); for ``BinCodec`` its only token is the histogram
itself.

``DigitCodec`` follows "Regression Language Models for Code" (arXiv 2509.26476) and OmniPred (arXiv
2402.14547): ``p10`` writes sign, mantissa digits and a power of ten; ``ieee`` writes sign, the
exponent's sign and digits, then mantissa digits, so that the leading tokens carry the most.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np

__all__ = ["FAILED", "NAN", "SPECIAL", "BinCodec", "DigitCodec", "NumericCodec"]

FAILED = 0
"""Token at position 0 of a candidate that does not work."""
NAN = 1
"""Token at position 0 of a value that is not a number."""
SPECIAL = 2
"""Tokens before those of numbers."""
_HUGE = float(np.finfo(np.float64).max)
_TINY = float(np.finfo(np.float64).smallest_subnormal)
_ROUNDING = 1e-12  # what a product of two floats may be off by, with room
_FAR = 2000  # exponents beyond all floats, whatever the base


class NumericCodec(ABC):
    """Floats to token sequences and back.

    Attributes:
        length: Tokens per number.
        vocab_size: Distinct tokens, the two special ones included.
    """

    length: int
    vocab_size: int

    @abstractmethod
    def encode(self, values: np.ndarray, failed: np.ndarray | None = None) -> np.ndarray:
        """Tokens of numbers.

        Args:
            values: Floats, shape (n,); infinities are taken as the largest magnitude.
            failed: Bool, shape (n,); True where there is no value because the candidate failed.

        Returns:
            Int64 array of shape (n, length).
        """

    @abstractmethod
    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Values of token sequences (n, length); NaN for ``failed`` and ``nan``. Shape (n,)."""

    @abstractmethod
    def masks(self) -> np.ndarray:
        """Which tokens may stand where: bool, shape (length, vocab_size)."""

    def _specials(
        self, tokens: np.ndarray, values: np.ndarray, failed: np.ndarray | None
    ) -> np.ndarray:
        for rows, token in ((np.isnan(values), NAN), (failed, FAILED)):
            if rows is not None and rows.any():
                tokens[rows] = self._filler()
                tokens[rows, 0] = token
        return tokens

    def _filler(self) -> np.ndarray:
        """The first token allowed at each position; stands behind a special value."""
        return np.argmax(self.masks()[:, SPECIAL:], axis=1) + SPECIAL


class BinCodec(NumericCodec):
    """One token: the bin that a value falls into.

    Bins are even on the scale ``log(1 + (x - low) / knee)``: nearly linear up to ``knee`` above
    ``low``, logarithmic beyond it. With the logarithm of a slow-down as x, that resolves tenths of a
    per cent near the best and tells far slower ones apart coarsely.

    Args:
        low: Smallest value; smaller ones are clipped.
        high: Largest value; larger ones are clipped.
        knee: Where the bins turn from even to logarithmic; infinity for even bins.
        bins: Number of bins, at least 2.
    """

    length = 1

    def __init__(
        self, *, low: float = 0.0, high: float = 5.5, knee: float = 0.05, bins: int = 128
    ) -> None:
        if not low < high or bins < 2 or not knee > 0:
            raise ValueError(
                f"low must be below high, bins at least 2 and knee positive, got {low=}, {high=}, "
                f"{bins=}, {knee=}"
            )
        self.low, self.high, self.knee, self.bins = low, high, knee, bins
        self.vocab_size = bins + SPECIAL
        self.centers = self.value_at(np.arange(bins, dtype=np.float64))

    def _scale(self, x: np.ndarray) -> np.ndarray:
        if math.isinf(self.knee):
            return x
        return np.log1p(x / self.knee)

    def position(self, values: np.ndarray) -> np.ndarray:
        """Fractional bin positions in [0, bins - 1]; NaN stays NaN."""
        x = np.clip(values, self.low, self.high) - self.low
        return self._scale(x) / self._scale(np.asarray(self.high - self.low)) * (self.bins - 1)

    def value_at(self, position: np.ndarray) -> np.ndarray:
        """Values of fractional bin positions."""
        scaled = position / (self.bins - 1) * self._scale(np.asarray(self.high - self.low))
        return self.low + (scaled if math.isinf(self.knee) else self.knee * np.expm1(scaled))

    def quantile(self, probabilities: np.ndarray, q: float) -> np.ndarray:
        """``quantiles`` of one share, shape (n,)."""
        return self.quantiles(probabilities, (q,))[0]

    def quantiles(self, probabilities: np.ndarray, shares: Iterable[float]) -> list[np.ndarray]:
        """The values below which shares of the probability lie, linear within bins, shape (n,) each.

        Args:
            probabilities: Rows that sum to 1, shape (n, bins).
            shares: Within (0, 1).
        """
        below, rows, found = np.cumsum(probabilities, axis=1), np.arange(len(probabilities)), []
        for q in shares:
            index = np.minimum((below < q).sum(1), self.bins - 1)
            mass = probabilities[rows, index]
            inside = (q - (below[rows, index] - mass)) / np.maximum(mass, 1e-12)
            found.append(self.value_at(np.clip(index - 0.5 + inside, 0, self.bins - 1)))
        return found

    def encode(self, values: np.ndarray, failed: np.ndarray | None = None) -> np.ndarray:
        values = np.asarray(values, dtype=np.float64)
        position = np.nan_to_num(self.position(values))
        tokens = np.rint(position).astype(np.int64)[:, None] + SPECIAL
        return self._specials(tokens, values, failed)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        index = np.asarray(tokens)[:, 0] - SPECIAL
        return np.where(index < 0, np.nan, self.centers[np.maximum(index, 0)])

    def masks(self) -> np.ndarray:
        return np.ones((1, self.vocab_size), dtype=bool)


class DigitCodec(NumericCodec):
    """Sign, exponent and mantissa digits, as the paper writes them.

    Values are those of the authors' library (google-deepmind/regress-lm): ``p10`` rounds to the nearest,
    ``ieee`` cuts digits off; what is too large becomes the largest number, and what is too small
    becomes 0 (``p10``: or the smallest number, whichever is nearer). ``ieee`` with three exponent
    digits holds every finite float.

    Args:
        style: ``"p10"``: sign, mantissa digits, exponent as one token; ``"ieee"``: sign, exponent's
            sign, exponent digits, mantissa digits.
        mantissa: Mantissa digits (``num_digits`` and ``num_mantissa_digits`` of that library).
        base: Base of the digits; ``p10`` is always decimal.
        exponent: ``p10``: largest exponent of the last digit, 10 by default (``exponent_range``);
            ``ieee``: number of exponent digits, 2 by default (``num_exponent_digits``).
    """

    def __init__(
        self, *, style: str = "p10", mantissa: int = 3, base: int = 10, exponent: int | None = None
    ) -> None:
        if style not in ("p10", "ieee"):
            raise ValueError(f"style must be 'p10' or 'ieee', got {style!r}")
        if mantissa < 1 or base < 2 or (style == "p10" and base != 10):
            raise ValueError(
                f"mantissa must be at least 1 and base at least 2 (10 for p10), got {mantissa=}, "
                f"{base=}"
            )
        self.style, self.mantissa, self.base = style, mantissa, base
        self.exponent = exponent if exponent is not None else (10 if style == "p10" else 2)
        self._plus, self._minus, self._digit = SPECIAL, SPECIAL + 1, SPECIAL + 2
        self._exp = self._digit + base
        self.length = 2 + mantissa if style == "p10" else 2 + self.exponent + mantissa
        self.vocab_size = self._exp + (2 * self.exponent + 1 if style == "p10" else 0)
        self._largest = self.exponent if style == "p10" else base**self.exponent - 1
        self._powers = _powers(base)

    def encode(self, values: np.ndarray, failed: np.ndarray | None = None) -> np.ndarray:
        values = np.asarray(values, dtype=np.float64)
        size = np.minimum(np.abs(np.nan_to_num(values, posinf=_HUGE, neginf=-_HUGE)), _HUGE)
        split = self._rounded if self.style == "p10" else self._truncated
        number, power = split(size)
        sign = np.where(values < 0, self._minus, self._plus)[:, None]
        mantissa = self._digits(number, self.mantissa)
        if self.style == "p10":
            parts = [sign, mantissa, (power + self.exponent + self._exp)[:, None]]
        else:
            exponent_sign = np.where(power < 0, self._minus, self._plus)[:, None]
            parts = [sign, exponent_sign, self._digits(np.abs(power), self.exponent), mantissa]
        return self._specials(np.concatenate(parts, axis=1).astype(np.int64), values, failed)

    def _rounded(self, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mantissas as integers, rounded to the nearest, and the exponents of their last digits."""
        least = max(float(f"1e{self.mantissa - 1 - self._largest}"), _TINY)
        tiny = size < least
        size = np.where(tiny, np.rint(np.where(tiny, size, 0.0) / least) * least, size)
        texts = [f"{x:.{self.mantissa - 1}e}".split("e") for x in size.tolist()]
        number = np.array([int(m.replace(".", "")) for m, _ in texts], dtype=np.int64)
        power = np.array([int(e) - self.mantissa + 1 for _, e in texts], dtype=np.int64)
        above = power > self._largest
        number = np.where(above, 10**self.mantissa - 1, number)
        return number, np.where(number == 0, 0, np.minimum(power, self._largest))

    def _truncated(self, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mantissas as integers, cut off after their last digit, and the exponents of the first."""
        full, first = self.base**self.mantissa, self.base ** (self.mantissa - 1)
        some = size > 0
        power = np.zeros(len(size), dtype=np.int64)
        power[some] = np.floor(np.log(size[some]) / math.log(self.base))
        scaled = self._times_power(size, self.mantissa - 1 - power)
        power -= some & (scaled < first * (1 - _ROUNDING))  # a logarithm can be off by one
        scaled = self._times_power(size, self.mantissa - 1 - power)
        power += scaled >= full
        scaled = self._times_power(size, self.mantissa - 1 - power)
        number = np.where(some, np.clip(np.floor(scaled), first, full - 1), 0)
        number = np.where(power < -self._largest, 0, number)
        number = np.where(power > self._largest, full - 1, number)
        lowest = np.where(number > 0, -self._largest, 0)
        return number.astype(np.int64), np.clip(power, lowest, self._largest)

    def _times_power(self, x: np.ndarray, power: np.ndarray) -> np.ndarray:
        """``x * base ** power`` with one rounding, or more where the power alone is no float."""
        limit = len(self._powers) // 2
        rest = power
        while (rest != 0).any():
            step = np.clip(rest, -limit, limit)
            x = x * self._powers[step + limit]
            rest = rest - step
        return x

    def _digits(self, number: np.ndarray, count: int) -> np.ndarray:
        powers = self.base ** np.arange(count - 1, -1, -1)
        return number[:, None] // powers % self.base + self._digit

    def _number(self, tokens: np.ndarray) -> np.ndarray:
        powers = float(self.base) ** np.arange(tokens.shape[1] - 1, -1, -1)
        return (tokens - self._digit) @ powers

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        tokens = np.asarray(tokens)
        sign = np.where(tokens[:, 0] == self._minus, -1.0, 1.0)
        if self.style == "p10":
            mantissa = self._number(tokens[:, 1 : 1 + self.mantissa])
            power = tokens[:, -1] - self._exp - self.exponent
        else:
            mantissa = self._number(tokens[:, -self.mantissa :]) / self.base ** (self.mantissa - 1)
            power = self._number(tokens[:, 2 : 2 + self.exponent]).astype(np.int64)
            power = np.where(tokens[:, 1] == self._minus, -power, power)
        special = tokens[:, 0] < SPECIAL
        power = np.where(special | (mantissa == 0), 0, np.clip(power, -_FAR, _FAR))
        with np.errstate(over="ignore", under="ignore"):
            size = np.minimum(self._times_power(mantissa, power), _HUGE)
        return np.where(special, np.nan, sign * size)

    def masks(self) -> np.ndarray:
        allowed = np.zeros((self.length, self.vocab_size), dtype=bool)
        allowed[0, [FAILED, NAN, self._plus, self._minus]] = True
        digits = slice(self._digit, self._digit + self.base)
        if self.style == "p10":
            allowed[1:-1, digits] = True
            allowed[-1, self._exp :] = True
        else:
            allowed[1, [self._plus, self._minus]] = True
            allowed[2:, digits] = True
        return allowed


def _powers(base: int) -> np.ndarray:
    """``base ** k`` for k from -n to n, each rounded once; n is the last whose power is a float."""
    last = int(math.log(_HUGE) / math.log(base))
    last -= base**last > _HUGE
    return np.array([base**k for k in range(-last, last + 1)], dtype=np.float64)
