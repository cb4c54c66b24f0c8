"""What to record next: breadth first, so that stopping at any moment leaves a balanced set."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune_rlm.config_space import ConfigSpace


@dataclass(frozen=True)
class Unit:
    """One binary and where it runs."""

    kernel: str  # name in the suite
    config: Mapping[str, Any]
    problems: tuple[int, ...]  # indices of those that share the binary
    target: str = ""  # what it is compiled for; empty for the device at hand


def spread_configs(space: ConfigSpace, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Every configuration of ``space`` once, any first part of them spread evenly over it.

    The order is that of a scrambled Sobol sequence over the parameters; what the sequence has not
    met after several times the size of the space follows in random order.
    """
    from scipy.stats import qmc

    values = list(space.parameters.values())
    names = list(space.parameters)
    sobol = qmc.Sobol(len(values), scramble=True, rng=np.random.default_rng(seed))
    seen: set[tuple[int, ...]] = set()
    drawn, limit = 0, 8 * space.product_size
    while drawn < limit:
        size = min(512, 2 ** max(0, math.ceil(math.log2(limit - drawn))))
        for point in sobol.random(size):
            digits = tuple(int(x * len(v)) for x, v in zip(point, values, strict=True))
            if digits in seen:
                continue
            seen.add(digits)
            config = {n: v[d] for n, v, d in zip(names, values, digits, strict=True)}
            if config in space:
                yield config
        drawn += size
    places = space.parameters.items()
    rest = [c for c in space if tuple(v.index(c[n]) for n, v in places) not in seen]
    for index in np.random.default_rng(seed).permutation(len(rest)).tolist():
        yield rest[index]


def spread_problems(classes: Sequence[tuple[int, ...]], n: int) -> list[tuple[int, ...]]:
    """``n`` problems, at least two of a binary where there are: fewer compilations, sizes apart.

    ``classes`` are indices of problems that share a binary, from small to large.
    """

    def spread(items: Sequence[Any], count: int) -> list[Any]:
        places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
        return [items[place] for place in places]

    for count in range(min(math.ceil(n / 2), len(classes)), len(classes) + 1):
        kept: list[tuple[int, ...]] = []
        for i, group in enumerate(sorted(spread(classes, count), key=len)):
            share = math.ceil((n - sum(map(len, kept))) / (count - i))
            kept += [tuple(spread(group, share))] if share else []
        if sum(map(len, kept)) == n:
            break
    return sorted(kept)


def round_robin(
    spaces: Mapping[str, ConfigSpace],
    classes: Mapping[str, Sequence[tuple[int, ...]]],
    *,
    targets: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Iterator[Unit]:
    """All units of some kernels, one of each kernel in turn; ``classes`` are problems of one binary.

    A kernel's units go through its classes of problems and targets before they come to its next
    configuration, so that all its landscapes grow alike.
    """
    streams = {
        name: _units(name, space, classes[name], (targets or {}).get(name, ("",)), seed + i)
        for i, (name, space) in enumerate(spaces.items())
    }
    while streams:
        for name in list(streams):
            unit = next(streams[name], None)
            if unit is None:
                del streams[name]
            else:
                yield unit


def _units(
    name: str,
    space: ConfigSpace,
    classes: Sequence[tuple[int, ...]],
    targets: Sequence[str],
    seed: int,
) -> Iterator[Unit]:
    places = list(itertools.product(classes, targets))
    for turn, config in enumerate(spread_configs(space, seed=seed)):
        # each configuration starts at another place, so that an early stop favours none
        for offset in range(len(places)):
            problems, target = places[(turn + offset) % len(places)]
            yield Unit(name, config, problems, target)
