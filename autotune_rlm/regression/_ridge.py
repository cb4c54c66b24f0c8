"""Ridge regression on TF-IDF of the text and on the fields beside it: the baseline of every fit."""

from __future__ import annotations

from typing import Any

import numpy as np

_ALPHAS = (0.03, 0.3, 3.0, 30.0)
_LARGE = 4000  # rows from which the regression is solved iteratively


def ridge_path(x: Any, y: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """A regression whose strength is chosen by cross-validation; a constant where that is better.

    Of sparse inputs (n, p) and targets (n,), NaN where unknown; ``part`` is the fold of each row. Returns
    weights (p,), intercept, and the out-of-fold predictions, (n,).
    """
    has_number = np.isfinite(y)
    best, outside = None, constants(y, part)
    least = float(np.mean((outside - y)[has_number] ** 2))
    for alpha in _ALPHAS:
        predicted = _cross_validated(x, y, part, alpha)
        error = float(np.mean((predicted - y)[has_number] ** 2))
        if error < least:
            best, least, outside = alpha, error, predicted
    if best is None:
        return np.zeros(x.shape[1]), float(y[has_number].mean()), outside
    return *ridge(x[has_number], y[has_number], best), outside


def ridge(x: Any, y: np.ndarray, alpha: float) -> tuple[np.ndarray, float]:
    """Weights and intercept; the intercept is the mean."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.sparse.linalg import lsqr

    middle = float(y.mean())
    if len(y) > _LARGE:
        return lsqr(x, y - middle, damp=alpha**0.5, iter_lim=100, atol=1e-5, btol=1e-5)[0], middle
    gram = (x @ x.T).toarray()
    gram[np.diag_indices_from(gram)] += alpha
    return x.T @ cho_solve(cho_factor(gram), y - middle), middle


def folds(groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A fold of each row, the same in a group, of about equal sizes; shape (n,)."""
    names, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    of_group, filled = np.zeros(len(names), dtype=int), np.zeros(count)
    for g in order:
        of_group[g] = int(np.argmin(filled))
        filled[of_group[g]] += sizes[g]
    return of_group[index.ravel()]


def constants(y: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The mean of the other folds, (n,)."""
    predicted = np.zeros(len(y))
    for fold in np.unique(part):
        others = y[(part != fold) & np.isfinite(y)]
        predicted[part == fold] = others.mean() if len(others) else 0.0
    return predicted


def _cross_validated(x: Any, y: np.ndarray, part: np.ndarray, alpha: float) -> np.ndarray:
    predicted = constants(y, part)
    for fold in np.unique(part):
        train = (part != fold) & np.isfinite(y)
        if train.sum() >= 2:
            weights, intercept = ridge(x[train], y[train], alpha)
            predicted[part == fold] = x[part == fold] @ weights + intercept
    return predicted
