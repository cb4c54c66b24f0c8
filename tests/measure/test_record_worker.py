"""What the device's process does for a recorder, as far as it goes without a device."""

import dataclasses
import json

import pytest
import torch

pytest.importorskip("triton")

from autotune_rlm.integrations.triton.stub import StubDriver
from autotune_rlm.record import _worker
from autotune_rlm.record.suite import find_suite, load_suite
from autotune_rlm.types import Measurement, Status

CONFIG = {"BLOCK_R": 32, "BLOCK_C": 16, "COLUMN_MAJOR": False, "num_warps": 2}


@pytest.fixture(scope="module")
def transpose():
    (kernel,) = load_suite(only=["transpose_2d"]).values()
    args = kernel.make_args(kernel.small[0], "cpu", torch.Generator().manual_seed(0))
    return kernel, args


def test_the_launcher_runs_the_compiled_kernel_on_the_same_grid(transpose):
    kernel, args = transpose
    with StubDriver() as stub:
        run = _worker._launcher(kernel, args, CONFIG)
        made = len(stub.launches)
        run()
        run()
    assert len(stub.launches) == made + 2
    grid = kernel.grid({**args, **CONFIG})
    assert {launch.grid for launch in stub.launches} == {(*grid, 1)}
    assert "fast" in run.__code__.co_freevars


def test_a_launcher_that_refuses_gives_way_to_the_plain_launch(transpose, monkeypatch):
    from triton.compiler import CompiledKernel

    def refuses(self, grid):
        raise TypeError("another version")

    kernel, args = transpose
    with StubDriver() as stub:
        monkeypatch.setattr(CompiledKernel, "__getitem__", refuses)
        run = _worker._launcher(kernel, args, CONFIG)
        made = len(stub.launches)
        run()
    assert len(stub.launches) == made + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.float8_e4m3fn])
def test_outputs_are_scribbled_over_before_they_are_compared(dtype):
    right = torch.ones(8).to(dtype)
    args = {"y": right.clone()}
    _worker._scribble(args, {"y": right})
    assert not (args["y"].float() == right.float()).any()


@pytest.fixture
def served(monkeypatch):
    """The device's process, here, on a driver that compiles and launches nothing."""
    monkeypatch.setattr(_worker, "_init", {})
    monkeypatch.setattr(_worker, "_device", None)
    settings = {"budget_s": 0.01, "max_samples": 20}
    _worker.setup(
        {
            "suite": str(find_suite("all")),
            "small": True,
            "seed": 0,
            "verify": False,
            "settings": settings,
        }
    )
    with StubDriver():
        yield _worker.serve


def test_a_request_is_compiled_launched_and_timed(served):
    compiled = {"status": Status.OK, "compile_s": 100.0}
    request = {"kernel": "transpose_2d", "config": CONFIG, "problems": [0], "compiled": compiled}
    answer = json.loads(json.dumps(served(request)))
    found = [Measurement.from_json(m) for m in answer["measurements"]]
    assert [m.status for m in found] == [Status.OK]
    assert all(m.value > 0 and m.samples and m.cost_s > m.compile_s == 100.0 for m in found)
    assert answer["busy_s"] > 0
    assert not answer["poisoned"]


def test_what_a_launch_without_effect_leaves_is_no_result(served):
    _worker._init["verify"] = True
    request = {"kernel": "transpose_2d", "config": CONFIG, "problems": [0], "compiled": None}
    (measurement,) = served(request)["measurements"]
    assert measurement["status"] == "wrong_result"


def test_problems_that_do_not_fit_together_are_not_all_made_anew(served, monkeypatch):
    kernel = _worker.load_suite(_worker._init["suite"])["transpose_2d"]
    device = _worker._Device(_worker._init)
    size = device.problem(kernel, 0).size
    made = []
    counted = dataclasses.replace(
        kernel,
        small=kernel.small[:1] * 6,
        make_args=lambda *given: made.append(1) or kernel.make_args(*given),
    )
    device.ready.clear()
    device.limit = 3 * size
    monkeypatch.setattr(_worker.gc, "collect", lambda: None)
    for _ in range(4):
        for index in range(6):
            device.problem(counted, index)
    assert len(made) <= 16  # of 24; 24 where the least recently used gives way
    assert sum(ready.size for ready in device.ready.values()) <= 4 * size
