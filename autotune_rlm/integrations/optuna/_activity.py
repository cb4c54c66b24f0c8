"""Which parameters a trial has, given the values of others: learned from finished trials."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

_MAX_DEPTH = 3


@dataclass(frozen=True)
class Rule:
    """A decision tree. A leaf has no parent and says ``present``; in doubt a parameter is there."""

    present: bool = True
    parent: int | None = None  # index of the parameter that decides
    threshold: float = 0.0  # of a number: above it comes ``above``, else ``below``
    # what follows each value of a category
    branches: dict[float, Rule] = field(default_factory=dict)
    above: Rule | None = None
    below: Rule | None = None

    def active(self, raw: np.ndarray) -> np.ndarray:
        """Whether raw vectors (m, d) have the parameter, shape (m,)."""
        if self.parent is None:
            return np.full(len(raw), self.present)
        column = raw[:, self.parent]
        found = ~np.isnan(column)
        if self.above is not None and self.below is not None:
            high = found & (column > self.threshold)
            low = found & (column <= self.threshold)
            found[high] = self.above.active(raw[high])
            found[low] = self.below.active(raw[low])
            return found
        for value, rule in self.branches.items():
            rows = column == value
            found[rows] = rule.active(raw[rows])
        return found


def learn_rule(raw: np.ndarray, child: int, unordered: np.ndarray, depth: int = 0) -> Rule:
    """The rule that says best when finished trials (n, d) have parameter ``child``, NaN where not.

    ``unordered`` is the mask of the categories among the parameters, shape (d,).
    """
    here = ~np.isnan(raw[:, child])
    if here.all() or not here.any() or depth == _MAX_DEPTH:
        return Rule(present=bool(here.any()) or not len(here))
    best, error = None, float(_error(here))
    for parent in range(raw.shape[1]):
        known = ~np.isnan(raw[:, parent])
        # A child is absent where its parent is, and at times where it is not: of two parameters that
        # only come together neither is the other's parent.
        if (here & ~known).any() or (here == known).all():
            continue
        column, target = raw[known, parent], here[known]
        if not len(column):
            continue
        if unordered[parent]:
            found = sum(_error(target[column == value]) for value in np.unique(column))
            split: float | None = None
        else:
            found, split = _threshold(column, target)
        if found < error - 1e-9:
            best, error = (parent, split), found
    if best is None:
        return Rule()
    parent, split = best
    column = raw[:, parent]
    if split is not None:
        return Rule(
            parent=parent,
            threshold=split,
            above=learn_rule(raw[column > split], child, unordered, depth + 1),
            below=learn_rule(raw[column <= split], child, unordered, depth + 1),
        )
    values = np.unique(column[~np.isnan(column)])
    rules = {float(v): learn_rule(raw[column == v], child, unordered, depth + 1) for v in values}
    return Rule(parent=parent, branches=rules)


def _error(target: np.ndarray) -> float:
    """Gini impurity times the number of trials."""
    share = target.mean() if len(target) else 0.0
    return float(len(target) * share * (1.0 - share))


def _threshold(column: np.ndarray, target: np.ndarray) -> tuple[float, float | None]:
    """The impurity of the best cut of a number, and the cut; None where there is none."""
    order = np.argsort(column, kind="stable")
    value, hit = column[order], target[order].astype(float)
    cuts = np.flatnonzero(np.diff(value) > 1e-12)
    if not len(cuts):
        return _error(target), None
    n, below = len(value), cuts + 1.0
    ones = np.cumsum(hit)[cuts]
    above, others = n - below, hit.sum() - ones
    impurity = ones * (1.0 - ones / below) + others * (1.0 - others / above)
    i = int(np.argmin(impurity))
    return float(impurity[i]), float((value[cuts[i]] + value[cuts[i] + 1]) / 2.0)
