"""``torch.compile`` reads the autotuner in place of launching it."""

from __future__ import annotations

import pytest
import torch
import torch.utils._triton
import triton
from triton_test_kernels import scale
from triton_test_support import Oracle, Quick, configs

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


MANY = configs(blocks=(32, 64, 128, 256, 512), warps=(1, 2, 4, 8))


@pytest.fixture
def run(stub, monkeypatch):
    """Runs launches of a kernel under torch.compile for several sizes; gives the kept kernels."""
    from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

    monkeypatch.setattr(torch.utils._triton, "has_triton", lambda *args: True)

    def run(kernel, sizes=(64, 96, 128, 4096), *more, fullgraph=True, dynamic=None, **named):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        kernel_side_table.reset_table()

        def launch(x):
            y = torch.zeros_like(x)
            n = x.numel()
            kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x * 2, y, n, *more, **named)
            return y + 1

        function = torch.compile(launch, backend="aot_eager", fullgraph=fullgraph, dynamic=dynamic)
        for n in sizes:
            function(torch.zeros(n))
        assert not torch._dynamo.utils.counters["graph_break"]
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2
        return kernel_side_table.id_to_kernel[max(kernel_side_table.id_to_kernel)]

    yield run
    torch._dynamo.reset()


@pytest.mark.parametrize("dynamic", [None, True, False])
@pytest.mark.parametrize("fullgraph", [False, True])
def test_sizes_that_change(run, fullgraph, dynamic):
    kernel = rlm_autotune(configs=MANY, key=["n"], store=False, surrogate=Oracle())(scale)
    sizes = (64,) if dynamic is False else (64, 96, 128, 4096)
    kept = run(kernel, sizes, fullgraph=fullgraph, dynamic=dynamic)
    assert len(kept.configs) == 8


def test_the_model_is_asked_about_the_size_at_hand(run):
    asked = []

    class Model(Oracle):
        def predict(self, task, candidates, *, observed=()):
            asked.append((task.problem["n"], task.problem["x"].get("shape")))
            return super().predict(task, candidates, observed=observed)

    kernel = rlm_autotune(configs=MANY, key=["n"], store=False, surrogate=Model())(scale)
    run(kernel, sizes=(64, 96))
    assert asked[0] == (64, [64])
    assert (96, [96]) in asked


def test_kernels_of_libraries(run, oracle):
    import autotune_rlm

    with autotune_rlm.enable(store=False, surrogate=oracle):
        kernel = triton.autotune(configs=MANY, key=["n"])(scale)
        assert len(run(kernel).configs) == 8


def test_predicted_choices_are_not_timed_by_others(run, oracle):
    kernel = rlm_autotune(configs=MANY, key=["n"], mode="predict", store=False, surrogate=oracle)(
        scale
    )
    assert [c.kwargs["BLOCK"] for c in run(kernel).configs] == [256]


def test_the_users_perf_model_and_top_k_win(run, oracle):
    prune = {"perf_model": lambda BLOCK, num_warps, **_: BLOCK + num_warps, "top_k": 3}
    kernel = rlm_autotune(
        configs=MANY, key=["n"], prune_configs_by=prune, store=False, surrogate=oracle
    )(scale)
    kept = run(kernel)
    assert [(c.kwargs["BLOCK"], c.num_warps) for c in kept.configs] == [(32, 1), (32, 2), (32, 4)]
    assert kernel.perf_model is prune["perf_model"]
    assert (kernel.configs_top_k, kernel.early_config_prune) == (3, None)
    assert oracle.asked == 0


def test_the_users_early_pruning_comes_before_the_model(run, oracle):
    def prune(configs, named_args, **kwargs):
        return [c for c in configs if c.kwargs["BLOCK"] <= 128]

    kernel = rlm_autotune(
        configs=MANY,
        key=["n"],
        prune_configs_by={"early_config_prune": prune},
        store=False,
        surrogate=oracle,
        budget=3,
    )(scale)
    kept = run(kernel)
    assert len(kept.configs) == 3
    assert {c.kwargs["BLOCK"] for c in kept.configs} <= {32, 64, 128}


def test_disabled_all_is_tritons(run, oracle, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_RLM_DISABLE", "1")
    kernel = rlm_autotune(configs=MANY, key=["n"], store=False, surrogate=oracle)(scale)
    assert (kernel.early_config_prune, kernel.perf_model, kernel.configs_top_k) == (None, None, 1.0)
    assert len(run(kernel).configs) == len(MANY)
    assert oracle.asked == 0


def test_without_dynamo(stub, oracle):
    """``make_fx`` and ``torch.export`` run the pruning with tensors that have no data."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    kernel = rlm_autotune(configs=MANY, key=["n"], store=False, surrogate=oracle)(scale)
    shapes = ShapeEnv()
    with FakeTensorMode(shape_env=shapes) as mode:
        x = mode.from_tensor(torch.zeros(96))
    kept = kernel.early_config_prune(MANY, {"x": x, "y": x, "n": x.numel(), "scale": 1.5})
    assert len(kept) == 8
    assert not shapes.guards


def test_a_reader_of_perf_model_pays_for_one_ranking(stub):
    class Model(Oracle):
        candidates = 0

        def predict(self, task, candidates, *, observed=()):
            self.candidates += len(candidates)
            return super().predict(task, candidates, observed=observed)

    model = Model()
    listed = [triton.Config({"BLOCK": b, "EXTRA": e}) for b in (32, 64) for e in range(1000)]

    def body(x, n, BLOCK, EXTRA): ...

    kernel = rlm_autotune(configs=listed, key=["n"], store=False, surrogate=model)(Quick(body))
    x = torch.zeros(64)
    for n in (64, 65):
        times = [kernel.perf_model(x=x, n=n, **c.all_kwargs()) for c in listed]
        assert times[0] > times[-1] > 0
    assert (model.asked, model.candidates) == (2, 2 * len(listed))
    other = triton.Config({"BLOCK": 256, "EXTRA": 0})
    assert kernel.perf_model(x=x, n=64, **other.all_kwargs()) < times[-1]
    assert kernel.perf_model is kernel.perf_model
