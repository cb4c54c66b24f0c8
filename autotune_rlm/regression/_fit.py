"""Fitting to a table: split, ridge, network, shares and calibration on held-out rows, report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autotune_rlm.regression._lead import Lead, LeadPrediction, fit_lead
from autotune_rlm.regression._model import CODEC, RowModel, Rows
from autotune_rlm.regression._options import FitOptions
from autotune_rlm.regression._report import FitReport, Scores, scores_of
from autotune_rlm.regression._ridge import folds
from autotune_rlm.regression._scale import TargetScale
from autotune_rlm.regression._table_model import TableModel, lead_fields
from autotune_rlm.regression._training import Training, tokens_of, train_rows
from autotune_rlm.surrogate.checkpoint import Checkpoint
from autotune_rlm.types import digest

_MIN_ROWS = 20
_FEW_ROWS = 200  # below which the report warns
_FEW_GROUPS = 20  # below which the report warns
_LEVELS = (0.05, 0.5, 0.95)
_COVER = 0.9
_SHARES = np.linspace(0.0, 1.0, 11)
_WIDTHS = (0.05, 100.0)  # bounds of the factor by which intervals are widened
_FEW_CUT = 0.05  # share of texts that are cut, below which the report is silent
_NO_BETTER = 0.98  # of a constant's error, from which a fit is no better
_MARGIN = 0.005  # the network must lower the held-out error by this share to be used at all


def fit_table(
    checkpoint: Checkpoint,
    texts: Sequence[str],
    fields: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    numbers: np.ndarray,
    groups: np.ndarray,
    *,
    options: FitOptions,
    folder: Path | None = None,
    progress: bool = True,
) -> tuple[TableModel, FitReport]:
    """Fit to n rows of k targets; see ``RLM.fit``."""
    started = time.monotonic()
    notes: list[str] = []
    some = np.isfinite(numbers).any(1)
    if not some.all():
        notes.append(f"{int((~some).sum())} rows without any number were left out")
        kept = np.flatnonzero(some)
        texts, fields = _pick(texts, kept), _pick(fields, kept)
        numbers, groups = numbers[kept], groups[kept]
    train, judge, test = _split(groups, options)
    if len(texts) < _MIN_ROWS:
        raise ValueError(f"{len(texts)} rows have a number; at least {_MIN_ROWS} are needed")
    notes += _warnings_of_size(texts, groups)
    scales = tuple(TargetScale.fit(_finite(numbers[train, j])) for j in range(len(names)))
    z = np.column_stack([s.to_scale(numbers[:, j]) for j, s in enumerate(scales)])
    others = np.concatenate([judge, test])
    lead, predicted = _fit_lead(texts, fields, z, groups, train, others, options.seed)
    prior = predicted.lead
    spread = np.array([max(float(np.nanstd(c)), 1e-6) for c in (z - prior)[train].T])
    model = RowModel.extend(checkpoint, names, max_tokens=options.max_tokens)
    rows = model.encode_rows(texts, lead_fields(fields, prior))
    notes += _warnings_of_length(rows.texts, rows.text_of, model.max_tokens)
    residuals = (z - prior) / spread
    bins = CODEC.position(residuals)
    done = Training()
    if options.minutes > 0:
        done = train_rows(
            model,
            rows,
            bins,
            train,
            judge,
            options=options,
            folder=folder,
            progress=progress,
            key=digest([list(names), texts[:50], z[:50].tolist(), len(texts), vars(options)]),
        )
    model.network.eval().requires_grad_(False)
    none, ones = np.zeros(len(names)), np.ones(len(names))
    plain = TableModel(model, lead, scales, spread, none, ones, _marginal(bins[train]))
    fitted = dataclasses.replace(plain, marginal=None)
    if done.best_step == 0 or not _tells_more(fitted, plain, rows.take(judge), bins[judge]):
        fitted = plain
    p = fitted.histograms(rows.take(others))
    quantiles = np.stack([_quantiles(p[:, j]) for j in range(len(names))], axis=1)  # (h, k, 3)
    _calibrate(fitted, residuals, quantiles, train, judge)
    scores = {
        name: _scores(fitted, j, numbers, z, predicted, train, test, quantiles[len(judge) :, j])
        for j, name in enumerate(names)
    }
    shares = dict(zip(names, fitted.shares.tolist(), strict=True))
    for name in names:
        notes += _warnings_of_scores(name, scores[name], shares[name], trained=options.minutes > 0)
    everything, _ = fit_lead(texts, fields, z, groups, seed=options.seed)
    report = FitReport(
        rows=(len(train), len(judge), len(test)),
        scores=scores,
        shares=shares,
        steps=done.best_step,
        seconds=time.monotonic() - started,
        warnings=tuple(notes),
    )
    return dataclasses.replace(fitted, lead=everything), report


def _pick(items: Sequence[Any], which: np.ndarray) -> list[Any]:
    return [items[i] for i in which]


def _fit_lead(
    texts: Sequence[str],
    fields: Sequence[Mapping[str, Any]],
    z: np.ndarray,
    groups: np.ndarray,
    train: np.ndarray,
    others: np.ndarray,
    seed: int,
) -> tuple[Lead, LeadPrediction]:
    """The leading model of the rows ``train``, and predictions of all rows that did not see them."""
    lead, out_of_fold = fit_lead(
        _pick(texts, train), _pick(fields, train), z[train], groups[train], seed=seed
    )
    held_out = lead.predict(_pick(texts, others), _pick(fields, others))
    predicted = LeadPrediction(np.zeros_like(z), np.zeros_like(z))
    for column, inside, outside in zip(predicted, out_of_fold, held_out, strict=True):
        column[train], column[others] = inside, outside
    return lead, predicted


def _calibrate(
    fitted: TableModel,
    residuals: np.ndarray,
    quantiles: np.ndarray,
    train: np.ndarray,
    judge: np.ndarray,
) -> None:
    """Set shares and widths by rows that nothing was learned of."""
    for j in range(len(fitted.targets)):
        if fitted.marginal is None:
            own, at = residuals[judge, j], quantiles[: len(judge), j]
            fitted.shares[j] = _share(own, at[:, 1])
        else:  # nothing was learned of the held-out part, nor of what folds left out
            own = residuals[np.concatenate([train, judge]), j]
            at = np.repeat(quantiles[:1, j], len(own), axis=0)
        fitted.widths[j] = _width(own, at, fitted.shares[j])


def _split(groups: np.ndarray, options: FitOptions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to learn from, to stop and calibrate by, and to judge on; groups stay whole."""
    count = len(np.unique(groups))
    if count < 3:
        raise ValueError(
            f"{count} groups (or distinct texts) cannot be split into three parts; at least 3 are needed"
        )
    parts = min(max(3, round(2 / options.held_out)), count)
    part = folds(groups, parts, options.seed)
    judge, test = part == parts - 2, part == parts - 1
    return np.flatnonzero(~judge & ~test), np.flatnonzero(judge), np.flatnonzero(test)


