import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autotune_rlm.learn.columns import Column, columns_of, encode, encode_configs
from autotune_rlm.surrogate.fields import parameter_features
from autotune_rlm.surrogate.text import candidate_columns
from autotune_rlm.types import Candidate, Device, Task


def test_a_derived_column_is_no_dimension_of_the_space():
    columns = [
        Column("waves_per_eu", np.array([0.0, 1.0, 2.0])),
        Column("waves", np.array([3.0, 1.0, 9.0]), derived=True),
    ]
    encoded = encode(columns, 3)
    assert encoded.x.shape == (3, 1)
    assert encoded.groups.tolist() == [0]


def test_a_parameter_named_like_a_derived_column_is_kept():
    candidates = [
        Candidate({"BLOCK_M": m, "waves_per_eu": w, "programs": p})
        for m in (32, 64)
        for w in (0, 2)
        for p in (1, 2)
    ]
    task = Task(kernel="k", device=Device(name="AMD MI300X", sms=304), problem={"M": 4096})
    assert parameter_features(candidate_columns(task, candidates).values(), 8).shape == (8, 3)


def test_the_values_of_a_name_share_a_group():
    configs = [{"a": "x", "b": 1}, {"a": "y", "b": 2}, {"a": "z", "b": 3}]
    encoded = encode(columns_of(configs), 3)
    assert encoded.groups.tolist() == [0, 0, 0, 1]
    apart = np.linalg.norm(encoded.x[:, None, :3] - encoded.x[None, :, :3], axis=-1)
    np.testing.assert_allclose(apart, 1 - np.eye(3))


@given(st.permutations(range(6)))
def test_rows_are_encoded_alike_in_any_order(order):
    configs = [{"a": 2**i, "b": "xy"[i % 2], **({"c": i} if i > 2 else {})} for i in range(6)]
    x = encode_configs(configs)
    np.testing.assert_allclose(encode_configs([configs[i] for i in order]), x[list(order)])
