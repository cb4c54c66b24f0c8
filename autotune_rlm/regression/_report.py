"""Scores of a fit on rows that it was not trained on, beside those of the simplest models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of predicted numbers.

    Attributes:
        spearman: Rank correlation; 0 where either never varies.
        r2: Coefficient of determination of the numbers themselves.
        error: Root mean squared error on the standardised scale of training; 1 is about a constant's.
        coverage: Share of the numbers in their 90 % intervals; None where there are none.
        rows: Rows that were judged.
    """

    spearman: float
    r2: float
    error: float
    coverage: float | None
    rows: int


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """The report of ``RLM.fit``.

    Attributes:
        rows: Rows learned from, judged for the stopping, and judged for this report.
        scores: By target, scores of ``"constant"``, ``"ridge"`` (TF-IDF of the text and the fields),
            ``"trees"`` (ridge and boosted trees, the leading model), ``"network"`` (the leading model
            corrected by the network in full) and ``"used"`` (what ``predict`` gives).
        shares: By target, the share of the network's correction that is used; 0 where the leading
            model alone is better on the held-out part.
        steps: Steps until the weights that were kept.
        seconds: Wall-clock seconds of the whole fit.
        warnings: What a user has to know, as sentences.
    """

    rows: tuple[int, int, int]
    scores: dict[str, dict[str, Scores]]
    shares: dict[str, float]
    steps: int
    seconds: float
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FitReport:
        """The inverse of ``to_json``."""
        scores = {
            target: {name: Scores(**s) for name, s in by_name.items()}
            for target, by_name in data["scores"].items()
        }
        fields = {**data, "scores": scores, "rows": tuple(data["rows"])}
        return cls(**{**fields, "warnings": tuple(data["warnings"])})

    def __str__(self) -> str:
        lines = [
            f"learned from {self.rows[0]} rows, stopped by {self.rows[1]}, judged on {self.rows[2]} "
            f"that were never used; {self.seconds:.0f} s"
        ]
        for target, by_name in self.scores.items():
            lines.append(f"{target + ':':28} Spearman       R2    error  in 90 % interval")
            for name, s in by_name.items():
                cover = "" if s.coverage is None else f"{100 * s.coverage:.0f} %"
                lines.append(
                    f"  {name:26} {s.spearman:8.3f} {s.r2:8.3f} {s.error:8.3f}  {cover:>8}"
                )
        return "\n".join([*lines, *(f"NOTE: {w}" for w in self.warnings)])


def scores_of(
    numbers: np.ndarray,
    predicted: np.ndarray,
    scaled_errors: np.ndarray,
    interval: tuple[np.ndarray, np.ndarray] | None = None,
) -> Scores:
    """Scores of n predictions and their 90 % intervals; rows without a number do not count."""
    from scipy.stats import spearmanr

    has_number = np.isfinite(numbers)
    y, p = numbers[has_number], predicted[has_number]
    if len(y) < 2:
        return Scores(spearman=0.0, r2=0.0, error=0.0, coverage=None, rows=len(y))
    varies = np.ptp(y) > 0 and np.ptp(p) > 0
    size = float(np.abs(y).max()) or 1.0  # so that squares stay floats
    residual, total = ((y - p) / size) ** 2, ((y - y.mean()) / size) ** 2
    inside = None
    if interval is not None:
        low, high = interval[0][has_number], interval[1][has_number]
        inside = float(((y >= low) & (y <= high)).mean())
    return Scores(
        spearman=float(spearmanr(y, p).statistic) if varies else 0.0,
        r2=1.0 - float(residual.sum()) / max(float(total.sum()), 1e-300),
        error=float(np.sqrt(np.mean(scaled_errors[has_number] ** 2))),
        coverage=inside,
        rows=len(y),
    )
