"""What the device's process does for a recorder, as far as it goes without a device."""

import pytest
import torch

pytest.importorskip("triton")

from autotune_rlm.integrations.triton.stub import StubDriver
from autotune_rlm.measure.record import _worker
from autotune_rlm.measure.record.suite import load_suite

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
