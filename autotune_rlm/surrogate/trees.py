"""Boosted regression trees as arrays: fitted with XGBoost, evaluated with numpy alone.

Only training needs XGBoost installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Trees"]

_CHUNK = 512


@dataclass(frozen=True, eq=False)
class Trees:
    """A sum of regression trees over numeric columns; NaN means that a column is not known.

    Attributes:
        roots: Index of each tree's first node, int32 (t,).
        column: Column that a node compares, int16 (nodes,); -1 for a leaf.
        value: A node's threshold, or a leaf's value, float32 (nodes,).
        left: Index of the left child, int32 (nodes,); the right one is the next. Left is where the
            column's value is below the threshold.
        missing_left: Whether NaN goes to the left, bool (nodes,).
        base: Constant that the leaves' values are added to.
        depth: Depth of the deepest tree.
    """

    roots: np.ndarray
    column: np.ndarray
    value: np.ndarray
    left: np.ndarray
    missing_left: np.ndarray
    base: float
    depth: int

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The sum of the trees for the rows of ``x``, (n, columns): shape (n,)."""
        x = np.asarray(x, dtype=np.float32)
        parts = [self._leaves(x[i : i + _CHUNK]).sum(1) for i in range(0, len(x), _CHUNK)]
        return self.base + (np.concatenate(parts) if parts else np.zeros(0))

    def _leaves(self, x: np.ndarray) -> np.ndarray:
        rows = np.arange(len(x))[:, None]
        node = np.broadcast_to(self.roots, (len(x), len(self.roots))).copy()
        for _ in range(self.depth):
            column = self.column[node]
            asked = x[rows, column]
            goes_left = (asked < self.value[node]) | (np.isnan(asked) & self.missing_left[node])
            node = np.where(column < 0, node, self.left[node] + ~goes_left)
        return self.value[node].astype(np.float64)

    def arrays(self) -> dict[str, np.ndarray]:
        """The trees as arrays for a file; ``from_arrays`` is the inverse."""
        return {
            "roots": self.roots,
            "column": self.column,
            "value": self.value,
            "left": self.left,
            "missing_left": self.missing_left,
            "base": np.array([self.base, self.depth], dtype=np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Trees:
        """The inverse of ``arrays``.

        Raises:
            ValueError: The arrays do not describe trees: a child or a root lies outside.
        """
        base, depth = arrays["base"]
        names = ("roots", "column", "value", "left", "missing_left")
        parts = {name: np.asarray(arrays[name]) for name in names}
        trees = cls(**parts, base=float(base), depth=int(depth))
        size, inner = len(trees.column), trees.column >= 0
        children = trees.left[inner]
        if len(trees.roots) and not (
            trees.roots.min() >= 0
            and trees.roots.max() < size
            and (not len(children) or (children.min() > 0 and children.max() + 1 < size))
        ):
            raise ValueError("damaged trees: a node's child lies outside of the arrays")
        return trees

    @classmethod
    def from_xgboost(cls, boosters: Sequence[Any]) -> Trees:
        """The mean of several ``xgboost.Booster`` of one output each, before any link function."""
        roots: list[int] = []
        column: list[np.ndarray] = []
        value: list[np.ndarray] = []
        left: list[np.ndarray] = []
        missing: list[np.ndarray] = []
        start, depth, base = 0, 0, 0.0
        for booster in boosters:
            model = json.loads(bytes(booster.save_raw("json")))["learner"]
            score = float(str(model["learner_model_param"]["base_score"]).strip("[]").split(",")[0])
            if model["objective"]["name"] == "binary:logistic":  # kept as a probability
                score = float(np.log(score / (1 - score)))
            base += score / len(boosters)
            for tree in model["gradient_booster"]["model"]["trees"]:
                order, children, deep = _breadth_first(tree)
                depth = max(depth, deep)
                places = np.array(order)
                is_leaf = np.array(tree["left_children"])[places] < 0
                values = np.array(tree["split_conditions"], dtype=np.float64)[places]
                values[is_leaf] /= len(boosters)
                roots.append(start)
                column.append(np.where(is_leaf, -1, np.array(tree["split_indices"])[places]))
                value.append(values)
                left.append(np.array(children) + start)
                missing.append(np.array(tree["default_left"], dtype=bool)[places])
                start += len(order)
        joined = [np.concatenate(parts) for parts in (column, value, left, missing)]
        return cls(
            np.array(roots, dtype=np.int32),
            joined[0].astype(np.int16),
            joined[1].astype(np.float32),
            joined[2].astype(np.int32),
            joined[3].astype(bool),
            base,
            depth,
        )


def _breadth_first(tree: Mapping[str, Any]) -> tuple[list[int], list[int], int]:
    """Nodes in an order in which siblings follow each other, their left children, the depth."""
    order, children, level, depth = [0], [0], [0], 0
    for at, node in enumerate(order):
        first = tree["left_children"][node]
        if first >= 0:
            children[at] = len(order)
            order += [first, tree["right_children"][node]]
            children += [0, 0]
            level += [level[at] + 1] * 2
            depth = max(depth, level[at] + 1)
    return order, children, depth
