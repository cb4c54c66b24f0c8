"""What the decorator's modes do: predict and full, beside tune."""

from __future__ import annotations

import time

import pytest
import torch
import triton
from triton_test_kernels import scale
from triton_test_support import Oracle, X, configs, known, tuned

from autotune_rlm import Store, rlm_autotune
from autotune_rlm.integrations.triton import _autotuner

GRID = (1,)


class TestModes:
    def test_predict_measures_nothing_and_notes_the_problem(self, stub, quick, store_path):
        kernel = tuned(quick, store_path, mode="predict")
        kernel[GRID](X, X, 64)
        assert stub.benchmarked == []
        assert kernel.best_config.kwargs["BLOCK"] == 256
        with Store(store_path) as store:
            (request,) = store.requests()
        assert request.task.kernel == "body"
        assert len(request.candidates) == len(configs())

    def test_predict_notes_how_to_run_and_takes_up_what_is_measured_later(
        self, stub, store_path, monkeypatch
    ):
        from autotune_rlm.integrations.triton._refresh import Refresher

        own = Refresher(first_s=0.01, longest_s=0.05)
        monkeypatch.setattr(_autotuner, "refresher", own)
        few = configs(blocks=(64, 128, 256), warps=(1, 2, 4))
        kernel = tuned(scale, store_path, configs=few, mode="predict", surrogate=Oracle(-1))
        kernel[lambda meta: (triton.cdiv(64, meta["BLOCK"]),)](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 64
        with Store(store_path) as store:
            (request,) = store.requests()
        noted = request.workload["arguments"]
        assert noted["function"] == "scale"
        assert noted["args"]["x"]["shape"] == [64]
        assert own.look() == 0
        tuned(scale, store_path, configs=few)[GRID](X, X, 64)
        deadline = time.monotonic() + 120
        while kernel.best_config.kwargs["BLOCK"] != 256:
            assert time.monotonic() < deadline
            time.sleep(0.02)
            kernel[GRID](X, X, 64)

    def test_a_prediction_is_watched_once_a_launch_could_find_its_replacement(
        self, stub, store_path, monkeypatch
    ):
        class Quick:
            """Replaces the choice at once, before the launch goes on."""

            def add(self, autotuner, key, best):
                assert autotuner.cache[key].kwargs["BLOCK"] == 64
                autotuner.cache[key] = few[-1]

        monkeypatch.setattr(_autotuner, "refresher", Quick())
        few = configs(blocks=(64, 256), warps=(1,))
        kernel = tuned(scale, store_path, configs=few, mode="predict", surrogate=Oracle(-1))
        kernel[GRID](X, X, 64)
        kernel[GRID](X, X, 64)
        assert kernel.best_config is few[-1]

    def test_predict_takes_what_was_measured_before(self, stub, quick, store_path):
        tuned(quick, store_path, budget=8)[GRID](X, X, 64)
        before = len(stub.benchmarked)
        kernel = tuned(quick, store_path, mode="predict", surrogate=Oracle(-1))
        kernel[GRID](X, X, 64)
        assert len(stub.benchmarked) == before
        assert kernel.best_config.kwargs["BLOCK"] == 256

    def test_inside_graph_capture_nothing_is_tuned(self, stub, quick, store_path, monkeypatch):
        kernel = tuned(quick, store_path)
        monkeypatch.setattr(_autotuner, "is_capturing", lambda: True)
        with pytest.warns(RuntimeWarning, match="inside CUDA graph capture") as warned:
            [kernel[GRID](X, X, n) for n in (64, 65, 64)]
        assert len(warned) == 1
        assert stub.benchmarked == []
        assert kernel.best_config.kwargs["BLOCK"] == 256
        assert kernel.cache == {}
        monkeypatch.setattr(_autotuner, "is_capturing", lambda: False)
        kernel[GRID](X, X, 64)
        assert len(kernel.cache) == 1
        assert stub.benchmarked

    @pytest.mark.parametrize("mode", ["tune", "predict", "full"])
    def test_nothing_touches_the_device_inside_a_capture(
        self, stub, quick, store_path, oracle, monkeypatch, mode
    ):
        lengths = torch.ones(32, dtype=torch.int32)  # a note of the launch would copy such values
        kernel = tuned(quick, store_path, mode=mode, surrogate=oracle, reset_to_zero=["x"])
        monkeypatch.setattr(_autotuner, "is_capturing", lambda: True)
        with monkeypatch.context() as patch:
            for name in ("tolist", "item", "cpu", "clone", "copy_", "zero_", "to"):
                patch.setattr(torch.Tensor, name, lambda *args, **kwargs: pytest.fail("touched"))
            with pytest.warns(RuntimeWarning, match="capture"):
                kernel[GRID](X, lengths, 64)
            for _ in range(2):
                kernel[GRID](X, lengths, 64)
        assert len(stub.launches) == 3
        assert oracle.asked == 1
        with Store(store_path) as store:
            assert store.requests() == []
        monkeypatch.setattr(_autotuner, "is_capturing", lambda: False)
        kernel[GRID](X, lengths, 64)
        with Store(store_path) as store:
            assert len(store.requests()) == (mode == "predict")
        assert bool(stub.benchmarked) == (mode != "predict")

    def test_capture_uses_what_is_stored(self, stub, quick, store_path, monkeypatch):
        tuned(quick, store_path)[GRID](X, X, 64)
        kernel = tuned(quick, store_path, surrogate=Oracle(-1))
        monkeypatch.setattr(_autotuner, "is_capturing", lambda: True)
        with pytest.warns(RuntimeWarning, match="capture"):
            kernel[GRID](X, X, 64)
        assert kernel.best_config.kwargs["BLOCK"] == 256

    @pytest.mark.parametrize(
        ("name", "text", "measured"),
        [("BUDGET", "3", (2, 3)), ("BUDGET", "1.0", (4, 18)), ("MODE", "predict", (0, 0)),
         ("MODE", "FULL", (18, 18))],
    )  # fmt: skip
    def test_the_environment_overrides_arguments(
        self, stub, quick, store_path, monkeypatch, name, text, measured
    ):
        monkeypatch.setenv(f"AUTOTUNE_RLM_{name}", text)
        tuned(quick, store_path, budget=7, surrogate=Oracle(-1))[GRID](X, X, 64)
        assert measured[0] <= len(stub.benchmarked) <= measured[1]

    def test_the_environment_names_the_store(self, stub, quick, store_path, monkeypatch):
        monkeypatch.setenv("AUTOTUNE_RLM_STORE", store_path)
        kernel = rlm_autotune(configs=configs(), key=["n"], surrogate=Oracle())(quick)
        kernel[GRID](X, X, 64)
        assert known(store_path)

    @pytest.mark.parametrize("name", ["ISOLATE", "QUIET"])
    def test_a_switch_of_the_environment_is_on_or_off(self, quick, store_path, monkeypatch, name):
        monkeypatch.setenv(f"AUTOTUNE_RLM_{name}", "maybe")
        with pytest.raises(ValueError, match=f"AUTOTUNE_RLM_{name}='maybe': must be 1 or 0"):
            tuned(quick, store_path)[GRID](X, X, 64)

    def test_disable_leaves_everything_to_triton(self, stub, quick, store_path, monkeypatch):
        kernel = tuned(quick, store_path, budget=2)
        monkeypatch.setenv("AUTOTUNE_RLM_DISABLE", "1")
        kernel[GRID](X, X, 64)
        kernel[GRID](X, X, 64)
        assert len(stub.benchmarked) == len(configs())
        assert kernel.best_config.kwargs["BLOCK"] == 256
        assert list(kernel.cache.values()) == [kernel.best_config]  # as under Triton

    @pytest.mark.parametrize(
        ("name", "text", "says"),
        [
            ("BUDGET", "many", "AUTOTUNE_RLM_BUDGET='many'"),
            ("BUDGET", "0", "at least 1"),
            ("BUDGET_S", "-1", "above 0"),
            ("MODE", "fast", "tune, predict, full"),
        ],
    )
    def test_a_wrong_variable_is_named(self, stub, quick, monkeypatch, name, text, says):
        monkeypatch.setenv(f"AUTOTUNE_RLM_{name}", text)
        with pytest.raises(ValueError, match=says):
            tuned(quick, False)[GRID](X, X, 64)

    @pytest.mark.parametrize(
        "options",
        [{"budget": 0}, {"budget": 1.5}, {"budget": "3"}, {"budget_s": 0}, {"mode": "quick"}],
    )
    def test_wrong_arguments_are_told_at_decoration(self, options):
        with pytest.raises(ValueError, match=next(iter(options))):
            rlm_autotune(configs=configs(), key=["n"], **options)
