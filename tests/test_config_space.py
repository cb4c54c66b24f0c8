"""What ConfigSpace promises."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune_rlm import ConfigSpace

spaces = st.dictionaries(
    st.sampled_from(["A", "B", "C", "D"]),
    st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True),
    min_size=1,
)


@given(parameters=spaces, modulus=st.integers(1, 3))
def test_size_iteration_and_membership_agree(parameters, modulus):
    space = ConfigSpace(constraint=lambda c: sum(c.values()) % modulus == 0, **parameters)
    found = list(space)
    assert space.size == len(space) == len(found) <= space.product_size
    assert len({tuple(sorted(c.items())) for c in found}) == len(found)
    assert all(c in space and sum(c.values()) % modulus == 0 for c in found)


@given(parameters=spaces, n=st.integers(1, 40), seed=st.integers(0, 5))
def test_sample_is_distinct_allowed_and_repeatable(parameters, n, seed):
    space = ConfigSpace(**parameters)
    drawn = space.sample(n, seed=seed)
    assert len(drawn) == min(n, space.size)
    assert len({tuple(c.items()) for c in drawn}) == len(drawn)
    assert all(c in space for c in drawn)
    assert drawn == space.sample(n, seed=seed)


def test_sample_finds_what_a_tight_constraint_leaves():
    space = ConfigSpace(A=range(300), B=range(300), constraint=lambda c: c["A"] == c["B"] == 7)
    assert space.sample(3) == [{"A": 7, "B": 7}]


def test_sampling_a_huge_space_does_not_enumerate_it():
    space = ConfigSpace(**{f"P{i}": range(100) for i in range(12)})
    assert len(space.sample(50)) == 50
    assert space.size == 100**12


def test_triton_options_go_to_their_places():
    triton = pytest.importorskip("triton")
    space = ConfigSpace(BLOCK=[64], num_warps=[2], num_stages=[5], num_ctas=[1], maxnreg=[128])
    (config,) = space.to_triton()
    assert isinstance(config, triton.Config)
    assert config.kwargs == {"BLOCK": 64}
    assert (config.num_warps, config.num_stages, config.maxnreg) == (2, 5, 128)


def test_several_constraints_must_all_hold():
    space = ConfigSpace(A=[1, 2, 3], constraint=[lambda c: c["A"] > 1, lambda c: c["A"] < 3])
    assert space.configs() == [{"A": 2}]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, ValueError, "at least one parameter"),
        ({"A": []}, ValueError, "A has no values"),
        ({"A": "abc"}, TypeError, "A must be a list"),
        ({"A": 4}, TypeError, "write A=[4]"),
        ({"A": [1, 1]}, ValueError, "same value twice"),
        ({"A": [(1, 2)]}, TypeError, "numbers, strings or None"),
        ({"num_warps": [3]}, ValueError, "power of two"),
        ({"num_warps": [0]}, ValueError, "at least 1"),
        ({"num_stages": [2.5]}, ValueError, "num_stages must be an integer"),
        ({"A": [1], "constraint": "A > 1"}, TypeError, "constraint must be a function"),
    ],
)
def test_what_is_wrong_is_said_at_once(arguments, error, says):
    with pytest.raises(error, match=says.replace("[", r"\[").replace("]", r"\]")):
        ConfigSpace(**arguments)


def test_a_constraint_with_a_wrong_name_is_told_the_names():
    space = ConfigSpace(BLOCK_M=[1], constraint=lambda c: c["BLOCK_N"] > 0)
    with pytest.raises(ValueError, match=r"'BLOCK_N'.*it has BLOCK_M"):
        space.configs()


def test_a_constraint_that_allows_nothing_is_an_error():
    with pytest.raises(ValueError, match="allows none of the 2"):
        ConfigSpace(A=[1, 2], constraint=lambda c: False).configs()


def test_it_needs_neither_torch_nor_triton():
    code = (
        "import sys, autotune_rlm; autotune_rlm.ConfigSpace(A=[1]).configs();"
        "assert not {'torch', 'triton'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
