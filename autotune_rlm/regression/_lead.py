"""The leading model, which the network corrects: a ridge, and boosted trees that read its prediction.

Both fit within seconds. The ridge on TF-IDF is the baseline of every fit. The trees read counts of the
n-grams of largest variance, the fields beside the text, its length and the ridge's prediction. For
programs they also read the facts of ``autotune_rlm.programs``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from autotune_rlm import programs
from autotune_rlm._checks import of_extra
from autotune_rlm.regression._fields import FieldColumns
from autotune_rlm.regression._ngrams import counts, is_short, tf_idf
from autotune_rlm.regression._ridge import folds, ridge_path
from autotune_rlm.surrogate.trees import Trees

_FOLDS = 5
_LARGE = 10_000  # rows above which the fit uses three folds and fewer columns
_COLUMNS = 384  # n-grams that the trees read
_FEWER_COLUMNS = 192  # n-grams that the trees read of a large table
_ROUNDS = 300
_SHARES = np.linspace(0.0, 1.0, 11)
_ARRAYS = {  # of a model, as they are saved
    "buckets": np.int32,
    "idf": np.float32,
    "weights": np.float32,
    "intercept": np.float64,
    "dense": np.int32,
    "shares": np.float64,
}
_SETTINGS: dict[str, Any] = {
    "max_depth": 6,
    "eta": 0.05,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
    "min_child_weight": 3,
    "tree_method": "hist",
    "nthread": 1,  # several threads can block each other for minutes on a busy machine
}


class LeadPrediction(NamedTuple):
    """Predictions for n rows, each (n, k), on the targets' scales."""

    ridge: np.ndarray
    lead: np.ndarray


@dataclass(frozen=True, eq=False)
class Lead:
    """A fitted leading model of k standardised targets."""

    places: bool  # whether the positions of words are read
    buckets: np.ndarray  # hashed n-grams that occur, ascending, shape (p,)
    idf: np.ndarray  # their inverse document frequencies, shape (p,)
    columns: FieldColumns
    weights: np.ndarray  # the ridge's coefficients of n-grams and fields, shape (p + f, k)
    intercept: np.ndarray  # shape (k,)
    dense: np.ndarray  # which of the n-grams the trees see, shape (q,)
    trees: tuple[Trees, ...]  # of each target
    shares: np.ndarray  # weight of the trees' prediction beside the ridge's, shape (k,)
    facts: bool = False  # whether the trees see the facts of programs

    def predict(self, texts: Sequence[str], fields: Sequence[Mapping[str, Any]]) -> LeadPrediction:
        """Predictions of the ridge and of the leading model for n rows."""
        ngrams = counts(texts, places=self.places)[:, self.buckets]
        beside = self.columns.transform(fields)
        ridge = np.asarray(_ridge_inputs(ngrams, self.idf, beside) @ self.weights) + self.intercept
        lead = ridge.copy()
        for j, share in enumerate(self.shares):
            if share > 0:
                inputs = _tree_inputs(ngrams[:, self.dense], beside, texts, ridge[:, j], self.facts)
                lead[:, j] += share * (self.trees[j].predict(inputs) - ridge[:, j])
        return LeadPrediction(ridge, lead)

    def arrays(self) -> dict[str, np.ndarray]:
        """What ``from_arrays`` reads, but for the columns."""
        own = {name: getattr(self, name).astype(kind) for name, kind in _ARRAYS.items()}
        own |= {name: np.array([getattr(self, name)]) for name in ("places", "facts")}
        for j, trees in enumerate(self.trees):
            own |= {f"trees.{j}.{name}": array for name, array in trees.arrays().items()}
        return own

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], columns: FieldColumns) -> Lead:
        """The inverse of ``arrays``."""
        parts = [
            {k.split(".", 2)[2]: v for k, v in arrays.items() if k.startswith(f"trees.{j}.")}
            for j in range(len(arrays["shares"]))
        ]
        return cls(
            **{name: arrays[name] for name in _ARRAYS},
            places=bool(arrays["places"][0]),
            columns=columns,
            trees=tuple(Trees.from_arrays(part) for part in parts if part),
            facts=bool(arrays["facts"][0]) if "facts" in arrays else False,
        )


