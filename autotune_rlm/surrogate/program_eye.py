"""The eye for programs of a checkpoint: predicts memory and time from facts of a program's text.

Boosted trees read facts that transfer from one program to another (``autotune_rlm.programs``). Their
prediction is mixed with the network's, as that of the compiler's eye is for kernels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

from autotune_rlm import programs
from autotune_rlm.programs import SIZES
from autotune_rlm.surrogate.trees import Trees
from autotune_rlm.types import Candidate, Task

__all__ = [
    "SIZES",
    "LanguageScale",
    "ProgramEye",
    "ProgramMetric",
    "ProgramPrediction",
    "program_columns",
]

_FILE = "programs.safetensors"
_Z90 = 1.6448536


@dataclass(frozen=True)
class LanguageScale:
    """Distribution of a metric over the programs of one language, and the eye's errors.

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
        share: Weight of the eye's prediction beside the network's, where both know the metric.
    """

    trees: Trees
    languages: Mapping[str, LanguageScale]
    share: float = 1.0


class ProgramPrediction(NamedTuple):
    """The eye's prediction for n programs: ``log(1 + value)`` and standard deviations of both sides."""

    mean: np.ndarray
    down: np.ndarray
    up: np.ndarray
    share: float


def program_columns(
    candidates: Sequence[Candidate], language: str, languages: Sequence[str]
) -> np.ndarray:
    """Facts of the candidates' texts, sizes of their inputs, and the language, float32 (n, columns)."""
    facts = programs.columns([c.text for c in candidates])
    raw = [[_number(c.config.get(name)) for name in SIZES] for c in candidates]
    sizes = np.log1p(np.abs(np.array(raw, dtype=np.float64).reshape(len(candidates), len(SIZES))))
    indicators = np.tile([float(name == language) for name in languages], (len(candidates), 1))
    return np.hstack([facts, sizes, indicators]).astype(np.float32)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan


@dataclass(frozen=True, eq=False)
class ProgramEye:
    """A checkpoint's models from facts of programs to numbers, by metric."""

    metrics: Mapping[str, ProgramMetric]

    def knows(self, task: Task) -> bool:
        """Whether it was fitted to this metric of programs in this language."""
        metric = self.metrics.get(task.metric)
        return metric is not None and task.language in metric.languages

    def look(self, task: Task, candidates: Sequence[Candidate]) -> ProgramPrediction | None:
        """The prediction; None where it does not know the metric, or a candidate has no text."""
        if not self.knows(task) or not all(c.text for c in candidates):
            return None
        metric = self.metrics[task.metric]
        scale = metric.languages[task.language]
        x = program_columns(candidates, task.language, tuple(metric.languages))
        logs = np.maximum(scale.center + scale.spread * metric.trees.predict(x), 0.0)
        one = np.ones(len(candidates))
        return ProgramPrediction(
            logs, one * -scale.low / _Z90, one * scale.high / _Z90, metric.share
        )

    def save(self, folder: Path) -> None:
        """Write it beside a checkpoint's weights."""
        arrays = {
            f"{name}.{part}": np.ascontiguousarray(array)
            for name, metric in self.metrics.items()
            for part, array in metric.trees.arrays().items()
        }
        scales = {
            name: {
                "share": metric.share,
                "languages": {key: vars(scale) for key, scale in metric.languages.items()},
            }
            for name, metric in self.metrics.items()
        }
        columns = "\n".join((*programs.COLUMNS, *SIZES))
        metadata = {"columns": columns, "metrics": json.dumps(scales)}
        save_file(arrays, str(folder / _FILE), metadata=metadata)

    @classmethod
    def load(cls, folder: Path) -> ProgramEye | None:
        """Read it; None where the checkpoint has none, or its columns are not those of this version."""
        file = folder / _FILE
        if not file.exists():
            return None
        from safetensors import safe_open

        with safe_open(str(file), "numpy") as opened:
            metadata = opened.metadata() or {}
        if metadata.get("columns") != "\n".join((*programs.COLUMNS, *SIZES)):
            return None
        arrays = load_file(str(file))
        metrics = {}
        for name, settings in json.loads(metadata["metrics"]).items():
            own = {k[len(name) + 1 :]: v for k, v in arrays.items() if k.startswith(f"{name}.")}
            scales = {key: LanguageScale(**scale) for key, scale in settings["languages"].items()}
            metrics[name] = ProgramMetric(Trees.from_arrays(own), scales, float(settings["share"]))
        return cls(metrics)
