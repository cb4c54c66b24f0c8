"""Numbers as smooth features, so that 4096 and 8192 are near each other and 6000 makes sense.

A number is described by its sign, its base-2 logarithm (linear, and as slow waves whose longest
period spans all sizes), how far it lies between powers of two, and by which powers of two it is
divisible. Logarithmic features extrapolate beyond the trained range; tokens of digits do not.
"""

from __future__ import annotations

import numpy as np

__all__ = ["NUMBER_FEATURES", "number_features"]

_PERIODS = (64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0)
_DIVISIBLE = 8
_SMALL = 8
NUMBER_FEATURES = 6 + 2 * len(_PERIODS) + _DIVISIBLE + 1 + _SMALL + 1


def number_features(values: np.ndarray) -> np.ndarray:
    """Features of finite floats (n,): float32 (n, ``NUMBER_FEATURES``), each within about [-4, 4]."""
    x = np.nan_to_num(np.asarray(values, dtype=np.float64), posinf=1e300, neginf=-1e300)
    size = np.abs(x)
    log2 = np.log2(np.clip(size, 2.0**-20, 2.0**60))
    whole = (size == np.floor(size)) & (size < 2.0**52)
    columns = [
        np.sign(x),
        (size == 0).astype(float),
        whole.astype(float),
        log2 / 12.0,
        (log2 / 24.0) ** 2,
        np.where(size < 8, size, 8.0) / 8.0,
    ]
    for period in _PERIODS:
        angle = 2 * np.pi * log2 / period
        columns += [np.sin(angle), np.cos(angle)]
    integer = np.where(whole, size, 1.0).astype(np.int64)
    for power in range(1, _DIVISIBLE + 1):
        columns.append(whole & (integer % (1 << power) == 0) & (size > 0))
    columns.append(whole & (size > 0) & (integer & (integer - 1) == 0))
    for small in range(_SMALL + 1):
        columns.append(size == small)
    return np.stack([np.asarray(c, dtype=np.float32) for c in columns], axis=1)
