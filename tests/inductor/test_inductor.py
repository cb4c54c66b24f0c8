"""TorchInductor's choices: ranked before they are generated; what was timed is learned from."""

from __future__ import annotations

import contextlib
import logging

import numpy as np
import pytest
import sympy
import torch
from prediction_support import around
from torch._inductor import config, ir
from torch._inductor.choices import InductorChoices
from torch._inductor.graph import GraphLowering
from torch._inductor.kernel.mm import aten_mm, mm_template
from torch._inductor.kernel_inputs import MMKernelInputs
from torch._inductor.select_algorithm import get_algorithm_selector_cache
from torch._inductor.virtualized import V

from autotune_rlm import Candidate, Measurement, Status, Store
from autotune_rlm.devices import lookup
from autotune_rlm.integrations import inductor

GPU = torch.device("cuda", 0)  # named only: templates are listed and ranked without a device


class LargeTilesFirst:
    """A surrogate whose order is known."""

    def __init__(self):
        self.tasks = []

    def predict(self, task, candidates, *, observed=()):
        self.tasks.append(task)
        area = np.array([c.config["BLOCK_M"] * c.config["BLOCK_N"] for c in candidates], float)
        return around(task, 1 / area, factor=2.0)


class Broken:
    def predict(self, task, candidates, *, observed=()):
        raise RuntimeError("no model today")


class Listed(InductorChoices):
    """Keeps what Inductor lists, and generates nothing."""

    def _finalize_template_configs(self, *arguments, **options):
        self.made = super()._finalize_template_configs(*arguments, **options)
        return []


@contextlib.contextmanager
def graph():
    module = torch.fx.symbolic_trace(torch.nn.Identity())
    with V.set_graph_handler(GraphLowering(module)), config.patch(max_autotune=True):
        yield


def matrix(name, rows, columns, dtype=torch.float16):
    sizes, strides = [[sympy.Integer(n) for n in pair] for pair in ((rows, columns), (columns, 1))]
    return ir.InputBuffer(name=name, layout=ir.FixedLayout(GPU, dtype, sizes, strides))


def product(m=4096, k=1024, n=8192):
    return MMKernelInputs([matrix("a", m, k), matrix("b", k, n)], out_dtype=torch.float16)


def listed(inputs, space="DEFAULT"):
    with config.patch(max_autotune_gemm_search_space=space):
        choices = Listed()
        choices.get_template_configs(inputs, [aten_mm, mm_template], "mm")
    return choices.made


def session(surrogate, store=None, budget=5):
    return inductor.Session(
        budget=budget,
        surrogate=lambda: surrogate,
        store=store,
        device=lambda _: lookup("NVIDIA H100"),
    )


def blocks(templates):
    found = [t.params.to_kwargs() for t in templates]
    return [(p["BLOCK_M"], p["BLOCK_N"]) for p in found if "BLOCK_M" in p]


class TestTemplates:
    @pytest.mark.parametrize("space", ["DEFAULT", "EXHAUSTIVE"])
    def test_the_best_few_and_every_library_kernel_are_kept(self, space):
        with graph():
            made = listed(product(), space)
            tuned = session(LargeTilesFirst())
            kept = tuned.templates(made, product())
        assert len(made) > 20
        assert len(kept) == 6
        assert [t for t in made if "num_warps" not in t.params.to_kwargs()] == kept[:1]
        best = sorted(blocks(made), key=lambda b: -b[0] * b[1])[:5]
        assert sorted(m * n for m, n in blocks(kept)) == sorted(m * n for m, n in best)
        assert tuned.summary.listed == len(made)
        assert tuned.summary.kept == 6

    def test_the_problem_is_told_in_the_words_of_inductors_recordings(self):
        model = LargeTilesFirst()
        with graph():
            session(model).templates(listed(product()), product())
        (task,) = model.tasks
        assert task.kernel == "inductor_mm"
        assert task.device.name == "NVIDIA H100"
        assert {k: task.problem[k] for k in ("m", "k", "n")} == {"m": 4096, "k": 1024, "n": 8192}
        assert task.problem["mat1_dtype"] == task.problem["mat2_dtype"] == "float16"
        assert task.problem["mat1_stride_0"] == 1024

    def test_a_list_within_the_budget_is_left_as_it_is(self):
        with graph():
            made = listed(product())
            tuned = session(LargeTilesFirst(), budget=100)
            assert tuned.templates(made, product()) == made
        assert tuned.summary.operations == 0

    def test_what_was_best_is_kept_whatever_the_model_says(self):
        store, model = Store(":memory:"), LargeTilesFirst()
        with graph():
            made = listed(product())
            session(model, store).templates(made, product())
            small = min(blocks(made), key=lambda b: b[0] * b[1])
            worst = next(t for t in made if blocks([t]) == [small])
            tuned = {k: v for k, v in worst.params.to_kwargs().items() if k in _TUNED}
            store.add(model.tasks[0], Candidate(tuned), Measurement(status=Status.OK, value=0.1))
            assert worst in session(model, store).templates(made, product())
            # also the best of the nearest known problem
            other = product(m=4100)
            assert small in blocks(session(model, store).templates(listed(other), other))

    def test_a_fault_of_ours_leaves_inductor_its_own_list(self, caplog):
        with graph(), caplog.at_level(logging.WARNING, "autotune_rlm"):
            made = listed(product())
            assert session(Broken()).templates(made, product()) == made
        assert "no model today" in caplog.text


