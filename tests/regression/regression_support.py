from __future__ import annotations

import numpy as np


class Table:
    """Calls of functions whose cost follows from the function and from a size beside the text."""

    def __init__(self, rows: int = 240, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        names = ["sort", "scan", "hash", "join"]
        which = rng.integers(4, size=rows)
        self.size = rng.integers(1, 1000, size=rows)
        self.texts = [
            f"def run{i}(x):\n    return {names[k]}(x, {rng.integers(9)})"
            for i, k in enumerate(which)
        ]
        level = np.array([0.0, 1.0, 2.5, 4.0])[which]
        noise = 0.1 * rng.standard_normal(rows)
        self.bytes = np.exp(level + np.log(self.size) + noise)
        self.change = np.round(100 * (level - 2) + noise, 3)
        self.fields = {"size": self.size.tolist(), "kind": ["a" if k < 2 else "b" for k in which]}
