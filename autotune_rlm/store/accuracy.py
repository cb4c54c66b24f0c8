"""How right the surrogate was: rank statistics and the record that every tuning run leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from autotune_rlm._json import known_fields
from autotune_rlm.types import Candidate, Measurement, Prediction

__all__ = [
    "PredictedVsMeasured",
    "TuningEvent",
    "coverage",
    "first_choice_regret",
    "kendall",
    "regret",
    "spearman",
]

_Values = Sequence[float] | np.ndarray


def spearman(predicted: _Values, measured: _Values) -> float | None:
    """Spearman's rank correlation; None for fewer than three points or a constant side."""
    return _rank_correlation(stats.spearmanr, predicted, measured)


def kendall(predicted: _Values, measured: _Values) -> float | None:
    """Kendall's tau-b; None for fewer than three points or a constant side."""
    return _rank_correlation(stats.kendalltau, predicted, measured)


def coverage(low: _Values, high: _Values, measured: _Values) -> float | None:
    """Share of the measured values inside their predicted intervals; None without values."""
    if not len(measured):
        return None
    value = np.asarray(measured, dtype=np.float64)
    return float(np.mean((np.asarray(low) <= value) & (value <= np.asarray(high))))


def regret(value: float, best: float, *, minimize: bool = True) -> float:
    """How much worse ``value`` is than ``best``, as a fraction of the best's magnitude.

    0.01 is one per cent; 0.0 where both are equal, infinite where the best is 0 and they differ.
    """
    lost = value - best if minimize else best - value
    if lost == 0:
        return 0.0
    return lost / abs(best) if best else float("inf")


def first_choice_regret(
    predicted: _Values, measured: _Values, *, minimize: bool = True
) -> float | None:
    """Regret of the candidate that was predicted best, against the best measured; None without."""
    if not len(measured):
        return None
    pick = int(np.argmin(predicted) if minimize else np.argmax(predicted))
    best = min(measured) if minimize else max(measured)
    return regret(measured[pick], best, minimize=minimize)


@dataclass(frozen=True, kw_only=True)
class PredictedVsMeasured:
    """One measured candidate beside what the surrogate said before anything of the task was known.

    Attributes:
        config: The candidate's parameters.
        median: Predicted value in the metric's unit.
        low: 5 % quantile.
        high: 95 % quantile.
        p_valid: Predicted probability that it works.
        status: How its measurement ended.
        value: Measured value; None where it failed.
        reason: One line on why it failed.
        reused: Whether it was known before this run.
    """

    config: Mapping[str, Any]
    median: float
    low: float
    high: float
    p_valid: float
    status: str
    value: float | None
    reason: str = ""
    reused: bool = False


@dataclass(frozen=True, kw_only=True)
class TuningEvent:
    """What one tuning run did and how right its surrogate was; plain JSON with ``to_json``.

    Correlations, coverage and regret are over the candidates that were measured and worked, and
    None where there are too few. "Zero-shot" is the prediction before anything was known,
    "final" the one after everything was.

    Attributes:
        task_key: ``Task.key``.
        kernel: ``Task.kernel``.
        device: Device's name.
        problem: ``Task.problem``.
        metric: Name of the value with its unit.
        minimize: Whether smaller is better.
        when: Start, in ISO 8601 with UTC offset.
        versions: ``Task.versions`` with this package's own version.
        n_candidates: Candidates in the list.
        n_measured: Measured in this run, failures included.
        n_reused: Known from the store before.
        n_failed: Failures among them by status.
        reasons: How often each reason of a failure or skip was given.
        n_skipped: Candidates that the measurer did not try.
        best_config: Parameters of the best measured candidate; None where none worked.
        best_value: Its value.
        first_choice_regret: Regret of the zero-shot favourite among the measured.
        spearman: Zero-shot rank correlation.
        kendall: Zero-shot tau-b.
        spearman_final: Rank correlation of the final prediction.
        kendall_final: Tau-b of the final prediction.
        coverage: Share of values inside the zero-shot 90 % interval.
        coverage_final: Share of values inside the final 90 % interval (fitted to them: optimistic).
        model_s: Seconds in the surrogate and the policy.
        compile_s: Seconds in compilation, where the measurer tells.
        measure_s: Seconds of measuring without compilation.
        total_s: Seconds from start to end, simulated seconds of a replay included.
        saved_s: Estimated seconds saved against measuring every candidate.
        stop: Why the search ended: ``"measured all"``, ``"budget"``, ``"seconds"``,
            ``"no better one is likely"`` or ``"measurer failed"``.
        seed: The run's seed.
        familiar: Whether the surrogate was told values of such candidates on such a device before
            (``Prediction.familiar``); None where the run did not record it.
        points: Predicted beside measured, in the order of measuring, reused ones first.
    """

    task_key: str
    kernel: str
    device: str
    problem: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "time_ms"
    minimize: bool = True
    when: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    n_candidates: int = 0
    n_measured: int = 0
    n_reused: int = 0
    n_failed: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    n_skipped: int = 0
    best_config: Mapping[str, Any] | None = None
    best_value: float | None = None
    first_choice_regret: float | None = None
    spearman: float | None = None
    kendall: float | None = None
    spearman_final: float | None = None
    kendall_final: float | None = None
    coverage: float | None = None
    coverage_final: float | None = None
    model_s: float = 0.0
    compile_s: float = 0.0
    measure_s: float = 0.0
    total_s: float = 0.0
    saved_s: float = 0.0
    stop: str = ""
    seed: int = 0
    familiar: bool | None = None
    points: tuple[PredictedVsMeasured, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        data = dataclasses.asdict(self)
        data["points"] = [dataclasses.asdict(point) for point in self.points]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TuningEvent:
        """The inverse of ``to_json``; unknown keys are dropped."""
        known = known_fields(cls, data)
        known["points"] = tuple(PredictedVsMeasured(**p) for p in data.get("points", ()))
        return cls(**known)


def predicted_vs_measured(
    prediction: Prediction, index: int, candidate: Candidate, measurement: Measurement, reused: bool
) -> PredictedVsMeasured:
    """The point of the candidate whose prediction is at ``index``."""
    return PredictedVsMeasured(
        config=dict(candidate.config),
        median=float(prediction.median[index]),
        low=float(prediction.low[index]),
        high=float(prediction.high[index]),
        p_valid=float(prediction.p_valid[index]),
        status=measurement.status.value,
        value=measurement.value,
        reason=measurement.reason,
        reused=reused,
    )


def scores(prediction: Prediction, measured: Sequence[float]) -> dict[str, float | None]:
    """Spearman, Kendall and coverage of the predictions of what was measured, in the same order."""
    return {
        "spearman": spearman(prediction.median, measured),
        "kendall": kendall(prediction.median, measured),
        "coverage": coverage(prediction.low, prediction.high, measured),
    }


def _rank_correlation(statistic: Any, predicted: _Values, measured: _Values) -> float | None:
    if len(predicted) != len(measured):
        raise ValueError(
            f"predicted and measured must be equally many, got {len(predicted)} and {len(measured)}"
        )
    if len(measured) < 3 or np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return None
    return float(statistic(predicted, measured).statistic)