_TUNED = {"BLOCK_M", "BLOCK_N", "BLOCK_K", "num_warps", "num_stages"}


class Choice(ir.ChoiceCaller):
    """A generated choice, as Inductor makes them for operations that list no templates beforehand."""

    def __init__(self, name, nodes, description="", info=None):
        super().__init__(name, nodes, nodes[0].layout, description)
        self._info = info or {}

    def info_dict(self):
        return self._info


def attention(rows, beside=()):
    """The choices of a flex attention: templates alone."""
    nodes = [matrix(name, rows, 64) for name in "qkv"] + list(beside)
    return [
        Choice(
            f"triton_flex_attention_{i}",
            nodes,
            f"BLOCK_M={m}, BLOCK_N={n}, HAS_FULL_BLOCKS=True, num_warps=4",
            {"num_warps": 4, "num_stages": 2, "backend": "Triton"},
        )
        for i, (m, n) in enumerate((m, n) for m in (16, 32, 64, 128) for n in (16, 32, 64))
    ]


def time_of(choice):
    """The smaller the tile, the faster: the opposite of what the model says."""
    m, n = (int(text.split("=")[1]) for text in choice.description.split(", ")[:2])
    return m * n / 1000


class TestGenerated:
    def test_convolutions_are_ranked_by_what_their_description_says(self):
        nodes = [matrix("x", 64, 64), matrix("w", 32, 32)]
        made = [Choice("convolution", nodes)] + [
            Choice(
                f"triton_convolution2d_{i}",
                nodes,
                f"ALLOW_TF32=True, BLOCK_M={16 << i}, BLOCK_N=64, STRIDE_H='1', num_warps=4",
                {"num_warps": 4, "num_stages": 2, "backend": "Triton"},
            )
            for i in range(4)
        ]
        model = LargeTilesFirst()
        with graph():
            kept = session(model, budget=2).choices(made)
        assert [c.name for c in kept] == [
            "convolution",
            "triton_convolution2d_2",
            "triton_convolution2d_3",
        ]
        assert model.tasks[0].kernel == "inductor_convolution2d"

    def test_an_implementation_that_always_lost_nearby_is_left_out(self):
        store = Store(":memory:")
        tuned = session(LargeTilesFirst(), store)
        with graph():
            for rows in (64, 66, 68):
                nodes = [matrix("x", rows, 32), matrix("w", 32, 32)]
                slow, fast = Choice("cpp_gemm_3", nodes), Choice("mm", nodes)
                assert tuned.choices([slow, fast]) == [slow, fast]
                tuned.timed({slow: 2.0, fast: 1.0}, "mm", nodes)
            nodes = [matrix("x", 65, 32), matrix("w", 32, 32)]
            slow, fast = Choice("cpp_gemm_9", nodes), Choice("mm", nodes)
            assert tuned.choices([slow, fast]) == [fast]
        assert tuned.summary.measured == 6

    def test_what_was_timed_makes_later_choices_better(self, tmp_path):
        """Another session on the same store keeps what an earlier one found, here and nearby."""
        found = {}
        for name in ("alone", "first", "again", "nearby"):
            rows = 2080 if name in ("nearby", "alone") else 2048
            store = Store(tmp_path / ("other.sqlite" if name == "alone" else "store.sqlite"))
            with graph(), store:
                tuned = session(LargeTilesFirst(), store, budget=3)
                made = attention(rows)
                kept = tuned.choices(made)
                tuned.timed({c: time_of(c) for c in kept}, "flex_attention", made[0].input_nodes)
                if name == "first":  # also what the model would not have tried
                    best = min(made, key=time_of)
                    tuned.timed({best: time_of(best)}, "flex_attention", best.input_nodes)
            found[name] = min(map(time_of, kept))
        assert found["again"] == min(map(time_of, attention(2048))) < found["first"]
        assert found["nearby"] < found["alone"]

    def test_what_was_timed_is_what_weights_are_fine_tuned_on(self):
        with Store(":memory:") as store, graph():
            tuned = session(LargeTilesFirst(), store)
            for rows in (1024, 2048):
                made = attention(rows)
                times = {c: time_of(c) for c in made}
                tuned.timed(times, "flex_attention", made[0].input_nodes)
            first, second = store.landscapes()
        assert {first.task.kernel, second.task.kernel} == {"inductor_flex_attention"}
        assert first.task.problem != second.task.problem
        assert sorted(m.value for m in first.measurements) == sorted(times.values())

    def test_attention_over_matrices_is_no_product(self):
        with graph():
            made = attention(64, [matrix("bias", 64, 32), matrix("more", 32, 64)])
            session(model := LargeTilesFirst(), budget=2).choices(made)
        assert model.tasks[0].kernel == "inductor_flex_attention"
        assert "mat1_dtype" not in model.tasks[0].problem

    def test_what_failed_is_not_kept_as_a_time(self):
        store = Store(":memory:")
        nodes = [matrix("x", 64, 32), matrix("w", 32, 32)]
        with graph():
            session(LargeTilesFirst(), store).timed({Choice("mm", nodes): float("inf")}, "mm")
        assert not store.tasks()