def _finite(x: np.ndarray) -> np.ndarray:
    return x[np.isfinite(x)]


def _quantiles(p: np.ndarray) -> np.ndarray:
    return np.column_stack(CODEC.quantiles(p, _LEVELS))


def _marginal(bins: np.ndarray) -> np.ndarray:
    """Smoothed frequency of each bin, (k, bins)."""
    counts = np.stack(
        [np.bincount(np.rint(_finite(c)).astype(int), minlength=CODEC.bins) for c in bins.T]
    ).astype(float)
    near = np.exp(-0.5 * (np.arange(-6, 7) / 2.0) ** 2)
    smooth = np.stack([np.convolve(c, near / near.sum(), mode="same") for c in counts]) + 1e-6
    return smooth / smooth.sum(1, keepdims=True)


def _tells_more(learned: TableModel, plain: TableModel, rows: Rows, bins: np.ndarray) -> bool:
    """Whether the network's mean log-likelihood of the held-out bins is above their frequencies'."""
    place = np.rint(np.nan_to_num(bins)).astype(int)[..., None]
    log_likelihoods = [
        np.log(
            np.take_along_axis(m.histograms(rows, known=tokens_of(bins)), place, 2)[..., 0] + 1e-9
        )
        for m in (learned, plain)
    ]
    return bool(
        np.nanmean(np.where(np.isnan(bins), np.nan, log_likelihoods[0] - log_likelihoods[1])) > 0
    )


