"""Triton launches described as JSON, run by the interpreter in a worker process."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune_rlm.measure.triton import IsolatedMeasurer, Workload
from autotune_rlm.measure.triton.kernel_call import (
    KernelCall,
    NotRepeatableError,
    describe_launch,
    evaluate_grid,
    make_tensor,
    note_launch,
)
from autotune_rlm.types import Candidate, Device, Status, Task, canonical_json

FILE = str(Path(__file__).with_name("kernels_for_tests.py"))
TASK = Task(kernel="add", device=Device(name="CPU", target="cpu"))
ARGS = {
    "x": {"dtype": "fp32", "shape": [1000], "fill": "normal"},
    "y": {"dtype": "fp32", "shape": [1000], "fill": "uniform"},
    "out": {"dtype": "fp32", "shape": [1000], "fill": "empty"},
    "n": 1000,
}


def test_a_kernel_is_measured_and_checked_in_a_worker():
    pytest.importorskip("triton")
    call = KernelCall(
        file=FILE, function="add", args=ARGS, grid=["cdiv(n, BLOCK)"], outputs=["out"], device="cpu"
    )
    configs = [
        {"BLOCK": 256, "EVEN": False, "UNUSED": 0},
        {"BLOCK": 512, "EVEN": False, "UNUSED": 0},
        {"BLOCK": 512, "EVEN": False, "UNUSED": 666},
        {"BLOCK": 500, "EVEN": False, "UNUSED": 0},
        {"EVEN": False, "UNUSED": 0},
    ]
    with IsolatedMeasurer(call.workload(), env={"TRITON_INTERPRET": "1"}) as measurer:
        results = [m for _, m in measurer.measure(TASK, [Candidate(c) for c in configs])]
    statuses = [m.status for m in results]
    assert statuses[:3] == [Status.OK, Status.OK, Status.WRONG_RESULT], results
    assert statuses[3] in (Status.RUNTIME_ERROR, Status.COMPILE_ERROR)
    assert "BLOCK" in results[4].reason
    assert results[0].state["timer"] == "wall"


def test_a_noted_launch_runs_elsewhere():
    triton = pytest.importorskip("triton")
    torch = pytest.importorskip("torch")
    import kernels_for_tests as kernels

    x = torch.arange(64.0)
    launches = [({"BLOCK": b}, (64 // b,), {"EVEN": True, "UNUSED": None}) for b in (16, 32)]
    noted = describe_launch(kernels.add, {"x": x, "y": x, "out": x, "n": 64}, launches)
    canonical_json(noted.workload().to_json())
    assert noted.args["x"]["shape"] == [64]
    indices = describe_launch(kernels.add, {"x": torch.tensor([5, 7])}, launches)
    assert indices.args["x"]["values"] == [5, 7]

    @triton.jit
    def local(x):
        pass

    for kernel, argument in ((local, x), (kernels.add, object())):
        with pytest.raises(NotRepeatableError):
            describe_launch(kernel, {"x": argument}, launches)
        assert note_launch(kernel, {"x": argument}, launches) is None
    assert note_launch(kernels.add, {"x": torch.tensor([5, 7])}, launches) == indices
    workload = Workload(**{**noted.workload().to_json()})
    workload.arguments["device"] = "cpu"
    with IsolatedMeasurer(workload, env={"TRITON_INTERPRET": "1"}) as measurer:
        results = list(measurer.measure(TASK, [Candidate({"BLOCK": b}) for b in (16, 32)]))
    assert [m.status for _, m in results] == [Status.OK] * 2, results


@given(st.integers(1, 10**6), st.integers(1, 10**4))
def test_grids_are_evaluated(n, block):
    names = {"n": n, "B": block}
    assert evaluate_grid(["cdiv(n, B)"], names) == (-(-n // block),)
    assert evaluate_grid(["(n + B - 1) // B", "max(1, n % B)"], names)[0] == -(-n // block)


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "n.real", "[1][0]", "n / 2", "(lambda: 1)()", "2 ** 99999", "", "0", "x"],
)
def test_grids_evaluate_nothing_else(text):
    with pytest.raises(ValueError):
        evaluate_grid([text], {"n": 4})


def test_tensors_are_made_as_described():
    torch = pytest.importorskip("torch")
    strided = make_tensor({"dtype": "fp16", "shape": [4, 8], "strides": [16, 2]}, "cpu")
    assert strided.stride() == (16, 2)
    odd = make_tensor({"dtype": "fp32", "shape": [8], "align": 4}, "cpu")
    assert odd.data_ptr() % 16 == 4
    values = make_tensor({"dtype": "i64", "shape": [2, 2], "values": [1, 2, 3, 4]}, "cpu")
    assert values.tolist() == [[1, 2], [3, 4]]
    random = {"dtype": "i32", "shape": [100], "fill": "randint", "low": 3, "high": 5}
    assert set(make_tensor(random, "cpu").tolist()) == {3, 4}
    assert torch.equal(make_tensor(random, "cpu"), make_tensor(random, "cpu"))
    with pytest.raises(ValueError, match="dtype"):
        make_tensor({"dtype": "fp7", "shape": [1]}, "cpu")
    with pytest.raises(ValueError, match="fill"):
        make_tensor({"dtype": "fp16", "shape": [1], "fill": "magic"}, "cpu")


def test_calls_are_checked_before_anything_runs():
    with pytest.raises(ValueError, match="grid"):
        KernelCall(file=FILE, function="add", args=ARGS, grid=[])
    with pytest.raises(ValueError, match="outputs"):
        KernelCall(file=FILE, function="add", args=ARGS, grid=["1"], outputs=["nothing"])


def test_what_cannot_be_made_again_is_named():
    triton = pytest.importorskip("triton")
    torch = pytest.importorskip("torch")
    import kernels_for_tests as kernels

    def noted(**arguments):
        return describe_launch(kernels.add, arguments, [({}, (1,), {})]).args

    @triton.jit
    def local(x):
        pass

    with pytest.raises(NotRepeatableError, match=r"idx: the values of 5,000 elements"):
        noted(idx=torch.zeros(5000, dtype=torch.int32))
    with pytest.raises(NotRepeatableError, match=r"mask: .* torch.bool"):
        noted(mask=torch.zeros(100, 100, dtype=torch.bool))
    with pytest.raises(NotRepeatableError, match="state: a object"):
        noted(state=object())
    with pytest.raises(NotRepeatableError, match="top level"):
        describe_launch(local, {}, [])
    small = torch.randperm(4096).to(torch.int32)
    assert noted(idx=small)["idx"]["values"] == small.tolist()
    weights = noted(w=torch.zeros(100, 100, dtype=torch.int8))["w"]
    made = make_tensor(weights, "cpu")
    assert made.dtype == torch.int8
    assert made.float().std() > 50  # data of any kind and no zeros, which cost a device less power
