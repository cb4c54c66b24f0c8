"""``torch.compile`` reads the autotuner in place of launching it."""

from __future__ import annotations

import pytest
import torch
import torch.utils._triton
import triton
from triton_test_kernels import scale
from triton_test_support import Oracle, configs

from autotune_rlm import rlm_autotune

FEW = configs(blocks=(64, 256), warps=(1, 2))


@pytest.fixture
def compiled(stub, monkeypatch):
    """Compiles a launch of ``scale`` under an autotuner; gives what the graph holds."""
    from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

    monkeypatch.setattr(torch.utils._triton, "has_triton", lambda: True)

    def compile_and_run(kernel):
        torch._dynamo.reset()
        kernel_side_table.reset_table()
        graphs = []

        def launch(x):
            y = torch.zeros_like(x)
            kernel[lambda meta: (triton.cdiv(x.numel(), meta["BLOCK"]),)](x, y, x.numel())
            return y + 1

        def backend(graph, inputs):
            graphs.append(graph)
            return graph

        torch.compile(launch, backend=backend, fullgraph=True)(torch.zeros(64))
        return graphs, kernel_side_table.id_to_kernel[max(kernel_side_table.id_to_kernel)]

    yield compile_and_run
    torch._dynamo.reset()


def test_a_short_list_stays_as_it_is(compiled):
    kernel = rlm_autotune(configs=FEW, key=["n"], store=False)(scale)
    graphs, kept = compiled(kernel)
    assert len(graphs) == 1
    assert kept is kernel
    assert kernel.best_config.kwargs["BLOCK"] == 256


def test_a_long_list_becomes_the_models_choice(compiled):
    kernel = rlm_autotune(configs=FEW, key=["n"], budget=2, store=False, surrogate=Oracle())(scale)
    graphs, kept = compiled(kernel)
    assert len(graphs) == 1
    chosen = [(c.kwargs["BLOCK"], c.num_warps) for c in kept.configs]
    assert chosen == [(256, 2), (64, 1)]
