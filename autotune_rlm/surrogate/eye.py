"""The compiler's eye of a checkpoint: predicts times of unmeasured kernels from the compiler's facts.

Raw tile sizes do not transfer from one kernel to another. Facts that follow from the compiler's first
IR and the device do (``ir.on_device``). A model of the multiprocessor with few constants
(``ir.time_us``) estimates each candidate's time, and boosted trees over the same facts correct the
estimate. Both were fitted to the same recorded landscapes and winners as the network.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

from autotune_rlm.devices import lookup
from autotune_rlm.surrogate.known import kind_of
from autotune_rlm.surrogate.text import normalise_name
from autotune_rlm.surrogate.trees import Trees
from autotune_rlm.types import Candidate

__all__ = ["COLUMNS", "Eye", "Seen", "columns", "expected", "has_facts", "turning_costs"]

_FILE = "eye.safetensors"
_OVER = "expected_ms"  # the fact whose value the trees correct
_PLAIN = (
    "shared_share", "occupancy", "tail", "busy", "imbalance", "active", "asynchronous", "chained",
    "stages",
)  # fmt: skip
_LOGS = (
    "registers", "excess_registers", "shared_bytes", "resident", "by_shared", "by_registers",
    "by_threads", "waves", "intensity", "dot_over_memory", "bytes_in_flight", "live_words",
    "index_words", "accumulator_words", "tile_words", "vector_bytes", "trips", "work_per_trip",
    "warp_rows", "warp_columns", "dot_k", "reuse", "warps", "warp_redundancy", "stage_kb",
    "operations", "run_bytes", "converted_kb", "unpiped", "barriers",
)  # fmt: skip
_TIMES = (
    "dot_ms", "float_ms", "special_ms", "issue_ms", "memory_ms", "l2_ms", "shared_ms", "atomic_ms",
    "wave_ms",
)  # fmt: skip
_WHOLE = "roofline_ms"
COLUMNS = (
    *_PLAIN,
    *_LOGS,
    *(f"{name} of roofline" for name in _TIMES),
    *(f"{name} over least" for name in (*_TIMES, _WHOLE)),
    f"{_WHOLE} least",
    "group",
)
"""Names of the columns, in the order of ``columns``."""
_MIN_MS = 1e-6
_TURNING = float(np.log(3.0))
"""Cost of a read, a write and another read of shared memory over that of one read, as a logarithm."""
_MAX_SURE_SHARE = 0.95  # share of the shared memory limit up to which a candidate surely fits
_MIN_P_FITTING = 0.9  # least predicted probability of working of candidates that surely fit
_OTHER_KIND = 0.5
"""Share of the trees' correction on kinds of kernels that were not timed on several devices. Of 0.25, 0.5
and 1 it ranked kernels best that were left out of the fit (``benchmarks/own_landscapes.py``)."""
WORST = 2.5
"""Logarithm of a slow-down beyond which it does not matter how slow."""
_PARTS = ("slowdown", "works", "plain")


def turning_costs(candidates: Sequence[Candidate]) -> np.ndarray:
    """Added cost of a ``wgmma`` whose operand is first transposed in shared memory, (n,), logarithms.

    Devices before Hopper have no ``wgmma``, so that times measured on them do not include this cost.
    """
    return np.array([_TURNING * c.facts.get("turned", 0.0) for c in candidates])


def expected(candidates: Sequence[Candidate]) -> np.ndarray:
    """Logarithm of each candidate's time in ms as estimated from the facts alone, (n,).

    A candidate without facts gets the median of the others.
    """
    times = np.log([max(c.facts.get("expected_ms", np.nan), _MIN_MS) for c in candidates])
    has_time = ~np.isnan(times)
    return np.where(has_time, times, np.median(times[has_time]) if has_time.any() else 0.0)


def has_facts(candidates: Sequence[Candidate]) -> bool:
    """Whether most of the candidates come with facts."""
    count = sum(1 for c in candidates if _WHOLE in c.facts)
    return count > 0 and count >= 0.5 * len(candidates)


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
    times = np.log2(np.maximum(raw[:, second:], _MIN_MS))
    complete = times[~np.isnan(times).any(1)]
    least = complete.min(0) if len(complete) else np.zeros(times.shape[1])
    of_whole = times[:, :-1] - times[:, -1:]
    whole = np.broadcast_to(least[-1:], (len(times), 1))
    group = np.log2([[_group(c)] for c in candidates]) if candidates else np.zeros((0, 1))
    out = np.hstack([plain, sizes, of_whole, times - least, whole, group])
    return out.astype(np.float32)


def _group(candidate: Candidate) -> float:
    """Tiles of rows that are taken together, by the parameter that many kernels have; NaN without."""
    for name, value in candidate.config.items():
        if normalise_name(str(name)) == "group_m" and isinstance(value, (int, float)) and value > 0:
            return float(value)
    return np.nan


class Seen(NamedTuple):
    """The prediction from the facts of n candidates.

    Attributes:
        slowdown: Logarithm of the time, up to a constant, (n,).
        costs: The part of it that is ``turning_costs``.
        p_valid: Probability of working, (n,).
        best: Logarithm of the best time in ms.
        states: The columns, scaled, for distances between candidates, (n, c).
        spread: Standard deviation of the error of ``slowdown``, (n,).
        scale_spread: Standard deviation of the error of ``best``.
    """

    slowdown: np.ndarray
    costs: np.ndarray
    p_valid: np.ndarray
    best: float
    states: np.ndarray
    spread: np.ndarray
    scale_spread: float


@dataclass(frozen=True, eq=False)
class Eye:
    """A checkpoint's models from facts to times. Each maps the columns of ``columns`` to a number.

    Attributes:
        slowdown: Logarithm of the time over the expected one, up to a constant for each task.
        works: Log-odds that a candidate compiles and fits.
        plain: The slow-down by one ensemble with a squared loss, for the bench's method ``trees``.
        spreads: Standard deviations of errors on kernels that were left out: of the slow-down of what
            is expected to be fastest, how much more for each e-fold of expected slow-down, of the best
            time on an architecture that the kind was timed on, and on another one.
        scales: Logarithm of measured over expected times by kind and device, such as ``"product on
            NVIDIA H100"``: the mean over kernels.
        kinds: Kinds of kernels that were timed on several devices, see ``known.kind_of``.
    """

    slowdown: Trees
    works: Trees
    plain: Trees
    spreads: tuple[float, float, float, float]
    scales: Mapping[str, float]
    kinds: tuple[str, ...] = ("product",)

    def times(
        self,
        x: np.ndarray,
        expected_log: np.ndarray,
        kind: str,
        device: str,
        known: np.ndarray | None = None,
    ) -> tuple[np.ndarray, float]:
        """Logarithms of n times in ms up to a constant, (n,), and of the best time.

        Args:
            x: ``columns`` of the candidates.
            expected_log: ``expected`` of them.
            kind: ``known.kind_of`` them. For other kinds than ``kinds`` only ``_OTHER_KIND`` of the
                correction counts.
            device: Its name.
            known: Which of them have facts, (n,); None for all.
        """
        share = 1.0 if kind in self.kinds else _OTHER_KIND
        slowdown = expected_log + share * self.slowdown.predict(x)
        logs = expected_log + self._scale(kind, device)[0] - slowdown
        return slowdown, float(np.median(logs if known is None else logs[known]) + slowdown.min())

    def look(self, candidates: Sequence[Candidate], device: str) -> Seen:
        """The prediction for candidates on a device; those without facts count as typical ones."""
        x = columns(candidates)
        with_facts = np.array([_WHOLE in c.facts for c in candidates])
        kind = kind_of(candidates)
        slowdown, best = self.times(x, expected(candidates), kind, device, with_facts)
        works = 1.0 / (1.0 + np.exp(-np.clip(self.works.predict(x), -30.0, 30.0)))
        fits = x[:, COLUMNS.index("shared_share")] <= _MAX_SURE_SHARE
        p_valid = np.where(fits, np.maximum(works, _MIN_P_FITTING), works)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a column that no candidate has
            centred = np.nan_to_num(x - np.nanmean(x[with_facts], axis=0))
        deviation = centred.std(0)
        states = centred / np.where(deviation > 0, deviation, 1.0)
        costs = turning_costs(candidates)
        spread, scale_spread = self.spread(slowdown), self._scale(kind, device)[1]
        return Seen(slowdown, costs, p_valid, best, states, spread, scale_spread)

    def spread(self, slowdown: np.ndarray) -> np.ndarray:
        """Standard deviations of the errors of predicted logarithms of times, (n,)."""
        return self.spreads[0] + self.spreads[1] * np.minimum(slowdown - slowdown.min(), WORST)

    def is_timed(self, kind: str, device: str) -> bool:
        """Whether such kernels were timed on the device, or on another one of its architecture."""
        return bool(self._scales_of(kind, lookup(device).target))

    def _scales_of(self, kind: str, target: str | None = None) -> list[float]:
        """``scales`` of a kind, on devices of one architecture or on all."""
        return [
            value
            for (of, _, device), value in ((k.partition(" on "), v) for k, v in self.scales.items())
            if of == kind and target in (None, lookup(device).target)
        ]

    def _scale(self, kind: str, device: str) -> tuple[float, float]:
        """Logarithm of actual over expected times, and its standard deviation.

        It is that of the kind on the device, else the median of the kind on devices of its architecture,
        else on all; for a kind with products that was never timed that of products.
        """
        if f"{kind} on {device}" in self.scales:
            return self.scales[f"{kind} on {device}"], self.spreads[2]
        if known := self._scales_of(kind, lookup(device).target):
            return float(np.median(known)), self.spreads[2]
        for like in (kind, "product" if "product" in kind else kind):
            if known := self._scales_of(like):
                return float(np.median(known)), self.spreads[3]
        return 0.0, self.spreads[3]

    def save(self, folder: Path) -> None:
        """Write it beside a checkpoint's weights."""
        arrays = {
            f"{name}.{part}": np.ascontiguousarray(array)
            for name in _PARTS
            for part, array in getattr(self, name).arrays().items()
        }
        arrays["spreads"] = np.array(self.spreads)
        arrays["scales"] = np.array([*self.scales.values()])
        save_file(arrays, str(folder / _FILE), metadata=self._about())

    def _about(self) -> dict[str, str]:
        lists = {"columns": COLUMNS, "kinds": self.kinds, "scales": self.scales}
        return {"over": _OVER, **{name: "\n".join(items) for name, items in lists.items()}}

    @classmethod
    def load(cls, folder: Path) -> Eye | None:
        """Read it; None where the checkpoint has none, or one of an earlier form."""
        file = folder / _FILE
        if not file.exists():
            return None
        from safetensors import safe_open

        with safe_open(str(file), "numpy") as opened:
            about = opened.metadata() or {}
        if about.get("columns") != "\n".join(COLUMNS) or about.get("over") != _OVER:
            return None
        arrays = load_file(str(file))
        if "scales" not in about or arrays["spreads"].shape != (4,):
            return None
        parts = {
            name: Trees.from_arrays(
                {k[len(name) + 1 :]: v for k, v in arrays.items() if k.startswith(f"{name}.")}
            )
            for name in _PARTS
        }
        fastest, more, timed, other = map(float, arrays["spreads"])
        names = about["scales"].split("\n") if about["scales"] else []
        scales = dict(zip(names, map(float, arrays["scales"]), strict=True))
        kinds = tuple(about["kinds"].split("\n"))
        return cls(**parts, spreads=(fastest, more, timed, other), scales=scales, kinds=kinds)
