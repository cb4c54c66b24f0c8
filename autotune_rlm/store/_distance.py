"""How far apart two problems of one kernel are."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from autotune_rlm.devices import distance, lookup
from autotune_rlm.types import Device, Task

_MISMATCH = 4.0  # like a factor of 16 in one size
_OTHER_SOURCE = 2.0
_OTHER_VERSIONS = 0.5


def problem_distance(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Distance between two problems; 0.0 for equal ones.

    Euclidean over the leaves of the two JSON trees, matched by their path. Two numbers of one sign
    are ``|log2((1 + |x|) / (1 + |y|))|`` apart, so that doubling any one size costs about 1. A
    dtype or another word that differs, a leaf that only one has and a change of sign cost 4 each,
    as much as a factor of 16.
    """
    return euclidean(gaps(dict(leaves(a, ())), dict(leaves(b, ()))))


def euclidean(gaps: Iterable[float]) -> float:
    """The distance that gaps in single leaves make."""
    return math.sqrt(sum(gap * gap for gap in gaps))


def task_distance(a: Task, b: Task) -> float:
    """``problem_distance`` and ``devices.distance``, 2 for another source, 0.5 for other versions."""
    return problem_distance(a.problem, b.problem) + task_penalty(
        source=a.source != b.source,
        devices=(a.device, b.device),
        versions=dict(a.versions) != dict(b.versions),
    )


def task_penalty(*, source: bool, devices: tuple[Device, Device], versions: bool) -> float:
    """What ``task_distance`` adds where the source, the device and versions differ."""
    apart = _apart(*devices) if devices[0].name != devices[1].name else 0.0
    return _OTHER_SOURCE * source + apart + _OTHER_VERSIONS * versions


@functools.lru_cache(maxsize=1024)
def _apart(a: Device, b: Device) -> float:
    """The distance of two devices; one that tells its name alone has the figures known of that name."""
    return distance(*(d if d.target or not d.name.strip() else lookup(d.name) for d in (a, b)))


def gaps(left: Mapping[Any, Any], right: Mapping[Any, Any]) -> list[float]:
    """How far apart two problems are in each leaf, given by path; equal ones left out."""
    found = [_gap(value, right.get(path)) for path, value in left.items()]
    found += [_gap(None, right[path]) for path in right.keys() - left.keys()]
    return [gap for gap in found if gap]


def leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Path and value of each number, word, flag and null of a JSON tree."""
    if isinstance(value, (str, int, float)):  # asked first, because most values are
        yield path, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, value


def _gap(x: Any, y: Any) -> float:
    if x == y and isinstance(x, bool) == isinstance(y, bool):
        return 0.0
    if not (_is_number(x) and _is_number(y)) or (x < 0) != (y < 0):
        return _MISMATCH
    gap = abs(math.log2(1 + abs(x)) - math.log2(1 + abs(y)))
    return gap if math.isfinite(gap) else _MISMATCH


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
