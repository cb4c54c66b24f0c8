"""The order of a recording: everything once, and balanced wherever it stops."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.record.plan import round_robin, spread_configs, spread_problems

SPACE = ConfigSpace(
    A=[16, 32, 64, 128],
    B=[1, 2, 4],
    num_warps=[1, 2, 4, 8],
    constraint=lambda c: c["A"] * c["B"] <= 256,
)


@given(seed=st.integers(min_value=0, max_value=2**31))
@settings(max_examples=20)
def test_every_configuration_comes_once(seed):
    configs = [tuple(c.items()) for c in spread_configs(SPACE, seed=seed)]
    assert sorted(configs) == sorted(tuple(c.items()) for c in SPACE)


def test_a_space_that_allows_little_is_covered_too():
    space = ConfigSpace(A=range(50), B=range(50), constraint=lambda c: c["A"] == c["B"] == 7)
    assert list(spread_configs(space)) == [{"A": 7, "B": 7}]


def test_first_parts_are_spread_over_every_parameter():
    space = ConfigSpace(A=range(16), B=range(16), C=range(16))
    first = list(itertools.islice(spread_configs(space, seed=3), 64))
    for name in "ABC":
        counts = Counter(c[name] for c in first)
        assert len(counts) == 16
        assert max(counts.values()) <= 6


def test_seeds_give_orders():
    assert list(spread_configs(SPACE, seed=1)) == list(spread_configs(SPACE, seed=1))
    assert list(spread_configs(SPACE, seed=1)) != list(spread_configs(SPACE, seed=2))


@given(stop=st.integers(min_value=1, max_value=90))
@settings(max_examples=20)
def test_stopping_anywhere_leaves_a_balanced_set(stop):
    spaces = dict.fromkeys(("k1", "k2", "k3"), SPACE)
    classes = {"k1": [(0, 1), (2,)], "k2": [(0,)], "k3": [(0,), (1,), (2, 3)]}
    units = list(itertools.islice(round_robin(spaces, classes), stop))
    by_kernel = Counter(u.kernel for u in units)
    assert max(by_kernel.values()) - min(by_kernel[k] for k in spaces) <= 1
    for kernel, groups in classes.items():
        by_class = Counter(u.problems for u in units if u.kernel == kernel)
        counts = [by_class[group] for group in groups]
        assert max(counts) - min(counts) <= 1


def test_all_units_come_once_over_targets():
    targets = {"k": ("sm_80", "sm_90")}
    units = list(round_robin({"k": SPACE}, {"k": [(0,), (1,)]}, targets=targets))
    assert len(units) == len({(str(u.config), u.problems, u.target) for u in units})
    assert len(units) == SPACE.size * 4


@given(
    sizes=st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=9),
    n=st.integers(min_value=1, max_value=90),
)
def test_problems_are_as_many_as_asked_for_in_as_few_binaries_as_leave_two_of_each(sizes, n):
    indices = iter(range(sum(sizes)))
    classes = [tuple(itertools.islice(indices, size)) for size in sizes]
    kept = spread_problems(classes, n)
    assert sum(map(len, kept)) == min(n, sum(sizes))
    assert all(any(set(some) <= set(group) for group in classes) for some in kept)
    if min(sizes) > 1 and n <= 2 * len(sizes):
        assert len(kept) == (n + 1) // 2


def test_kernels_without_places_are_passed_over():
    targets = {"k": ("sm_90",), "none": ()}
    units = list(
        round_robin({"k": SPACE, "none": SPACE}, {"k": [(0,)], "none": [(0,)]}, targets=targets)
    )
    assert {u.kernel for u in units} == {"k"}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_spaces(size):
    space = ConfigSpace(A=range(size))
    assert len(list(spread_configs(space))) == size
