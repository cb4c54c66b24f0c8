import pytest
import torch

from autotune_rlm.dtypes import TORCH_NAMES, dtype_bytes, dtype_name, short_name
from autotune_rlm.surrogate.text import shared_fields
from autotune_rlm.types import Device, Task


@pytest.mark.parametrize("name", sorted(TORCH_NAMES))
def test_every_spelling_is_one_dtype_of_torchs_size(name):
    dtype = getattr(torch, TORCH_NAMES[name])
    assert dtype_name(dtype) == short_name(str(dtype)) == short_name(f"*{name}") == name
    assert dtype_bytes(name) == dtype_bytes(str(dtype)) == dtype.itemsize


def test_what_is_no_dtype_stays_as_it_is():
    assert short_name("row_major") is None
    assert dtype_name("tl.something") == "something"
    assert dtype_bytes("something", 3) == 3


@pytest.mark.parametrize("spelling", ["torch.float8_e4m3fn", "float8e4nv", "fp8e4nv", "*fp8e4nv"])
def test_a_launch_and_a_record_read_alike(spelling):
    def read(dtype):
        return shared_fields(Task(kernel="k", device=Device(name="x"), problem={"a": dtype}))

    assert read(spelling) == read("fp8e4nv")