def _share(residual: np.ndarray, middle: np.ndarray) -> float:
    """The share of the correction with the least squared error; 0 where it gains too little."""
    has_number = np.isfinite(residual)
    errors = [float(np.mean((residual - s * middle)[has_number] ** 2)) for s in _SHARES]
    best = int(np.argmin(errors))
    return float(_SHARES[best]) if errors[best] < (1 - _MARGIN) ** 2 * errors[0] else 0.0


def _width(residual: np.ndarray, quantiles: np.ndarray, share: float) -> float:
    """The factor by which 90 % intervals must widen to cover 90 % of held-out rows (split conformal)."""
    has_number = np.isfinite(residual)
    low, middle, high = quantiles[has_number].T
    off = residual[has_number] - share * middle
    side = np.where(off < 0, middle - low, high - middle)
    needed = np.sort(np.abs(off) / np.maximum(side, 1e-6))
    rank = int(np.ceil(_COVER * (len(needed) + 1))) - 1
    return float(np.clip(needed[min(rank, len(needed) - 1)], *_WIDTHS)) if len(needed) else 1.0


def _scores(
    fitted: TableModel,
    j: int,
    numbers: np.ndarray,
    z: np.ndarray,
    predicted: LeadPrediction,
    train: np.ndarray,
    test: np.ndarray,
    quantiles: np.ndarray,
) -> dict[str, Scores]:
    scale, spread = fitted.scales[j], fitted.spread[j]
    low, middle, high = quantiles.T
    y, lead = numbers[test, j], predicted.lead[test, j]
    predictions = {
        "constant": np.full(len(test), float(np.nanmean(z[train, j]))),
        "ridge": predicted.ridge[test, j],
        "trees": lead,
        "network": lead + spread * middle,
        "used": lead + spread * fitted.shares[j] * middle,
    }
    ends = [predictions["used"] + spread * fitted.widths[j] * (end - middle) for end in (low, high)]
    interval = (scale.from_scale(ends[0]), scale.from_scale(ends[1]))
    return {
        name: scores_of(
            y, scale.from_scale(x), x - z[test, j], interval if name == "used" else None
        )
        for name, x in predictions.items()
    }


def _warnings_of_size(texts: Sequence[str], groups: np.ndarray) -> list[str]:
    count = len(np.unique(groups))
    notes = []
    if len(texts) < _FEW_ROWS:
        notes.append(f"only {len(texts)} rows: scores and intervals are rough")
    if count < _FEW_GROUPS:
        notes.append(f"only {count} groups (or distinct texts): the held-out part is not typical")
    return notes


def _warnings_of_length(texts: Sequence[np.ndarray], text_of: np.ndarray, limit: int) -> list[str]:
    cut = float((np.array([len(t) for t in texts]) >= limit)[text_of].mean())
    if cut < _FEW_CUT:
        return []
    return [
        f"{100 * cut:.0f} % of the texts are longer than the {limit} tokens that the network reads "
        "(max_tokens); the ridge reads them whole"
    ]


def _warnings_of_scores(
    name: str, scores: Mapping[str, Scores], share: float, *, trained: bool
) -> list[str]:
    """The report's warnings about a target."""
    used, ridge, constant = (scores[n] for n in ("used", "ridge", "constant"))
    if used.error >= _NO_BETTER * constant.error:
        return [
            f"{name}: NO BETTER THAN A CONSTANT on the held-out part (error {used.error:.3f}, a "
            f"constant's {constant.error:.3f}): texts and fields say nothing of it here"
        ]
    notes = []
    if ridge.error < used.error:
        notes.append(
            f"{name}: A RIDGE ON TF-IDF IS BETTER on the rows judged (error {ridge.error:.3f}, the "
            f"model's {used.error:.3f})"
        )
    if share == 0 and trained:
        notes.append(
            f"{name}: THE NETWORK ADDS NOTHING here: its correction did not lower the held-out error, "
            "and the ridge with boosted trees is used alone"
        )
    return notes
