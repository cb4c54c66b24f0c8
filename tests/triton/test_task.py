"""How a launch becomes text: source, problem, configuration."""

from __future__ import annotations

import math

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st
from triton_test_kernels import scale
from triton_test_support import Quick, configs

from autotune_rlm.integrations.triton import kernel_source
from autotune_rlm.integrations.triton._task import (
    KernelTasks,
    candidates_of,
    describe,
    dtype_name,
)
from autotune_rlm.types import Device

HERE = Device(name="NVIDIA H100")


def define(text, **names):
    """A kernel from program text, without a file."""
    kernel = Quick(lambda: None)
    namespace = {"tl": tl, **names}
    exec(text, namespace)
    kernel.fn = namespace["k"]
    kernel.src = text
    return kernel


PLAIN = "def k(x, n, B: tl.constexpr):\n    y = x + 1\n    return y\n"


@pytest.mark.parametrize(
    "same",
    [
        'def k(x, n, B: tl.constexpr):\n    """Documented."""\n    y = x + 1\n    return y\n',
        "def k(x,n,B:tl.constexpr):\n  # a comment\n  y=(x+1)\n\n  return y\n",
        "@deco\ndef k(x, n, B: tl.constexpr):\n    y = x + 1\n    return y\n",
    ],
)
def test_comments_docstrings_decorators_and_spacing_make_no_difference(same):
    kernel = define(same, deco=lambda f: f)
    assert kernel_source(kernel) == kernel_source(define(PLAIN)) == PLAIN.strip()


def test_a_changed_statement_makes_a_difference():
    assert kernel_source(define(PLAIN.replace("+ 1", "+ 2"))) != kernel_source(define(PLAIN))


def test_device_functions_and_constants_belong_to_the_source():
    text = kernel_source(scale)
    assert text.startswith("def scale(x, y, n, BLOCK: tl.constexpr):\n    at = ")
    assert "def twice(value):\n    return value * FACTOR" in text
    assert text.endswith("FACTOR = 2")
    assert "cdiv" not in text


def test_decorated_or_not_the_source_is_the_same():
    assert kernel_source(triton.heuristics({})(scale)) == kernel_source(scale)


def test_a_kernel_without_source_has_none():
    kernel = Quick(eval("lambda x: x"))
    assert kernel_source(kernel) == ""


def test_what_is_no_kernel_is_told():
    with pytest.raises(TypeError, match=r"put @triton\.jit under the decorator"):
        kernel_source(print)


def test_a_tensor_is_described_by_dtype_shape_strides_and_alignment():
    x = torch.zeros(64, 48, dtype=torch.float16)[:, 1:]
    assert describe(x) == {"dtype": "fp16", "shape": [64, 47], "strides": [48, 1], "align": 2}
    assert describe(torch.zeros(4, device="meta")) == {
        "dtype": "fp32",
        "shape": [4],
        "strides": [1],
        "align": 16,
    }


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (3, 3),
        (True, True),
        (None, None),
        (2.5, 2.5),
        (math.inf, "inf"),
        ("relu", "relu"),
        (torch.bfloat16, "bf16"),
        (tl.float8e5, "fp8e5"),
        (tl.constexpr(7), 7),
        ((1, (2, None)), [1, [2, None]]),
        (torch.Size([2, 3]), [2, 3]),
        (scale, "scale"),
        (object(), "object"),
    ],
)
def test_every_argument_has_a_json_form(value, described):
    assert describe(value) == described


@pytest.mark.parametrize(
    ("torch_dtype", "triton_dtype"),
    [
        (torch.float32, tl.float32),
        (torch.int64, tl.int64),
        (torch.uint8, tl.uint8),
        (torch.bool, tl.int1),
        (torch.float8_e4m3fn, tl.float8e4nv),
        (torch.float8_e5m2, tl.float8e5),
        (torch.bfloat16, tl.bfloat16),
    ],
)
def test_torch_and_triton_name_dtypes_alike(torch_dtype, triton_dtype):
    assert dtype_name(torch_dtype) == dtype_name(triton_dtype)


def test_the_problem_is_every_argument_but_the_configuration():
    tasks = KernelTasks(scale, ["BLOCK"])
    x = torch.zeros(8)
    task = tasks.build({"x": x, "y": x, "n": 8, "BLOCK": 64, "grid": (1,), "warmup": False}, HERE)
    assert set(task.problem) == {"x", "y", "n"}
    assert task.kernel == "scale"
    assert task.versions == {"triton": ".".join(triton.__version__.split(".")[:2])}
    assert task == tasks.build({"n": 8, "y": x, "x": x}, HERE)


def test_defaults_of_the_signature_belong_to_the_problem():
    def kernel(x, eps=1e-5, ACT="relu"): ...

    tasks = KernelTasks(Quick(kernel), [])
    assert tasks.build({"x": 1, "ACT": "none"}, HERE).problem == {
        "x": 1,
        "eps": 1e-5,
        "ACT": "none",
    }


@given(
    n=st.integers(0, 3),
    seed=st.integers(0, 3),
    dtype=st.sampled_from([torch.float16, torch.float32]),
)
def test_only_the_key_and_dtypes_make_problems_differ(n, seed, dtype):
    def kernel(x, n, seed): ...

    tasks = KernelTasks(Quick(kernel), [])
    one = tasks.build({"x": torch.zeros(2), "n": 1, "seed": 1}, HERE).problem
    other = tasks.build({"x": torch.zeros(3, dtype=dtype), "n": n, "seed": seed}, HERE).problem
    same = n == 1 and dtype is torch.float32
    assert KernelTasks.same_key(one, other, ["n"]) is same
    assert KernelTasks.same_key(one, other, ["n", "x"]) is same


def test_candidates_are_distinct_and_hold_their_configuration():
    listed = configs(blocks=(64, 128), warps=(2,))
    hooked = triton.Config({"BLOCK": 64}, num_warps=2, pre_hook=print)
    found = candidates_of([*listed, listed[0], hooked])
    assert [c.payload for c in found] == [*listed, hooked]
    assert found[0].config == {"BLOCK": 64, "num_warps": 2, "num_stages": 3}
    assert found[2].config == {**found[0].config, "variant": 1}
    assert len({c.key for c in found}) == 3


def test_triton_options_that_are_not_the_default_are_parameters():
    config = triton.Config({"DT": tl.float16}, num_ctas=2, maxnreg=128)
    (candidate,) = candidates_of([config])
    assert candidate.config == {
        "DT": "fp16",
        "num_warps": 4,
        "num_stages": 3,
        "num_ctas": 2,
        "maxnreg": 128,
    }
