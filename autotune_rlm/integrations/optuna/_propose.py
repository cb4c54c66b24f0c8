"""Finds the candidate of highest acquisition: random ones, mutants of good ones, then a climb."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from autotune_rlm.integrations.optuna._encoding import Encoding
from autotune_rlm.integrations.optuna._model import StudyModel

_EVERYTHING = 1024  # combinations up to which all of them are compared
_RANDOM, _MUTANTS, _STARTS = 512, 256, 5  # uniform candidates, mutants of good ones, climbs
_STEEPEST = 36  # most iterations of the first ascent
_NEIGHBOURS = 48  # most candidates one step from each start, in a round


def climb(
    encoding: Encoding,
    model: StudyModel,
    good: np.ndarray,
    taken: set[tuple[float, ...]],
    rng: np.random.RandomState,
) -> np.ndarray:
    """Raw vectors with every parameter, (m, d) with m >= 1, in order of falling score.

    ``good`` are the best raw vectors seen, to mutate, shape (g, d); may be empty. ``taken`` are keys of
    those that must not be proposed again, unless nothing else is left.
    """
    every = encoding.everything(_EVERYTHING)
    if every is not None:
        fresh = every[_is_fresh(encoding, every, taken)]
        pool = fresh if len(fresh) else every
        order = np.argsort(-_tied(model.score(encoding.prune(pool)), rng), kind="stable")
        return pool[order][:64]
    parts = [encoding.random(rng, _RANDOM)]
    if len(good):
        good = encoding.complete(good, rng)
        parents = good[rng.randint(len(good), size=_MUTANTS)]
        parts += [good, _mutate(encoding, parents, rng)]
    pool = np.vstack(parts)
    pool = pool[_is_fresh(encoding, pool, taken)]
    if not len(pool):
        pool, taken = encoding.random(rng, _RANDOM), set()
    values = model.score(encoding.prune(pool))
    top = np.argsort(-_tied(values, rng), kind="stable")[:_STARTS]
    current, height = pool[top], values[top]
    found, heights = [pool], [values]
    smooth = encoding.continuous & encoding.free
    alone = smooth[encoding.free].all() and model.has_slopes
    for i in range(
        1 if alone else 2
    ):  # an ascent in the continuous parameters, steps in the others
        before = height.copy()
        if model.has_slopes and smooth.any():
            raised = encoding.snap(_ascend(encoding, model, current, _STEEPEST // (i + 1)))
            current, height = _better(encoding, model, current, height, raised, taken)
        current, height = _step(encoding, model, current, height, taken, rng)
        found.append(current.copy())
        heights.append(height.copy())
        if (height - before).max() < 1e-3:
            break
    every, scores = np.vstack(found[::-1]), np.concatenate(heights[::-1])
    order = np.argsort(-scores, kind="stable")
    _, first = np.unique(np.round(every[order], 9), axis=0, return_index=True)
    return every[order][np.sort(first)][:64]


def _tied(values: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Values with ties broken at random."""
    return np.where(np.isfinite(values), values, -1e300) + 1e-9 * rng.random_sample(len(values))


def _ascend(encoding: Encoding, model: StudyModel, starts: np.ndarray, most: int) -> np.ndarray:
    """All starts moved uphill at once in the continuous parameters, by L-BFGS-B on their sum."""
    axes = np.flatnonzero(encoding.continuous & encoding.free)
    shape = len(starts), len(axes)

    def fallen(flat: np.ndarray) -> tuple[float, np.ndarray]:
        raw = starts.copy()
        raw[:, axes] = flat.reshape(shape)
        value, slope = model.slopes(encoding.prune(raw))
        value, slope = np.nan_to_num(value, neginf=-1e6), np.nan_to_num(slope[:, axes])
        return -float(value.sum()), -slope.ravel()

    begin = np.clip(starts[:, axes], 0.0, 1.0).ravel()
    bounds = [(0.0, 1.0)] * len(begin)
    end = minimize(
        fallen,
        begin,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": most, "maxfun": most + 10, "ftol": 1e-6},
    )
    raised = starts.copy()
    raised[:, axes] = end.x.reshape(shape)
    return raised


def _better(
    encoding: Encoding,
    model: StudyModel,
    current: np.ndarray,
    height: np.ndarray,
    other: np.ndarray,
    taken: set[tuple[float, ...]],
) -> tuple[np.ndarray, np.ndarray]:
    """Of each pair of raw vectors the higher one, if it may be proposed."""
    values = np.where(
        _is_fresh(encoding, other, taken), model.score(encoding.prune(other)), -np.inf
    )
    gains = values > height
    return np.where(gains[:, None], other, current), np.where(gains, values, height)