class TestEnabling:
    def test_everything_is_given_back(self):
        cache = get_algorithm_selector_cache()
        before = list(cache.preprocessing_fns), list(cache.feedback_saver_fns)
        with inductor.enabled(store=False) as active:
            assert active.choices in cache.preprocessing_fns
            assert config.inductor_choices_class().uuid() == V.choices.uuid()
            with pytest.raises(RuntimeError, match="already"):
                inductor.enable()
        assert (cache.preprocessing_fns, cache.feedback_saver_fns) == before
        assert config.inductor_choices_class is None
        assert type(V.choices) is InductorChoices
        inductor.disable()

    def test_graphs_of_another_setting_have_another_cache_key(self):
        keys = set()
        for budget in (3, 5):
            with inductor.enabled(budget=budget, store=False):
                keys.add(V.choices.uuid())
        assert len(keys) == 2

    def test_a_users_own_choices_stay(self):
        class Own(InductorChoices):
            def uuid(self):
                return "own"

            def override_best_choice(self, best, timings):
                return "mine"

        with config.patch(inductor_choices_class=Own), inductor.enabled(store=False):
            assert isinstance(V.choices, Own)
            assert V.choices.override_best_choice(None, {}) == "mine"
            assert V.choices.uuid().endswith("own")

    @pytest.mark.parametrize("budget", [0, -1, 2.5, True, "5"])
    def test_a_wrong_budget_is_refused_at_once(self, budget):
        with pytest.raises((TypeError, ValueError), match="budget"):
            inductor.enable(budget=budget)


def test_max_autotune_on_this_cpu(tmp_path, monkeypatch):
    """The real path: a product compiled by the C++ template, timed beside the library, stored."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(config, "max_autotune_gemm_backends", "ATEN,CPP")
    model = torch.nn.Linear(48, 80).eval()
    x = torch.randn(16, 48)
    with Store(":memory:") as store:
        with torch.no_grad(), config.patch(freezing=True), inductor.enabled(store=store) as active:
            result = torch.compile(model, mode="max-autotune", dynamic=False)(x)
        known = [o for task in store.tasks() for o in store.observations(task)]
    assert torch.allclose(result, model(x), atol=1e-5)
    assert active.summary.measured == len(known) == 2
    assert all(o.measurement.value > 0 for o in known)
    assert {o.candidate.config["implementation"].startswith("cpp_") for o in known} == {True, False}
