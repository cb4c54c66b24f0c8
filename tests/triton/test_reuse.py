"""What a stored timing is a timing of, and which problems a choice is taken over for."""

from __future__ import annotations

import threading
import time

import pytest
import sqlalchemy as sa
import torch
import triton
import triton.language as tl
from triton_test_support import Oracle, Quick, body, configs

from autotune_rlm import Store, rlm_autotune
from autotune_rlm.integrations.triton import _select
from autotune_rlm.integrations.triton._live import LiveLaunch
from autotune_rlm.integrations.triton.stub import StubDriver
from autotune_rlm.integrations.triton.task import candidates_of
from autotune_rlm.measure.statistics.timing import Call, WallTimer
from autotune_rlm.measure.triton.compile import CompileResult
from autotune_rlm.measure.triton.job import Bench, Job
from autotune_rlm.types import Candidate, Measurement, Status

FEW = configs(blocks=(16, 64, 256), warps=(2,))


def tuned(store, *, key=("width",), function=None, **options):
    """A kernel of ``x, n, width`` of which only the width is in the key."""

    def kernel(x, n, width, BLOCK): ...

    options = {"configs": FEW, "surrogate": Oracle(), "store": store, **options}
    return rlm_autotune(key=list(key), **options)(Quick(function or kernel))


def launch(kernel, n, width=64, dtype=torch.float32, *, offset=0, grid=None):
    x = torch.zeros(n + offset, dtype=dtype, device="meta")[offset:]
    kernel[grid or (lambda meta: (triton.cdiv(n, meta["BLOCK"]),))](x, n, width)
    return kernel.best_config.kwargs["BLOCK"]


class TestAlike:
    def test_a_choice_is_taken_over_for_close_sizes(self, stub, store_path):
        launch(tuned(store_path), 1000)
        measured = len(stub.benchmarked)
        kernel = tuned(store_path)
        assert launch(kernel, 1200) == 256
        assert len(stub.benchmarked) == measured == len(FEW)
        assert len(kernel.configs_timings) == len(FEW)

    @pytest.mark.parametrize(
        "other",
        [
            {"n": 65_536},
            {"n": 1},
            {"n": 1000, "width": 65},
            {"n": 1000, "dtype": torch.float16},
            {"n": 2048, "offset": 1},
            {"n": 1000, "grid": (7,)},
            {"n": 1000, "grid": (1000, 1)},
        ],
    )
    def test_not_for_problems_that_are_not_alike(self, stub, store_path, other):
        launch(tuned(store_path), 1000)
        measured = len(stub.benchmarked)
        launch(tuned(store_path), **other)
        assert len(stub.benchmarked) == measured + len(FEW)

    def test_the_nearest_lends_its_choice_not_the_oldest(self, store_path):
        best = {500: 16, 1900: 64}
        for n, block in best.items():
            with StubDriver(time_ms=lambda one, b=block: 1.0 + (one.constants["BLOCK"] != b)):
                assert launch(tuned(store_path), n) == block
        with StubDriver(time_ms=lambda one: pytest.fail("measured")):
            assert launch(tuned(store_path), 520) == 16
            assert launch(tuned(store_path), 980) == 64
            assert launch(tuned(store_path), 3000) == 64

    def test_else_the_nearest_is_in_the_first_batch(self, stub, store_path):
        many = configs()
        launch(tuned(store_path, configs=many, mode="full"), 1000)
        stub.benchmarked.clear()
        launch(tuned(store_path, configs=many, budget=2, surrogate=Oracle(-1)), 10**6)
        assert 256 in {b.constants["BLOCK"] for b in stub.benchmarked}
        assert len(stub.benchmarked) == 2

    def test_within_a_process_the_key_counts_as_in_triton(self, stub, store_path):
        kernel = tuned(store_path)
        for n in (16, 65_536):
            launch(kernel, n)
        assert len(stub.benchmarked) == len(FEW)

    def test_predicted_choices_give_way_to_those_measured_for_alike_problems(
        self, stub, store_path
    ):
        launch(tuned(store_path), 1000)
        kernel = tuned(store_path, mode="predict", surrogate=Oracle(-1))
        assert launch(kernel, 1100) == 256
        assert launch(kernel, 10**6, width=128) == 16


class TestCost:
    @pytest.mark.parametrize("mode", ["tune", "predict"])
    def test_a_new_key_asks_the_store_as_often_however_many_are_known(self, stub, store_path, mode):
        """After triton issues 9821 and 1564: sizes change with every batch."""
        counts = []
        with Store(store_path) as store:
            kernel = tuned(store, key=["n"], mode=mode)
            asked = []
            engine = store._database._engine

            def ask(connection, cursor, statement, *_):
                if threading.current_thread() is threading.main_thread():  # not the refresher
                    asked.append(statement)

            sa.event.listen(engine, "before_cursor_execute", ask)
            for n in range(1000, 1400, 16):
                asked.clear()
                launch(kernel, n)
                counts.append(len([s for s in asked if s.startswith("SELECT")]))
        assert (
            0 < max(counts[9:]) <= counts[8]
        )  # the best of up to eight near problems is looked up

    def test_new_keys_leave_the_others_on_the_fast_path(self, stub, store_path, monkeypatch):
        kernel = tuned(store_path, key=["n"])
        for n in (1000, 2000):
            launch(kernel, n)
        monkeypatch.setattr(type(kernel), "_first_launch", lambda *args: pytest.fail("slow"))
        for n in (1000, 2000):
            launch(kernel, n)


