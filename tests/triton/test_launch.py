"""The cached launch: what the fast path looks at."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from autotune_rlm.integrations.triton._launch import CacheDict, LaunchShape, triton_key

NAMES = ["a", "b", "c", "d"]
VALUES = [1, 2, 2.5, None, "s", torch.zeros(1), torch.ones(1), torch.zeros(1, dtype=torch.int32)]


@st.composite
def launches(draw):
    """Arguments by position, the rest by name in any order, and key names."""
    values = draw(st.lists(st.sampled_from(range(len(VALUES))), min_size=4, max_size=4))
    split = draw(st.integers(0, 4))
    args = tuple(VALUES[i] for i in values[:split])
    named = dict(zip(NAMES[split:], (VALUES[i] for i in values[split:]), strict=True))
    return args, named


@given(one=launches(), other=launches(), keys=st.permutations(NAMES), n=st.integers(0, 4))
def test_equal_fast_keys_are_equal_keys_of_triton(one, other, keys, n):
    def both(launch):
        args, named = launch
        kwargs = {**named, "grid": (1,), "warmup": False}
        types = (*map(type, args), *kwargs, *map(type, kwargs.values()))
        shape = LaunchShape(NAMES, keys[:n], args, kwargs)
        own = triton_key(NAMES, keys[:n], {**dict(zip(NAMES, args, strict=False)), **kwargs})
        return types, shape.key(args, kwargs), own

    types, fast, slow = both(one)
    other_types, other_fast, other_slow = both(other)
    if types == other_types:
        assert (fast == other_fast) == (slow == other_slow)
    assert hash(fast) == hash(both(one)[1])


def test_a_cache_reports_every_change_of_what_it_held():
    changes = []
    cache = CacheDict(lambda: changes.append(dict(cache)), {"a": 1, "b": 2})
    cache["c"] = 3
    cache.setdefault("d", 4)
    assert changes == []
    cache["c"] = 4
    assert changes == [{"a": 1, "b": 2, "c": 4, "d": 4}]
    cache.update(d=5)
    cache |= {"e": 5}
    cache.pop("a")
    cache.popitem()
    del cache["b"]
    cache.clear()
    assert len(changes) == 7
    assert changes[-1] == {}
