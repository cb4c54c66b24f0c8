from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from surrogate_support import make_task

from autotune_rlm.surrogate.numbers import NUMBER_FEATURES, number_features
from autotune_rlm.surrogate.text import (
    Field,
    candidate_columns,
    normalise_name,
    render,
    shared_fields,
)
from autotune_rlm.types import Candidate, Device, Task


@pytest.mark.parametrize(
    ("spelled", "read"),
    [
        ("BLOCK_SIZE_M", "block_m"),
        ("BLOCK_M", "block_m"),
        ("GROUP_SIZE_M", "group_m"),
        ("numwarps", "num_warps"),
        ("num_stages", "num_stages"),
    ],
)
def test_spellings_of_one_parameter_read_alike(spelled, read):
    assert normalise_name(spelled) == read


def test_shared_part_names_device_problem_and_kernel():
    text = render(shared_fields(make_task(4096)))
    for piece in ("kernel=matmul", "device.name=NVIDIA A100", "m=4096", "a.dtype=fp16"):
        assert piece in text


def test_tensors_are_flattened():
    tensor = {"dtype": "float16", "shape": [8, 16], "strides": [16, 1]}
    task = Task(kernel="k", device=Device(name="x"), problem={"x_ptr": tensor})
    fields = shared_fields(task)
    assert Field("x_ptr.dtype", "fp16") in fields
    assert Field("x_ptr.shape.1", 16.0) in fields


def test_blocks_programs_and_waves_follow_from_the_problem():
    columns = candidate_columns(make_task(1000), [Candidate({"BLOCK_M": 128, "BLOCK_N": 64})])
    assert columns["blocks.m"].values[0] == 8
    assert columns["programs"].values[0] == 8 * 16
    assert columns["waves"].values[0] == pytest.approx(128 / 108)
    assert columns["blocks.m"].derived
    assert not columns["block_m"].derived
    assert columns["overhang.m"].values[0] == pytest.approx(1.024)


def test_missing_parameters_are_nan_or_none():
    columns = candidate_columns(
        make_task(), [Candidate({"a": 1, "b": "x"}), Candidate({"b": "y", "c": 2.0})]
    )
    assert np.isnan(columns["a"].values[1])
    assert columns["b"].values.tolist() == ["x", "y"]
    assert np.isnan(columns["c"].values[0])


json_scalar = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
json_value = st.recursive(
    json_scalar,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(problem=st.dictionaries(st.text(max_size=8), json_value, max_size=4), config=json_scalar)
def test_any_problem_and_configuration_can_be_read(problem, config):
    task = Task(kernel="k", device=Device(name="?"), problem=problem)
    for field in shared_fields(task):
        assert isinstance(field.value, str) or np.isfinite(field.value)
    for column in candidate_columns(task, [Candidate({"p": config})] * 2).values():
        assert len(column.values) == 2
        assert not column.numeric or column.values.dtype == np.float64


@given(st.lists(st.floats(), min_size=1, max_size=10))
def test_number_features_are_finite_and_small(values):
    features = number_features(np.array(values))
    assert features.shape == (len(values), NUMBER_FEATURES)
    assert np.isfinite(features).all()
    assert np.abs(features).max() < 8


def test_neighbouring_sizes_have_neighbouring_features():
    f = number_features(np.array([4096, 8192, 64], dtype=float))
    assert np.linalg.norm(f[0] - f[1]) < np.linalg.norm(f[0] - f[2])