class TestTakingUp:
    def test_a_look_asks_for_those_that_were_measured_alone(self, stub, store_path, monkeypatch):
        from autotune_rlm.integrations.triton import _autotuner, _refresh

        looks = _refresh.Refresher(first_s=1e6, longest_s=1e6)
        monkeypatch.setattr(_autotuner, "refresher", looks)
        asked = []
        best = _select.Selector.best_measured

        def counted(self, task, *args, **kwargs):
            asked.append(task.problem["n"])
            return best(self, task, *args, **kwargs)

        monkeypatch.setattr(_select.Selector, "best_measured", counted)
        kernel = tuned(store_path, key=["n"], mode="predict", surrogate=Oracle(-1))
        sizes = [2**i for i in range(4, 14)]
        for n in sizes:
            assert launch(kernel, n) == 16
        assert looks.look() == 0
        assert sorted(asked) == sizes
        asked.clear()
        with Store(store_path) as store:
            store.add_many(
                (kernel._selector.task({}), Candidate({"BLOCK": i}), Measurement(status="timeout"))
                for i in range(300)
            )
        assert looks.look() == 0
        assert asked == []
        with Store(store_path) as store:
            (task,) = (r.task for r in store.requests() if r.task.problem["n"] == 64)
            for config in (FEW[0], FEW[2]):
                (candidate,) = candidates_of([config])
                value = 1e-9 * config.kwargs["BLOCK"]
                store.add(task, candidate, Measurement(status="ok", value=1e-6 - value))
        assert looks.look() == 1
        assert asked == [64]
        assert launch(kernel, 64) == 256


class TestWhatIsTimed:
    def test_another_benchmark_is_another_measurement(self, stub, store_path):
        """After triton issue 9118."""

        def by(cost):
            current = {}

            def hook(given, reset_only=False):
                current["block"] = given["BLOCK"]

            def bench(call, quantiles):
                call()
                return [cost(current["block"])] * len(quantiles)

            kernel = tuned(store_path, pre_hook=hook, do_bench=bench)
            return launch(kernel, 1000)

        assert by(lambda block: float(block)) == 16
        assert by(lambda block: 1e3 / block) == 256
        assert by(lambda block: float(block)) == 16

    def test_another_hook_of_a_configuration_is_another_measurement(self, stub, store_path):
        def of(hook):
            return [triton.Config(c.kwargs, num_warps=2, pre_hook=hook) for c in FEW]

        launch(tuned(store_path, configs=of(lambda given: None)), 1000)
        launch(tuned(store_path, configs=of(lambda given: None)), 1000)
        assert len(stub.benchmarked) == len(FEW)
        launch(tuned(store_path, configs=of(lambda given: given.get("n"))), 1000)
        assert len(stub.benchmarked) == 2 * len(FEW)

    @pytest.mark.parametrize("runtime", [True, False])
    def test_equal_binaries_with_other_run_time_arguments_are_timed_apart(self, stub, runtime):
        if runtime:

            def kernel(x, n, CHUNK, B: tl.constexpr): ...

        else:

            def kernel(x, n, CHUNK: tl.constexpr, B: tl.constexpr): ...

        given = {"x": torch.zeros(8), "n": 8}
        live = LiveLaunch(
            Quick(kernel),
            (given["x"], 8),
            {"grid": (132,), "warmup": False},
            named=given,
            hooks=(lambda *args, **kwargs: None,) * 2,
        )
        bench = Bench(timer=WallTimer(), state=dict)
        compiled = CompileResult(status=Status.OK, facts={"binary_hash": "equal"})
        states = []
        for chunk in (32, 4096):
            job = live.job(triton.Config({"CHUNK": chunk, "B": 128}))
            slept = Job(Call(lambda c=chunk: time.sleep(c / 1e6)), grid=job.grid)
            states.append(bench.measure(lambda job=slept: job, compiled).state)
        assert ("same_binary" in states[1]) is not runtime

    def test_a_heuristic_that_sets_a_run_time_argument(self, stub):
        def kernel(x, n, SPLITS, B: tl.constexpr): ...

        around = triton.heuristics({"SPLITS": lambda given: given["n"] // given["B"]})
        live = LiveLaunch(
            around(Quick(kernel)),
            (torch.zeros(8), 8),
            {"grid": (132,), "warmup": False},
            named={"x": torch.zeros(8), "n": 8},
            hooks=(lambda *args, **kwargs: None,) * 2,
        )
        assert live.job(triton.Config({"B": 128})).grid is None


@pytest.mark.parametrize("word", ["none", "off", "False", "0"])
def test_a_word_for_no_store(stub, quick, monkeypatch, tmp_path, word):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOTUNE_RLM_STORE", word)
    x = torch.zeros(8)
    for _ in range(2):
        kernel = rlm_autotune(configs=FEW, key=["n"])(Quick(body))
        kernel[(1,)](x, x, 8)
    assert len(stub.benchmarked) == 2 * len(FEW)
    with Store() as store:
        assert store.tasks() == []
        assert store.info().name == ":memory:"
    assert list(tmp_path.iterdir()) == []
