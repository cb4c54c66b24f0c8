"""What every kernel of the suite promises, and what a suite folder may be."""

import inspect

import pytest
import torch

from autotune_rlm.config_space import TRITON_OPTIONS
from autotune_rlm.record.suite import (
    binary_class,
    find_suite,
    load_suite,
    random_ints,
    tolerance_by_dtype,
    torch_dtype,
)

pytest.importorskip("triton")

SUITE = load_suite()
each_kernel = pytest.mark.parametrize("kernel", SUITE.values(), ids=list(SUITE))


def test_the_suite_is_large_and_varied():
    assert len(SUITE) >= 24
    assert len({inspect.getsource(kernel.fn.fn) for kernel in SUITE.values()}) == len(SUITE)


@each_kernel
def test_there_are_enough_configurations_and_problems(kernel):
    assert len(kernel.space) >= 100
    assert len(kernel.problems) >= 8
    assert len({str(p) for p in kernel.problems}) == len(kernel.problems)
    assert 1 <= len(kernel.small) <= 2


@each_kernel
def test_arguments_and_configuration_together_are_the_kernels_parameters(kernel):
    names = set(inspect.signature(kernel.fn.fn).parameters)
    config = set(kernel.space.parameters) - set(TRITON_OPTIONS)
    for problem in (*kernel.problems, *kernel.small):
        args = kernel.make_args(problem, "meta", None)
        assert set(args) | config == names
        assert not set(args) & config


@each_kernel
def test_meta_arguments_have_the_shapes_of_real_ones(kernel):
    problem = kernel.small[0]
    real = kernel.make_args(problem, "cpu", torch.Generator().manual_seed(0))
    meta = kernel.make_args(problem, "meta", None)
    for name, value in real.items():
        if isinstance(value, torch.Tensor):
            assert meta[name].is_meta
            assert (meta[name].shape, meta[name].dtype) == (value.shape, value.dtype)
            assert meta[name].stride() == value.stride()
        else:
            assert meta[name] == value


@each_kernel
def test_references_name_outputs_and_leave_the_arguments_alone(kernel):
    args = kernel.make_args(kernel.small[0], "cpu", torch.Generator().manual_seed(0))
    before = {k: v.clone() for k, v in args.items() if isinstance(v, torch.Tensor)}
    expected = kernel.reference(args)
    assert expected
    for name, value in expected.items():
        assert args[name].shape == value.shape
    for name, value in before.items():
        if name not in expected:
            # Bytes, not numbers: what is not yet written may hold a NaN, which equals nothing.
            assert torch.equal(args[name].view(torch.uint8), value.view(torch.uint8))


def test_equal_binaries_are_recognised():
    kernel = SUITE["matmul_kernel"]
    classes = [binary_class(kernel, kernel.make_args(p, "meta", None)) for p in kernel.problems]
    same = {(p["M"], p["N"]): c for p, c in zip(kernel.problems, classes, strict=True)}
    assert same[1024, 1024] != same[999, 1001]
    assert 1 < len(set(classes)) < len(classes)


def test_a_constants_value_makes_another_binary():
    kernel = SUITE["histogram_kernel"]
    a, b = (kernel.make_args({"n": 1024, "bins": bins}, "meta", None) for bins in (64, 128))
    assert binary_class(kernel, a) != binary_class(kernel, b)


def test_a_check_says_where_the_result_is_wrong():
    kernel = SUITE["matmul_kernel"]
    problem = kernel.small[0]
    args = kernel.make_args(problem, "cpu", torch.Generator().manual_seed(0))
    expected = kernel.reference(args)
    args["c_ptr"].copy_(expected["c_ptr"])
    assert kernel.check(args, expected, problem) is None
    args["c_ptr"][3, 4] = float("nan")
    assert "c_ptr" in kernel.check(args, expected, problem)


def test_fp8_kernels_ask_for_devices_that_have_it():
    kernel = SUITE["block_scaled_fp8_matmul"]
    assert not kernel.supports(("cuda", 80))
    assert kernel.supports(("cuda", 90))


def test_a_folder_of_your_own_is_a_suite(tmp_path):
    (tmp_path / "_private.py").write_text("raise RuntimeError('not a suite module')")
    source = find_suite("all") / "transpose.py"
    (tmp_path / "mine.py").write_text(source.read_text())
    assert list(load_suite(tmp_path)) == ["transpose_2d"]


def test_bad_suites_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be 'all' or a folder"):
        load_suite(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no suite modules"):
        load_suite(tmp_path)
    (tmp_path / "empty.py").write_text("x = 1")
    with pytest.raises(ValueError, match="must define KERNEL"):
        load_suite(tmp_path)
    with pytest.raises(ValueError, match="no kernel"):
        load_suite(only=["no_such_kernel"])
    with pytest.raises(ValueError, match="dtype must be one of"):
        torch_dtype("fp12")


def test_helpers_make_what_they_say():
    generator = torch.Generator().manual_seed(0)
    values = random_ints(2, 5, (100,), "i32", "cpu", generator)
    assert values.dtype == torch.int32
    assert set(values.tolist()) == {2, 3, 4}
    assert tolerance_by_dtype({"dtype": "bf16"}) > tolerance_by_dtype({"dtype": "fp16"})
