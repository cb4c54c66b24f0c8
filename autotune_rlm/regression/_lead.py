"""The leading model, which the network corrects: a ridge, and boosted trees that know what it says.

Both need seconds. The ridge on TF-IDF is the floor that every fit is compared with; the trees see
counts of the most varied n-grams, the fields beside the text, its length and the ridge's word. Where
the texts are programs, they see the facts of ``autotune_rlm.programs`` too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from autotune_rlm import programs
from autotune_rlm.regression._fields import FieldColumns
from autotune_rlm.regression._ngrams import counts, is_short, tf_idf
from autotune_rlm.regression._ridge import folds, ridge_path
from autotune_rlm.surrogate.trees import Trees

__all__ = ["Lead", "Words", "fit_lead"]

_FOLDS = 5
_LARGE = 10_000  # rows from which three folds and fewer columns must do
_COLUMNS, _FEWER_COLUMNS = 384, 192
_ROUNDS = 300
_SHARES = np.linspace(0.0, 1.0, 11)
_SETTINGS: dict[str, Any] = {
    "max_depth": 6,
    "eta": 0.05,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
    "min_child_weight": 3,
    "tree_method": "hist",
    "nthread": 1,  # more wait for each other, on a busy machine for minutes
}


class Words(NamedTuple):
    """What is said of n rows, each (n, k), on the targets' scales."""

    ridge: np.ndarray
    lead: np.ndarray


@dataclass(frozen=True, eq=False)
class Lead:
    """A fitted leading model of k standardised targets.

    Attributes:
        places: Whether the places of words are read.
        buckets: Hashed n-grams that occur, ascending, shape (p,).
        idf: Their inverse document frequencies, shape (p,).
        columns: How fields become numbers.
        weights: The ridge's coefficients of n-grams and fields, shape (p + f, k).
        intercept: Its intercepts, shape (k,).
        dense: Which of the n-grams the trees see, shape (q,).
        trees: Of each target.
        shares: The trees' say beside the ridge's, shape (k,).
        facts: Whether the trees see the facts of programs.
    """

    places: bool
    buckets: np.ndarray
    idf: np.ndarray
    columns: FieldColumns
    weights: np.ndarray
    intercept: np.ndarray
    dense: np.ndarray
    trees: tuple[Trees, ...]
    shares: np.ndarray
    facts: bool = False

    def predict(self, texts: Sequence[str], fields: Sequence[Mapping[str, Any]]) -> Words:
        """What the ridge and the leading model say of n rows."""
        found = counts(texts, places=self.places)[:, self.buckets]
        beside = self.columns.transform(fields)
        said = np.asarray(_joined(found, self.idf, beside) @ self.weights) + self.intercept
        lead = said.copy()
        for j, share in enumerate(self.shares):
            if share > 0:
                seen = _seen(found[:, self.dense], beside, texts, said[:, j], self.facts)
                lead[:, j] += share * (self.trees[j].predict(seen) - said[:, j])
        return Words(said, lead)

    def arrays(self) -> dict[str, np.ndarray]:
        """What ``from_arrays`` reads, but for the columns."""
        own = {
            "buckets": self.buckets.astype(np.int32),
            "idf": self.idf.astype(np.float32),
            "weights": self.weights.astype(np.float32),
            "intercept": self.intercept,
            "dense": self.dense.astype(np.int32),
            "shares": self.shares,
            "places": np.array([self.places]),
            "facts": np.array([self.facts]),
        }
        for j, trees in enumerate(self.trees):
            own |= {f"trees.{j}.{name}": array for name, array in trees.arrays().items()}
        return own

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], columns: FieldColumns) -> Lead:
        """The inverse of ``arrays``."""
        shares = np.asarray(arrays["shares"])
        parts = [
            {k.split(".", 2)[2]: v for k, v in arrays.items() if k.startswith(f"trees.{j}.")}
            for j in range(len(shares))
        ]
        return cls(
            places=bool(arrays["places"][0]),
            buckets=arrays["buckets"].astype(np.int64),
            idf=arrays["idf"].astype(np.float64),
            columns=columns,
            weights=arrays["weights"].astype(np.float64),
            intercept=arrays["intercept"],
            dense=arrays["dense"].astype(np.int64),
            trees=tuple(Trees.from_arrays(part) for part in parts if part),
            shares=shares,
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
) -> tuple[Lead, Words]:
    """Fit the leading model, its strength chosen by cross-validation over groups.

    Args:
        texts: The n texts.
        fields: The fields beside each.
        targets: Standardised numbers, shape (n, k); NaN where unknown.
        groups: Numbers of the groups that are never split, shape (n,).
        seed: Of folds and trees.
        facts: Whether the trees see the facts of programs; None where the texts are programs.

    Returns:
        The model of all rows, and what others that had not seen a row's group say of it.

    Raises:
        ImportError: scikit-learn or XGBoost is not installed.
    """
    large = len(texts) > _LARGE
    places = is_short(texts)
    found = counts(texts, places=places)
    documents = np.asarray((found > 0).sum(0)).ravel()
    buckets = np.flatnonzero(documents >= (2 if len(texts) > 100 else 1))
    found = found[:, buckets]
    idf = np.log((1 + len(texts)) / (1 + documents[buckets])) + 1.0
    columns = FieldColumns.fit(fields)
    beside = columns.transform(fields)
    x = _joined(found, idf, beside)
    part = folds(groups, 3 if large else _FOLDS, seed)
    k = targets.shape[1]
    weights, intercept = np.zeros((x.shape[1], k)), np.zeros(k)
    ridge, lead, shares = np.zeros_like(targets), np.zeros_like(targets), np.zeros(k)
    facts = programs.are_programs(texts) if facts is None else facts
    dense = _varied(found, _FEWER_COLUMNS if large else _COLUMNS)
    trees = []
    for j in range(k):
        weights[:, j], intercept[j], ridge[:, j] = ridge_path(x, targets[:, j], part)
        seen = _seen(found[:, dense], beside, texts, ridge[:, j], facts)
        fitted, outside = _boosted(seen, targets[:, j], part, seed)
        trees.append(fitted)
        known = np.isfinite(targets[:, j])
        off, change = (targets[:, j] - ridge[:, j])[known], (outside - ridge[:, j])[known]
        errors = [float(np.mean((off - s * change) ** 2)) for s in _SHARES]
        shares[j] = _SHARES[int(np.argmin(errors))]
        lead[:, j] = ridge[:, j] + shares[j] * (outside - ridge[:, j])
    parts = (places, buckets, idf, columns, weights, intercept, dense, tuple(trees), shares)
    model = Lead(*parts, facts=facts)
    return model, Words(ridge, lead)


