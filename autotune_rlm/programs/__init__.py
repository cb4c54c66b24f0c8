"""Programs of any language: what their text says of the memory and the time that they take.

The facts are for programs what ``ir`` finds in kernels: numbers that carry over from one text to
another. Nothing is run. Of Python the syntax tree is read, and what importing the modules of the
standard library is known to cost; of any language its words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autotune_rlm.programs._any import NAMES as _ANY
from autotune_rlm.programs._any import any_facts
from autotune_rlm.programs._python import NAMES as _PYTHON
from autotune_rlm.programs._python import python_facts

__all__ = ["COLUMNS", "SIZES", "are_programs", "columns"]

COLUMNS: tuple[str, ...] = (*(f"python {name}" for name in _PYTHON), *_ANY)
"""Names of the columns, in the order of ``columns``."""
SIZES = ("items", "characters", "largest", "depth", "lines")
"""Sizes of a program's input, as ``autotune-rlm record --programs`` writes them."""
_LOOKED_AT = 40
_MIN_NODES = 30
_NODES = _PYTHON.index("nodes")


def columns(texts: Sequence[str]) -> np.ndarray:
    """The facts of n programs as logarithms of 1 + each, float32 (n, len(COLUMNS)).

    Equal texts are read once. The facts of Python are 0 for what does not parse as Python.
    """
    known: dict[str, np.ndarray] = {}
    for text in texts:
        if text not in known:
            facts = [*python_facts(text).values(), *any_facts(text).values()]
            known[text] = np.log1p(np.maximum(facts, 0.0)).astype(np.float32)
    rows = [known[text] for text in texts]
    return np.stack(rows) if rows else np.zeros((0, len(COLUMNS)), dtype=np.float32)


def are_programs(texts: Sequence[str]) -> bool:
    """Whether most of some texts are programs: they parse as Python, or end their lines as code does."""
    some = list(dict.fromkeys(texts))[:: max(1, len(set(texts)) // _LOOKED_AT)][:_LOOKED_AT]
    return bool(some) and sum(map(_is_program, some)) > 0.5 * len(some)


def _is_program(text: str) -> bool:
    if list(python_facts(text).values())[_NODES] >= _MIN_NODES:
        return True
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return len(lines) > 2 and sum(
        line.endswith((";", "{", "}", ")")) for line in lines
    ) > 0.5 * len(lines)
