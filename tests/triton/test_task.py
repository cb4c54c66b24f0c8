"""How a launch becomes text: source, problem, configuration."""

from __future__ import annotations

import math
from enum import Enum
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st
from triton_test_kernels import scale
from triton_test_support import Quick, body, configs

from autotune_rlm.integrations.triton import kernel_source
from autotune_rlm.integrations.triton.task import (
    KernelTasks,
    candidates_of,
    describe,
    dtype_name,
)
from autotune_rlm.types import Device, digest

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


def test_kernels_without_source_are_told_apart():
    one, same, other = (kernel_source(Quick(eval(f"lambda x: x{more}"))) for more in ("", "", "+1"))
    assert one == same != other
    assert one.startswith("# <lambda>: ")


DEPENDS = """
def k(x, n, B: tl.constexpr):
    v = x + {0}
    return v
"""


def of_constant(value, read="STEPS"):
    """The source of a kernel that reads ``STEPS`` or something reached through it."""
    return kernel_source(define(DEPENDS.format(read), STEPS=value))


def device_function(text):
    namespace = {}
    exec(f"def helper(v):\n    return {text}\n", namespace)
    function = Quick(namespace["helper"])
    function.src = f"def helper(v):\n    return {text}\n"
    return function


class Numbers(NamedTuple):
    first: int
    second: int


class Color(Enum):
    RED = 1
    BLUE = 2


@pytest.mark.parametrize(
    ("one", "other", "read"),
    [
        (1, 100, "STEPS"),  # ``STEPS: tl.constexpr = 1`` is an int
        (True, 1, "STEPS"),
        (tl.constexpr(1), tl.constexpr(2), "STEPS"),
        (tl.constexpr(1), tl.constexpr(2), "STEPS.value"),
        ((1, 2, (3,)), (1, 2, (4,)), "STEPS[2]"),
        ("a" * 500 + "b", "a" * 500 + "c", "STEPS"),
        (tuple(range(500)), (*range(499), 0), "STEPS[7]"),
        (Numbers(1, 2), Numbers(1, 3), "STEPS.second"),
        (Color.RED, Color.BLUE, "STEPS"),
        ({"a": 1}, {"a": 2}, "STEPS['a']"),
        (tl.float16, tl.float32, "STEPS"),
        (torch.float16, torch.float32, "STEPS"),
        (device_function("v"), device_function("v + 1"), "STEPS(n)"),
        (
            SimpleNamespace(ops=SimpleNamespace(act=device_function("v"))),
            SimpleNamespace(ops=SimpleNamespace(act=device_function("v + 1"))),
            "STEPS.ops.act(n)",
        ),
        (
            SimpleNamespace(sizes=SimpleNamespace(block=Numbers(1, 2))),
            SimpleNamespace(sizes=SimpleNamespace(block=Numbers(1, 3))),
            "STEPS.sizes.block.second",
        ),
        ((device_function("v"),), (device_function("v + 1"),), "STEPS[0](n)"),
    ],
)
def test_whatever_a_kernel_is_compiled_with_belongs_to_its_source(one, other, read):
    assert of_constant(one, read) != of_constant(other, read)
    assert of_constant(one, read) == of_constant(one, read)


def test_arguments_and_variables_hide_globals():
    text = (
        "def k(x, n, B: tl.constexpr):\n    y = x + n\n    for i in range(B):\n        y = y + i\n"
    )
    sources = {kernel_source(define(text, x=v, n=v, B=v, y=v, i=v)) for v in (1, 2)}
    assert len(sources) == 1


def test_which_of_two_functions_has_a_name_makes_a_difference():
    text = "def k(x, n, B: tl.constexpr):\n    return f(x) + g(n)\n"
    first, second = device_function("v"), device_function("v + 1")
    first.fn.__name__, second.fn.__name__ = "first", "second"
    one = kernel_source(define(text, f=first, g=second))
    assert one != kernel_source(define(text, f=second, g=first))


def test_options_of_the_kernel_and_computed_defaults_of_functions_make_a_difference():
    plain = define(PLAIN)
    given = define(PLAIN)
    given.do_not_specialize = ["n"]
    assert kernel_source(plain) != kernel_source(given)
    sources = set()
    for width in (1, 2):
        helper = Quick(lambda v: v)
        namespace = {"W": width}
        text = "def helper(v, by=W):\n    return v * by\n"
        exec(text, namespace)
        helper.fn, helper.src = namespace["helper"], text
        del namespace["W"]
        sources.add(kernel_source(define(DEPENDS.format("helper(n)"), helper=helper)))
    assert len(sources) == 2


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
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (Color.RED, "Color.RED"),
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
    assert set(task.problem) == {"x", "y", "n", "grid"}
    assert task.kernel == "scale"
    assert task.versions["triton"] == triton.__version__
    assert task == tasks.build({"n": 8, "grid": (1,), "y": x, "x": x}, HERE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a" * 300 + "b", "a" * 300 + "c"),
        (tuple(range(100)), (*range(99), 0)),
        (device_function("v"), device_function("v + 1")),
        ((1, device_function("v")), (1, device_function("v + 1"))),
        (tl.constexpr(device_function("v")), tl.constexpr(device_function("v + 1"))),
        (np.float32(1), np.float32(2)),
        (1, 1.0),
        (1, True),
        (Numbers(1, 2), Numbers(1, 3)),
        (lambda v: v, lambda v: v + 1),
    ],
)
def test_different_arguments_have_different_descriptions(one, other):
    assert digest(describe(one)) != digest(describe(other))
    assert digest(describe(one)) == digest(describe(one))


