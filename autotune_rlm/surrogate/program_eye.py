"""The eye for programs of a checkpoint: what the facts of a program's text say of its memory and time.

As the compiler's eye does for kernels, boosted trees over facts that carry over from one program to
another (``autotune_rlm.programs``) stand beside the network behind one surrogate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

from autotune_rlm import programs
from autotune_rlm.surrogate.trees import Trees
from autotune_rlm.types import Candidate, Task

__all__ = [
    "SIZES",
    "LanguageScale",
    "ProgramEye",
    "ProgramMetric",
    "ProgramWord",
    "program_columns",
]

_FILE = "programs.safetensors"
_Z90 = 1.6448536
SIZES = ("items", "characters", "largest", "depth", "lines")
"""Sizes of an input, as ``autotune-rlm record --programs`` writes them; what is not told is NaN."""


@dataclass(frozen=True)
class LanguageScale:
    """How a metric is distributed over the programs of one language, and how far off the eye is.

    Attributes:
        center: Mean of ``log(1 + value)``.
        spread: Standard deviation of it.
        low: 5 % quantile of true minus predicted ``log(1 + value)`` on programs that were left out.
        high: 95 % quantile.
    """

    center: float
    spread: float
    low: float = -1.0
    high: float = 1.0


@dataclass(frozen=True, eq=False)
class ProgramMetric:
    """One metric, such as ``peak_bytes``: its trees, and its scale in each language.

    Attributes:
        trees: From ``program_columns`` to the standardised logarithm.
        languages: By name, in the order of their columns.
        share: The eye's say beside the network's, where that knows the metric.
    """

    trees: Trees
    languages: Mapping[str, LanguageScale]
    share: float = 1.0


class ProgramWord(NamedTuple):
    """What the eye says of n programs: ``log(1 + value)`` and standard deviations of both sides."""

    mean: np.ndarray
    down: np.ndarray
    up: np.ndarray
    share: float


def program_columns(
    candidates: Sequence[Candidate], language: str, languages: Sequence[str]
) -> np.ndarray:
    """Facts of the candidates' texts, sizes of their inputs, and the language, float32 (n, columns)."""
    facts = programs.columns([c.text for c in candidates])
    told = [[_number(c.config.get(name)) for name in SIZES] for c in candidates]
    sizes = np.log1p(np.abs(np.array(told, dtype=np.float64).reshape(len(candidates), len(SIZES))))
    kinds = np.tile([float(name == language) for name in languages], (len(candidates), 1))
    return np.hstack([facts, sizes, kinds]).astype(np.float32)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan


@dataclass(frozen=True, eq=False)
class ProgramEye:
    """What a checkpoint has learned of programs' facts, by metric."""

    metrics: Mapping[str, ProgramMetric]

    def knows(self, task: Task) -> bool:
        """Whether it was told this metric of programs in this language."""
        found = self.metrics.get(task.metric)
        return found is not None and task.language in found.languages

    def look(self, task: Task, candidates: Sequence[Candidate]) -> ProgramWord | None:
        """What it says; None where it does not know the metric, or a candidate has no text."""
        if not self.knows(task) or not all(c.text for c in candidates):
            return None
        metric = self.metrics[task.metric]
        scale = metric.languages[task.language]
        x = program_columns(candidates, task.language, tuple(metric.languages))
        logs = np.maximum(scale.center + scale.spread * metric.trees.predict(x), 0.0)
        one = np.ones(len(candidates))
        return ProgramWord(logs, one * -scale.low / _Z90, one * scale.high / _Z90, metric.share)

    def save(self, folder: Path) -> None:
        """Write it beside a checkpoint's weights."""
        arrays = {
            f"{name}.{part}": np.ascontiguousarray(array)
            for name, metric in self.metrics.items()
            for part, array in metric.trees.arrays().items()
        }
        told = {
            name: {
                "share": metric.share,
                "languages": {key: vars(scale) for key, scale in metric.languages.items()},
            }
            for name, metric in self.metrics.items()
        }
        columns = "\n".join((*programs.COLUMNS, *SIZES))
        metadata = {"columns": columns, "metrics": json.dumps(told)}
        save_file(arrays, str(folder / _FILE), metadata=metadata)

    @classmethod
    def load(cls, folder: Path) -> ProgramEye | None:
        """Read it; None where the checkpoint has none, or one of other columns than these."""
        file = folder / _FILE
        if not file.exists():
            return None
        from safetensors import safe_open

        with safe_open(str(file), "numpy") as opened:
            metadata = opened.metadata() or {}
        if metadata.get("columns") != "\n".join((*programs.COLUMNS, *SIZES)):
            return None
        arrays = load_file(str(file))
        found = {}
        for name, told in json.loads(metadata["metrics"]).items():
            own = {k[len(name) + 1 :]: v for k, v in arrays.items() if k.startswith(f"{name}.")}
            scales = {key: LanguageScale(**scale) for key, scale in told["languages"].items()}
            found[name] = ProgramMetric(Trees.from_arrays(own), scales, float(told["share"]))
        return cls(found)

    def with_share(self, metric: str, share: float) -> ProgramEye:
        """The same with another say of the eye beside the network's."""
        changed = replace(self.metrics[metric], share=share)
        return ProgramEye({**self.metrics, metric: changed})
