"""Finds the candidate of highest acquisition: random ones, mutants of good ones, then a climb."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autotune_rlm.integrations.optuna._encoding import Encoding

__all__ = ["climb", "spread_out"]

Score = Callable[[np.ndarray], np.ndarray]

_RADII = (0.2, 0.05, 0.0125, 0.003)


def climb(
    encoding: Encoding,
    score: Score,
    good: np.ndarray,
    taken: set[tuple[float, ...]],
    rng: np.random.RandomState,
    *,
    n_random: int = 512,
    n_mutants: int = 256,
    n_starts: int = 6,
    rounds: int = 12,
) -> np.ndarray:
    """Raw vectors in order of falling score; the first is the proposal. Shape (m, d), m >= 1.

    Args:
        encoding: The space.
        score: Raw vectors (m, d) to their acquisition (m,).
        good: Best raw vectors seen, to mutate, shape (g, d); may be empty.
        taken: Rounded raw vectors that must not be proposed again, unless nothing else is left.
        rng: Source of randomness.
        n_random: Number of uniform candidates.
        n_mutants: Number of mutants of ``good``.
        n_starts: Number of candidates that the climb starts from.
        rounds: Most rounds of the climb.
    """
    parts = [encoding.random(rng, n_random)]
    if len(good):
        parents = good[rng.randint(len(good), size=n_mutants)]
        parts += [good, _mutate(encoding, parents, rng)]
    pool = np.vstack(parts)
    pool = pool[_is_fresh(encoding, pool, taken)]
    if not len(pool):
        pool = encoding.random(rng, n_random)
        taken = set()
    values = score(pool)
    top = np.argsort(-values, kind="stable")[:n_starts]
    current, height = pool[top], values[top]
    best_pool, best_values = [current], [height]
    radius = 0
    for _ in range(rounds):
        steps, owner = _neighbours(encoding, current, rng, _RADII[min(radius, len(_RADII) - 1)])
        keep = _is_fresh(encoding, steps, taken)
        steps, owner = steps[keep], owner[keep]
        if not len(steps):
            break
        gained = score(steps)
        improved = False
        for i in range(len(current)):
            mine = np.flatnonzero(owner == i)
            if len(mine) and gained[mine].max() > height[i] + 1e-9:
                j = mine[np.argmax(gained[mine])]
                current[i], height[i], improved = steps[j], gained[j], True
        best_pool.append(current.copy())
        best_values.append(height.copy())
        if not improved:
            radius += 1
            if radius >= len(_RADII) or not (encoding.sizes == 0).any():
                break
    every, heights = np.vstack([*best_pool, pool]), np.concatenate([*best_values, values])
    order = np.argsort(-heights, kind="stable")
    ordered = np.round(every[order], 9)
    _, first = np.unique(ordered, axis=0, return_index=True)
    return every[order][np.sort(first)][:64]


def spread_out(
    encoding: Encoding, seen: np.ndarray, rng: np.random.RandomState, n: int = 3
) -> np.ndarray:
    """Of n random raw vectors the one that is farthest from all seen, shape (d,).

    Few, because the farthest of many always sits in a corner. Drawn again where all of them were
    seen, up to 16 times.
    """
    for _ in range(16):
        candidates = encoding.random(rng, n)
        if not len(seen):
            return candidates[0]
        a, b = encoding.points(candidates).spread, encoding.points(seen).spread
        distance = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2.0 * a @ b.T
        nearest = distance.min(1)
        if nearest.max() > 1e-9:
            break
    return candidates[int(np.argmax(nearest))]


def keys(raw: np.ndarray) -> list[tuple[float, ...]]:
    """Hashable identity of raw vectors."""
    return [tuple(row) for row in np.round(raw, 9).tolist()]


def _is_fresh(encoding: Encoding, raw: np.ndarray, taken: set[tuple[float, ...]]) -> np.ndarray:
    return np.array([k not in taken for k in keys(raw)], dtype=bool) & encoding.valid(raw)


def _mutate(encoding: Encoding, raw: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    d = raw.shape[1]
    change = rng.random_sample(raw.shape) < min(1.0, 1.5 / d)
    change[np.arange(len(raw)), rng.randint(d, size=len(raw))] = True
    fresh = encoding.random(rng, len(raw))
    radius = 10.0 ** rng.uniform(-3.0, -0.5, size=(len(raw), 1))
    moved = np.clip(raw + radius * rng.standard_normal(raw.shape), 0.0, 1.0)
    continuous = (encoding.sizes == 0)[None, :]
    return encoding.snap(np.where(change, np.where(continuous, moved, fresh), raw))


def _neighbours(
    encoding: Encoding, raw: np.ndarray, rng: np.random.RandomState, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Raw vectors one step from each of ``raw``, and which one each belongs to."""
    steps: list[np.ndarray] = []
    owner: list[int] = []
    continuous = np.flatnonzero(encoding.sizes == 0)
    for i, row in enumerate(raw):
        for axis, size in enumerate(encoding.sizes):
            others = np.arange(size)[np.arange(size) != row[axis]]
            if len(others) > 10:
                others = rng.permutation(others)[:10]
            block = np.repeat(row[None, :], len(others), axis=0)
            block[:, axis] = others
            steps.append(block)
            owner += [i] * len(others)
        if len(continuous):
            n = 8 + 4 * len(continuous)
            block = np.repeat(row[None, :], n, axis=0)
            mask = rng.random_sample((n, len(continuous))) < 0.5
            noise = radius * rng.standard_normal((n, len(continuous))) * mask
            block[:, continuous] = np.clip(block[:, continuous] + noise, 0.0, 1.0)
            steps.append(block)
            owner += [i] * n
    return encoding.snap(np.vstack(steps)), np.array(owner)
