"""Folds repeated runs of lines: ``["a", "b", "a", "b"]`` becomes ``["2x{", "a", "b", "}"]``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MAX_LENGTH = 1024  # lines of the longest block that is looked for


def fold(lines: Sequence[str]) -> list[str]:
    """The lines with repeated blocks written once, the largest saving first, nested ones inside.

    A block is folded where that makes the text shorter by at least one line.
    """
    folded: list[str] = []
    pending: list[tuple[Sequence[str], str]] = [(lines, "")]
    while pending:
        part, plain = pending.pop()
        if plain:
            folded.append(plain)
            continue
        found = _best_repeat(part)
        if found is None:
            folded.extend(part)
            continue
        start, period, count = found
        pending.append((part[start + period * count :], ""))
        pending.append(((), "}"))
        pending.append((part[start : start + period], ""))
        pending.append(((), f"{count}x{{"))
        pending.append((part[:start], ""))
    return folded


def _best_repeat(lines: Sequence[str]) -> tuple[int, int, int] | None:
    """``(start, period, count)`` of the repeat that saves most lines; None where none saves any."""
    n = len(lines)
    if n < 4:
        return None
    codes = np.unique(np.asarray(lines, dtype=object).astype(str), return_inverse=True)[1]
    best, saved_most = None, 0
    for period in range(1, min(n // 2, _MAX_LENGTH) + 1):
        equal = codes[:-period] == codes[period:]
        edges = np.flatnonzero(np.diff(np.concatenate(([0], equal.view(np.int8), [0]))))
        starts, lengths = edges[::2], edges[1::2] - edges[::2]
        counts = lengths // period + 1
        savings = period * (counts - 1) - 2
        i = int(np.argmax(savings)) if len(savings) else -1
        if i >= 0 and counts[i] >= 2 and savings[i] > saved_most:
            best, saved_most = (int(starts[i]), period, int(counts[i])), int(savings[i])
    return best