def test_the_grid_that_the_default_configuration_gives_belongs_to_the_problem():
    first = configs(blocks=(64,), warps=(2,))[0]
    x = torch.zeros(8)

    def of(grid, **more):
        tasks = KernelTasks(scale, ["BLOCK"], default=first)
        return tasks.build({"x": x, "y": x, "n": 640, "grid": grid, **more}, HERE)

    assert of(lambda meta: (triton.cdiv(meta["n"], meta["BLOCK"]), 2)).problem["grid"] == [10, 2]
    assert of((4,)).key != of((8,)).key
    assert of((4,)).binary == of((8,)).binary
    assert "grid" not in of(lambda meta: meta["typo"]).problem
    assert "grid" not in of((1,), warmup=True).problem


@pytest.mark.parametrize("name", ["TRITON_OVERRIDE_ARCH", "DISABLE_LLVM_OPT", "TRITON_F32_DEFAULT"])
def test_flags_of_the_compiler_belong_to_the_task(name, stub, monkeypatch):
    tasks = KernelTasks(scale, ["BLOCK"])
    before = tasks.build({"n": 8}, HERE)
    values = {"TRITON_OVERRIDE_ARCH": "sm80", "TRITON_F32_DEFAULT": "ieee"}
    monkeypatch.setenv(name, values.get(name, "1"))
    after = tasks.build({"n": 8}, HERE)
    assert before.key != after.key
    assert before.binary != after.binary
    monkeypatch.delenv(name)
    assert tasks.build({"n": 8}, HERE) == before


def made_by(factor):
    """A benchmark whose text is the same for each factor."""
    return lambda call, quantiles: factor


def test_functions_of_the_user_belong_to_the_task():
    def of(**options):
        kernel = triton.autotune(configs=configs(), key=["n"], **options)(Quick(body))
        return KernelTasks.of(kernel, kernel.configs).build({"n": 8}, HERE).key

    plain = of()
    hook = {"pre_hook": lambda given, reset_only=False: None}
    assert len({plain, of(do_bench=made_by(1)), of(do_bench=made_by(2)), of(**hook)}) == 4
    assert of(do_bench=made_by(1)) == of(do_bench=made_by(1))
    assert of(reset_to_zero=["x"]) == plain


def test_heuristics_belong_to_the_task():
    def of(heuristic):
        kernel = triton.heuristics({"EVEN": heuristic})(Quick(body))
        return KernelTasks(kernel, []).build({"n": 8}, HERE)

    one, other = of(lambda given: given["n"] > 1), of(lambda given: given["n"] > 2)
    assert one.key != other.key
    assert one.binary != other.binary


def test_blocks_of_descriptors_that_hooks_set_are_no_part_of_the_problem():
    descriptor = SimpleNamespace(
        base=torch.zeros(64, 64), shape=[64, 64], strides=[64, 1], block_shape=[16, 16]
    )
    assert describe(descriptor)["block"] == [16, 16]
    hooked = [triton.Config({"BLOCK": 16}, pre_hook=print), triton.Config({"BLOCK": 32})]
    kernel = triton.autotune(configs=hooked, key=["n"])(Quick(body))
    tasks = KernelTasks.of(kernel, hooked)
    before = tasks.build({"x": descriptor, "n": 8}, HERE)
    descriptor.block_shape = [32, 32]
    assert tasks.build({"x": descriptor, "n": 8}, HERE) == before


def test_defaults_of_the_signature_belong_to_the_problem():
    def kernel(x, eps=1e-5, ACT="relu"): ...

    tasks = KernelTasks(Quick(kernel), [])
    assert tasks.build({"x": 1, "ACT": "none"}, HERE).problem == {
        "x": 1,
        "eps": 1e-5,
        "ACT": "none",
    }


@given(
    n=st.sampled_from([2, 3]),
    seed=st.sampled_from([0, 1, 2, 3]),
    dtype=st.sampled_from([torch.float16, torch.float32]),
)
def test_what_has_to_be_equal_for_one_choice(n, seed, dtype):
    def kernel(x, n, seed): ...

    def of(**arguments):
        return KernelTasks(Quick(kernel), [], key=["n"]).build(arguments, HERE).like

    one = of(x=torch.zeros(2), n=2, seed=2)
    other = of(x=torch.zeros(3, dtype=dtype), n=n, seed=seed)
    assert (one == other) is (n == 2 and seed > 1 and dtype is torch.float32)


@pytest.mark.parametrize(
    ("changed", "same_binary"),
    [
        ({"n": 17}, False),  # 16 does not divide it
        ({"n": 32}, True),
        ({"n": 1}, False),
        ({"n": 2**33}, False),
        ({"C": 65}, False),
        ({"x": torch.zeros(64)[1:]}, False),
        ({"x": torch.zeros(128)}, True),
        ({"x": torch.zeros(64, dtype=torch.float16)}, False),
        ({"eps": 2.0}, True),
        ({"x": None}, False),
    ],
)
def test_equal_binaries(changed, same_binary):
    def kernel(x, n, eps, C: tl.constexpr): ...

    tasks = KernelTasks(Quick(kernel), [])
    given = {"x": torch.zeros(64), "n": 16, "eps": 1.0, "C": 64}
    one, other = tasks.build(given, HERE), tasks.build({**given, **changed}, HERE)
    assert one.key != other.key
    assert (one.binary == other.binary) is same_binary


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
