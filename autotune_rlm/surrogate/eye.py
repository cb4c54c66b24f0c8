"""The compiler's eye of a checkpoint: what the facts of unmeasured kernels say about their times.

Raw tile sizes do not carry over from one kernel to another; what the compiler's first IR and the
device say of a configuration does (``ir.on_device``). Boosted trees over those numbers rank the
candidates of a kernel that was never seen in any form. They were trained on the same recorded
landscapes and winners as the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from autotune_rlm.surrogate.trees import Trees
from autotune_rlm.types import Candidate

__all__ = ["COLUMNS", "Eye", "columns", "has_facts"]

_FILE = "eye.safetensors"
_PLAIN = (
    "shared_share", "occupancy", "tail", "busy", "imbalance", "active", "asynchronous", "chained",
    "stages",
)  # fmt: skip
_LOGS = (
    "registers", "excess_registers", "shared_bytes", "resident", "by_shared", "by_registers",
    "by_threads", "waves", "intensity", "dot_over_memory", "bytes_in_flight", "live_words",
    "index_words", "accumulator_words", "tile_words", "vector_bytes", "trips", "work_per_trip",
    "warp_rows", "warp_columns", "dot_k", "reuse", "warps", "warp_redundancy", "stage_kb",
    "operations",
)  # fmt: skip
_TIMES = (
    "dot_ms", "float_ms", "special_ms", "issue_ms", "memory_ms", "l2_ms", "shared_ms", "wave_ms",
)  # fmt: skip
_WHOLE = "roofline_ms"
COLUMNS = (
    *_PLAIN,
    *_LOGS,
    *(f"{name} of roofline" for name in _TIMES),
    *(f"{name} over least" for name in (*_TIMES, _WHOLE)),
    f"{_WHOLE} least",
)
"""Names of the columns, in the order of ``columns``."""
_LEAST_MS = 1e-6


def has_facts(candidates: Sequence[Candidate]) -> bool:
    """Whether most of the candidates come with facts."""
    known = sum(1 for c in candidates if _WHOLE in c.facts)
    return known > 0 and known >= 0.5 * len(candidates)


def columns(candidates: Sequence[Candidate]) -> np.ndarray:
    """The facts of n candidates as columns without units, float32 (n, len(COLUMNS)).

    Sizes enter as base-2 logarithms, times over the roofline's and over the least of the candidates.
    NaN where a fact is not known.
    """
    names = (*_PLAIN, *_LOGS, *_TIMES, _WHOLE)
    raw = np.array([[c.facts.get(name, np.nan) for name in names] for c in candidates])
    raw = raw.reshape(len(candidates), len(names))
    first, second = len(_PLAIN), len(_PLAIN) + len(_LOGS)
    plain, sizes = raw[:, :first], np.log2(np.maximum(raw[:, first:second], 0.0) + 1e-3)
    times = np.log2(np.maximum(raw[:, second:], _LEAST_MS))
    known = times[~np.isnan(times).any(1)]
    least = known.min(0) if len(known) else np.zeros(times.shape[1])
    of_whole = times[:, :-1] - times[:, -1:]
    whole = np.broadcast_to(least[-1:], (len(times), 1))
    out = np.hstack([plain, sizes, of_whole, times - least, whole])
    return out.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Eye:
    """What a checkpoint has learned of facts.

    Attributes:
        slowdown: Of the columns: logarithm of the time, up to what all candidates of a task share.
        works: Of the columns: logarithm of the odds that a candidate compiles and fits.
        scale: Of the columns: logarithm of the time over the roofline's.
        spread: Standard deviation of the error of ``slowdown`` on kernels that were left out.
        scale_spread: Of ``scale``.
    """

    slowdown: Trees
    works: Trees
    scale: Trees
    spread: float
    scale_spread: float

    def save(self, folder: Path) -> None:
        """Write it beside a checkpoint's weights."""
        arrays = {
            f"{name}.{part}": np.ascontiguousarray(array)
            for name in ("slowdown", "works", "scale")
            for part, array in getattr(self, name).arrays().items()
        }
        arrays["spreads"] = np.array([self.spread, self.scale_spread])
        save_file(arrays, str(folder / _FILE), metadata={"columns": "\n".join(COLUMNS)})

    @classmethod
    def load(cls, folder: Path) -> Eye | None:
        """Read it; None where the checkpoint has none, or one of other columns than these."""
        file = folder / _FILE
        if not file.exists():
            return None
        from safetensors import safe_open

        with safe_open(str(file), "numpy") as opened:
            if (opened.metadata() or {}).get("columns") != "\n".join(COLUMNS):
                return None
        arrays = load_file(str(file))
        parts = [
            Trees.from_arrays(
                {k.removeprefix(f"{n}."): v for k, v in arrays.items() if k.startswith(f"{n}.")}
            )
            for n in ("slowdown", "works", "scale")
        ]
        spread, scale_spread = arrays["spreads"]
        return cls(*parts, float(spread), float(scale_spread))
