"""Texts as counts of hashed word n-grams; of short texts also which word stands where."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autotune_rlm._checks import of_extra

BUCKETS = 2**18
_WORDS = re.compile(r"[A-Za-z_]+|\d+|[^\sA-Za-z_\d]")
_MAX_LENGTH = 3
_MAX_CHARS = 50_000
_SHORT = 128  # words up to which their places are read too


def is_short(texts: Sequence[str]) -> bool:
    """Whether nine tenths of the texts are so short that the places of words may mean something."""
    some = [len(_WORDS.findall(t[:_MAX_CHARS])) for t in texts[:500]]
    return bool(some) and float(np.quantile(some, 0.9)) <= _SHORT


def counts(texts: Sequence[str], *, places: bool) -> Any:
    """A sparse matrix (n, ``BUCKETS``) in columns.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    with of_extra("tables", "fitting to a table"):
        from sklearn.feature_extraction.text import HashingVectorizer
    hashing = HashingVectorizer(
        analyzer=_analyzer(places), n_features=BUCKETS, alternate_sign=False, norm=None
    )
    rows: dict[str, int] = {}
    which = [rows.setdefault(text, len(rows)) for text in texts]
    return hashing.transform(list(rows))[which].tocsc()


def tf_idf(found: Any, idf: np.ndarray) -> Any:
    """Sublinear term frequencies times ``idf``, each row of length 1."""
    from scipy import sparse

    x = found.tocsr().astype(np.float64)
    x.data = 1.0 + np.log(x.data)
    x = x @ sparse.diags(idf)
    length = np.sqrt(np.asarray(x.multiply(x).sum(1)).ravel())
    return sparse.diags(1.0 / np.maximum(length, 1e-12)) @ x


def _analyzer(places: bool) -> Callable[[str], list[str]]:
    def analyze(text: str) -> list[str]:
        words = _WORDS.findall(text[:_MAX_CHARS])
        found = list(words)
        for n in range(2, _MAX_LENGTH + 1):
            found += [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
        if places:
            found += [f"{i}@{word}" for i, word in enumerate(words[:_SHORT])]
        return found

    return analyze