def _joined(found: Any, idf: np.ndarray, beside: np.ndarray) -> Any:
    from scipy import sparse

    return sparse.hstack([tf_idf(found, idf), sparse.csr_matrix(beside)]).tocsr()


def _seen(
    found: Any, beside: np.ndarray, texts: Sequence[str], word: np.ndarray, facts: bool
) -> np.ndarray:
    """What the trees see, float32 (n, columns)."""
    lengths = [(len(t), t.count("\n")) for t in texts]
    parts = [np.log1p(found.toarray()), beside, np.log1p(lengths), word[:, None]]
    if facts:
        parts.append(programs.columns(texts))
    return np.hstack(parts).astype(np.float32)


def _varied(found: Any, count: int) -> np.ndarray:
    """The n-grams whose logarithmic counts vary most, ascending."""
    x = found.copy().astype(np.float64)
    x.data = np.log1p(x.data)
    mean = np.asarray(x.mean(0)).ravel()
    variance = np.asarray(x.multiply(x).mean(0)).ravel() - mean**2
    return np.sort(np.argsort(-variance, kind="stable")[:count])


def _boosted(
    seen: np.ndarray, y: np.ndarray, part: np.ndarray, seed: int
) -> tuple[Trees, np.ndarray]:
    """Trees of all known rows, and what others that had not seen a row's fold say of it."""
    try:
        import xgboost
    except ImportError as error:
        raise ImportError(
            "fitting to a table needs XGBoost: pip install 'autotune-rlm[tables]'"
        ) from error
    settings = {**_SETTINGS, "seed": seed}

    def booster(rows: np.ndarray) -> Any:
        return xgboost.train(settings, xgboost.DMatrix(seen[rows], label=y[rows]), _ROUNDS)

    known = np.isfinite(y)
    outside = np.full(len(y), float(y[known].mean()))
    for fold in np.unique(part):
        train = known & (part != fold)
        if train.sum() >= 2:
            outside[part == fold] = booster(train).predict(xgboost.DMatrix(seen[part == fold]))
    return Trees.from_xgboost([booster(known)]), outside