def _step(
    encoding: Encoding,
    model: StudyModel,
    current: np.ndarray,
    height: np.ndarray,
    taken: set[tuple[float, ...]],
    rng: np.random.RandomState,
) -> tuple[np.ndarray, np.ndarray]:
    """The best neighbour of each raw vector, where it is higher."""
    steps, owner = _neighbours(encoding, current, rng, smooth=not model.has_slopes)
    keep = _is_fresh(encoding, steps, taken)
    steps, owner = steps[keep], owner[keep]
    if not len(steps):
        return current, height
    values = model.score(encoding.prune(steps))
    for i in range(len(current)):
        mine = np.flatnonzero(owner == i)
        if len(mine) and values[mine].max() > height[i] + 1e-9:
            j = mine[np.argmax(values[mine])]
            current[i], height[i] = steps[j], values[j]
    return current, height


def spread_out(encoding: Encoding, seen: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Of three random raw vectors the one that is farthest from all seen, shape (d,).

    Few, because the farthest of many always sits in a corner. Drawn again where all of them were
    seen, up to 16 times.
    """
    for _ in range(16):
        candidates = encoding.random(rng, 3)
        if not len(seen):
            return candidates[0]
        a, b = encoding.points(encoding.prune(candidates)).spread, encoding.points(seen).spread
        distance = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2.0 * a @ b.T
        nearest = distance.min(1)
        if nearest.max() > 1e-9:
            break
    return candidates[int(np.argmax(nearest))]


def keys(raw: np.ndarray) -> list[tuple[float, ...]]:
    """Hashable identity of raw vectors; of parameters that they lack it is -1."""
    return [tuple(row) for row in np.round(np.nan_to_num(raw, nan=-1.0), 9).tolist()]


def _is_fresh(encoding: Encoding, raw: np.ndarray, taken: set[tuple[float, ...]]) -> np.ndarray:
    if not taken:
        return encoding.valid(raw)
    fresh = np.array([k not in taken for k in keys(encoding.prune(raw))], dtype=bool)
    return fresh & encoding.valid(raw)


def _mutate(encoding: Encoding, raw: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    d = raw.shape[1]
    change = rng.random_sample(raw.shape) < min(1.0, 1.5 / d)
    change[np.arange(len(raw)), rng.randint(d, size=len(raw))] = True
    fresh = encoding.random(rng, len(raw))
    radius = 10.0 ** rng.uniform(-3.0, -0.5, size=(len(raw), 1))
    moved = np.clip(raw + radius * rng.standard_normal(raw.shape), 0.0, 1.0)
    return encoding.snap(
        np.where(change, np.where(encoding.continuous[None, :], moved, fresh), raw)
    )


def _neighbours(
    encoding: Encoding, raw: np.ndarray, rng: np.random.RandomState, *, smooth: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Raw vectors that differ in one parameter from each of ``raw``, and which one each belongs to."""
    axes = np.flatnonzero(encoding.free)
    options = [(i, v) for i in axes if (grid := encoding.grids[i]) is not None for v in grid]
    steps: list[np.ndarray] = []
    owner: list[int] = []
    for i, row in enumerate(raw):
        mine = [(axis, v) for axis, v in options if row[axis] != v]
        if len(mine) > _NEIGHBOURS:
            mine = [mine[j] for j in rng.choice(len(mine), _NEIGHBOURS, replace=False)]
        block = np.repeat(row[None, :], len(mine), axis=0)
        for j, (axis, v) in enumerate(mine):
            block[j, axis] = v
        steps.append(block)
        moving = np.flatnonzero(encoding.continuous & encoding.free)
        if len(moving) and smooth:
            n = 8 + 4 * min(len(moving), 16)
            block = np.repeat(row[None, :], n, axis=0)
            noise = 10.0 ** rng.uniform(-3, -0.7, (n, 1)) * rng.standard_normal((n, len(moving)))
            noise *= rng.random_sample((n, len(moving))) < 0.5
            block[:, moving] = np.clip(block[:, moving] + noise, 0.0, 1.0)
            steps.append(block)
        owner += [i] * (sum(map(len, steps)) - len(owner))
    return encoding.snap(np.vstack(steps)), np.array(owner, dtype=int)