def fit_lead(
    texts: Sequence[str],
    fields: Sequence[Mapping[str, Any]],
    targets: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int = 0,
    facts: bool | None = None,
) -> tuple[Lead, LeadPrediction]:
    """Fit the leading model, its strength chosen by cross-validation over groups that are never split.

    ``targets`` (n, k) are standardised, NaN where unknown; ``facts`` says whether the trees see the facts
    of programs, None: where the texts are programs. Returns the model of all rows, and the out-of-fold
    predictions of the rows.
    """
    large = len(texts) > _LARGE
    places = is_short(texts)
    ngrams = counts(texts, places=places)
    documents = np.asarray((ngrams > 0).sum(0)).ravel()
    buckets = np.flatnonzero(documents >= (2 if len(texts) > 100 else 1))
    ngrams = ngrams[:, buckets]
    idf = np.log((1 + len(texts)) / (1 + documents[buckets])) + 1.0
    columns = FieldColumns.fit(fields)
    beside = columns.transform(fields)
    x = _ridge_inputs(ngrams, idf, beside)
    part = folds(groups, 3 if large else _FOLDS, seed)
    k = targets.shape[1]
    weights, intercept = np.zeros((x.shape[1], k)), np.zeros(k)
    ridge, lead, shares = np.zeros_like(targets), np.zeros_like(targets), np.zeros(k)
    facts = programs.are_programs(texts) if facts is None else facts
    dense = _most_varied(ngrams, _FEWER_COLUMNS if large else _COLUMNS)
    trees = []
    for j in range(k):
        weights[:, j], intercept[j], ridge[:, j] = ridge_path(x, targets[:, j], part)
        inputs = _tree_inputs(ngrams[:, dense], beside, texts, ridge[:, j], facts)
        fitted, outside = _boosted(inputs, targets[:, j], part, seed)
        trees.append(fitted)
        has_number = np.isfinite(targets[:, j])
        off, change = (targets[:, j] - ridge[:, j])[has_number], (outside - ridge[:, j])[has_number]
        errors = [float(np.mean((off - s * change) ** 2)) for s in _SHARES]
        shares[j] = _SHARES[int(np.argmin(errors))]
        lead[:, j] = ridge[:, j] + shares[j] * (outside - ridge[:, j])
    parts = (places, buckets, idf, columns, weights, intercept, dense, tuple(trees), shares, facts)
    return Lead(*parts), LeadPrediction(ridge, lead)


def _ridge_inputs(ngrams: Any, idf: np.ndarray, beside: np.ndarray) -> Any:
    from scipy import sparse

    return sparse.hstack([tf_idf(ngrams, idf), sparse.csr_matrix(beside)]).tocsr()


def _tree_inputs(
    ngrams: Any, beside: np.ndarray, texts: Sequence[str], ridge: np.ndarray, facts: bool
) -> np.ndarray:
    """The trees' inputs, float32 (n, columns)."""
    lengths = [(len(t), t.count("\n")) for t in texts]
    parts = [np.log1p(ngrams.toarray()), beside, np.log1p(lengths), ridge[:, None]]
    if facts:
        parts.append(programs.columns(texts))
    return np.hstack(parts).astype(np.float32)


def _most_varied(ngrams: Any, count: int) -> np.ndarray:
    """The n-grams whose logarithmic counts vary most, ascending."""
    x = ngrams.copy().astype(np.float64)
    x.data = np.log1p(x.data)
    mean = np.asarray(x.mean(0)).ravel()
    variance = np.asarray(x.multiply(x).mean(0)).ravel() - mean**2
    return np.sort(np.argsort(-variance, kind="stable")[:count])


def _boosted(
    inputs: np.ndarray, y: np.ndarray, part: np.ndarray, seed: int
) -> tuple[Trees, np.ndarray]:
    """Trees of all rows with a number, and the out-of-fold predictions (n,)."""
    with of_extra("tables", "fitting to a table"):
        import xgboost
    settings = {**_SETTINGS, "seed": seed}

    def booster(rows: np.ndarray) -> Any:
        return xgboost.train(settings, xgboost.DMatrix(inputs[rows], label=y[rows]), _ROUNDS)

    has_number = np.isfinite(y)
    outside = np.full(len(y), float(y[has_number].mean()))
    for fold in np.unique(part):
        train = has_number & (part != fold)
        if train.sum() >= 2:
            outside[part == fold] = booster(train).predict(xgboost.DMatrix(inputs[part == fold]))
    return Trees.from_xgboost([booster(has_number)]), outside
