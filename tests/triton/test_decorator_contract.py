"""What Triton promises of its autotuner holds for ours: most tests run on both."""

from __future__ import annotations

import copy
import functools
import itertools
import pickle

import pytest
import torch
import triton
from triton_test_support import Quick, body, configs, time_of

from autotune_rlm import rlm_autotune

GRID = (1,)


@pytest.fixture(params=["triton", "rlm"])
def autotune(request):
    """``triton.autotune`` and ``rlm_autotune`` without a store."""
    if request.param == "triton":
        return triton.autotune
    return functools.partial(rlm_autotune, store=False)


@pytest.fixture
def x():
    return torch.zeros(8)


FEW = configs(blocks=(128, 256), warps=(2, 4))


def test_the_fastest_is_launched_and_told(stub, quick, autotune, x):
    tuned = autotune(configs=FEW, key=["n"])(quick)
    assert tuned[GRID](x, x, 8) == "launched"
    assert (tuned.best_config.kwargs["BLOCK"], tuned.best_config.num_warps) == (256, 2)
    assert stub.launches[-1].constants["BLOCK"] == 256
    assert set(tuned.configs_timings) == set(FEW)
    assert tuned.configs_timings[tuned.best_config][0] == 1.0
    assert tuned.bench_time > 0
    key = (8, "torch.float32", "torch.float32")
    assert tuned.cache == {key: tuned.best_config}


def test_a_known_key_is_launched_once_and_a_new_one_tuned(stub, quick, autotune, x):
    tuned = autotune(configs=FEW, key=["n"])(quick)
    for n, launches in ((8, 5), (8, 1), (9, 5), (9, 1), (8, 1)):
        before = len(stub.launches)
        tuned[GRID](x, x, n)
        assert len(stub.launches) - before == launches
    tuned[GRID](x, x.double(), 8)
    assert len(tuned.cache) == 3


def test_arguments_by_name_make_the_same_key(stub, quick, autotune, x):
    tuned = autotune(configs=FEW, key=["n", "x"])(quick)
    tuned[GRID](x=x, y=x, n=8)
    key = (8, x, "torch.float32", "torch.float32")
    assert list(tuned.cache) == [key]
    before = len(stub.launches)
    tuned[GRID](n=8, y=x, x=x)
    tuned[GRID](x, y=x, n=8)
    assert len(stub.launches) == before + 2


@pytest.mark.parametrize("change", ["clear", "replace", "set", "delete"])
def test_changing_the_cache_changes_the_next_launch(stub, quick, autotune, x, change):
    tuned = autotune(configs=FEW, key=["n"])(quick)
    tuned[GRID](x, x, 8)
    tuned[GRID](x, x, 8)
    (key,) = tuned.cache
    before = len(stub.launches)
    if change == "clear":
        tuned.cache.clear()
    elif change == "replace":
        tuned.cache = {}
    elif change == "delete":
        del tuned.cache[key]
    else:
        tuned.cache[key] = FEW[0]
    tuned[GRID](x, x, 8)
    if change == "set":
        assert tuned.best_config is FEW[0]
        assert stub.launches[-1].constants["BLOCK"] == 128
    else:
        assert len(stub.launches) - before == 5


def test_a_copy_has_configurations_and_choices_of_its_own(stub, quick, autotune, x):
    tuned = autotune(configs=FEW[:2], key=["n"])(quick)
    other = copy.copy(tuned)
    other.configs, other.cache = FEW[2:4], {}
    for _ in range(2):
        tuned[GRID](x, x, 8)
        other[GRID](x, x, 8)
        assert tuned.best_config in FEW[:2]
        assert other.best_config in FEW[2:4]


def test_the_cache_can_be_pickled(stub, quick, autotune, x):
    tuned = autotune(configs=FEW[:2], key=["n"])(quick)
    tuned[GRID](x, x, 8)
    again = pickle.loads(pickle.dumps(tuned.cache))
    assert {key: str(config) for key, config in again.items()} == {
        key: str(config) for key, config in tuned.cache.items()
    }


def test_one_configuration_is_not_benchmarked(stub, quick, autotune, x):
    tuned = autotune(configs=FEW[:1], key=["n"])(quick)
    tuned[GRID](x, x, 8)
    assert (len(stub.launches), len(stub.benchmarked)) == (1, 0)
    assert tuned.best_config is FEW[0]


def test_no_configuration_means_the_defaults(stub, autotune, x):
    def plain(x, n): ...

    tuned = autotune(configs=[], key=["n"])(Quick(plain))
    tuned[GRID](x, 8)
    assert stub.launches[-1].options == {"num_warps": 4, "num_stages": 3, "num_ctas": 1}


@pytest.mark.parametrize("option", ["reset_to_zero", "restore_value"])
def test_before_every_run_and_the_launch_that_counts_a_tensor_is_as_it_was(
    stub, autotune, x, option
):
    seen = []

    def fails(given):
        seen.append(given["x"].sum().item())
        given["x"] += 1

    tuned = autotune(configs=FEW, key=["n"], **{option: ["x"]})(Quick(body, fails))
    tuned[GRID](x, x.clone(), 8)
    assert len(seen) == 5
    assert set(seen) == {0.0}
    assert x.sum() == 8


def test_hooks_are_called_around_every_run_with_all_arguments(stub, quick, autotune, x):
    calls = []

    def pre(kwargs, reset_only=False):
        calls.append(("pre", kwargs["n"], kwargs["BLOCK"], reset_only))

    def post(kwargs, exception):
        calls.append(("post", kwargs["n"], kwargs["BLOCK"], exception))

    tuned = autotune(configs=FEW, key=["n"], pre_hook=pre, post_hook=post)(quick)
    tuned[GRID](x, x, n=8)
    assert [c[0] for c in calls] == ["pre", "post"] * 4 + ["pre"]
    assert calls[-1] == ("pre", 8, 256, True)
    assert {c[2] for c in calls} == {128, 256}
    tuned[GRID](x, x, n=8)
    assert len(calls) == 9


def test_the_post_hook_is_told_of_a_failure(stub, autotune, x):
    told = []
    error = triton.OutOfResources(1, 0, "shared memory")
    kernel = Quick(body, lambda given: error if given["BLOCK"] == 128 else None)
    tuned = autotune(
        configs=FEW, key=["n"], post_hook=lambda kwargs, exception: told.append(exception)
    )(kernel)
    tuned[GRID](x, x, 8)
    assert told.count(error) == 2
    assert tuned.best_config.kwargs["BLOCK"] == 256
    assert tuned.configs_timings[FEW[0]] == [float("inf")] * 3


def test_a_configurations_own_pre_hook_runs_before_every_launch(stub, quick, autotune, x):
    calls = []
    hooked = triton.Config(
        {"BLOCK": 256}, num_warps=2, pre_hook=lambda given: calls.append(given["n"])
    )
    tuned = autotune(configs=[FEW[0], hooked], key=["n"])(quick)
    for _ in range(3):
        tuned[GRID](x, x, 8)
    assert tuned.best_config is hooked
    assert calls == [8] * 4


def test_early_config_prune_sees_arguments_and_decides(stub, quick, autotune, x):
    def prune(candidates, named_args, **kwargs):
        assert named_args["x"] is x
        assert kwargs["n"] == 8
        return [c for c in candidates if c.kwargs["BLOCK"] == 128]

    tuned = autotune(configs=FEW, key=["n"], prune_configs_by={"early_config_prune": prune})(quick)
    tuned[GRID](x, x, n=8)
    assert tuned.best_config.kwargs["BLOCK"] == 128
    assert len(stub.benchmarked) == 2


def test_a_perf_model_keeps_its_top_k(stub, quick, autotune, x):
    by = {"perf_model": lambda **given: given["BLOCK"] + given["num_warps"], "top_k": 2}
    tuned = autotune(configs=FEW, key=["n"], prune_configs_by=by)(quick)
    tuned[GRID](x, x, 8)
    assert {c.kwargs["BLOCK"] for c in tuned.configs_timings} == {128}


@pytest.mark.parametrize("parameter", ["key", "reset_to_zero", "restore_value"])
def test_a_wrong_name_is_an_error_on_every_triton(quick, parameter):
    names = {"key": ["n"], parameter: ["m"]}
    with pytest.raises(ValueError, match=f"{parameter} contains names.*: m. Valid.*x, y, n, BLOCK"):
        rlm_autotune(configs=FEW, **names)(quick)


def test_an_argument_that_the_configuration_sets_too_is_an_error(stub, quick, autotune, x):
    tuned = autotune(configs=FEW, key=["n"])(quick)
    with pytest.raises(ValueError, match="Conflicting meta-parameters: BLOCK"):
        tuned[GRID](x, x, 8, BLOCK=64)


def test_do_bench_is_asked_for_quantiles_once_per_configuration(stub, quick, autotune, x):
    asked = []

    def do_bench(call, quantiles):
        call()
        asked.append(quantiles)
        return [len(asked), len(asked), len(asked)]

    tuned = autotune(configs=FEW, key=["n"], do_bench=do_bench)(quick)
    tuned[GRID](x, x, 8)
    assert asked == [(0.5, 0.2, 0.8)] * 4
    assert min(t[0] for t in tuned.configs_timings.values()) == 1


def test_warmup_compiles_and_launches_nothing(stub, quick, autotune):
    tuned = autotune(configs=FEW, key=["n"])(quick)
    compiled = tuned.warmup(torch.float32, torch.float32, 8, grid=GRID)
    assert [c["BLOCK"] for c in compiled] == [c.kwargs["BLOCK"] for c in FEW]
    assert stub.launches == []
    assert tuned.cache == {}


def test_heuristics_above_and_below(stub, autotune, x):
    def masked(x, n, EVEN, BLOCK): ...

    above = triton.heuristics({"EVEN": lambda given: given["n"] % 8 == 0})
    below = triton.heuristics({"EVEN": lambda given: given["n"] % given["BLOCK"] == 0})
    tuned = autotune(configs=FEW, key=["n"])
    above(tuned(Quick(masked)))[GRID](x, 8)
    assert stub.launches[-1].constants["EVEN"] is True
    inner = tuned(below(Quick(masked)))
    inner[GRID](x, 8)
    assert stub.launches[-1].constants["EVEN"] is False
    assert inner.best_config.kwargs["BLOCK"] == 256


def test_the_print_knob_tells_what_is_tuned(stub, quick, autotune, x, monkeypatch, capsys):
    monkeypatch.setenv("TRITON_PRINT_AUTOTUNING", "1")
    tuned = autotune(configs=FEW, key=["n"])(quick)
    tuned[GRID](x, x, 8)
    told = capsys.readouterr().out
    assert told.count("Autotuning kernel body with config BLOCK:") == 4
    assert "Triton autotuning for function body,\nwith key as (8, 'torch.float32'" in told
    assert f"best config selected: {tuned.best_config};" in told


@pytest.mark.skipif(
    not hasattr(triton.knobs.autotuning, "listener"), reason="this Triton has no listener"
)
def test_the_listener_is_told_of_a_search(stub, autotune, x, monkeypatch):
    from triton_test_kernels import scale

    told = []
    monkeypatch.setattr(triton.knobs.autotuning, "listener", lambda **t: told.append(t))
    two = configs(blocks=(64, 128), warps=(1,))
    tuned = autotune(configs=two, key=["n"])(scale)
    tuned[GRID](x, x, 8)
    tuned[GRID](x, x, 8)
    (event,) = told
    assert event["fn"] is scale
    assert event["key"] == (8, "torch.float32", "torch.float32")
    assert event["best_config"] is tuned.best_config
    assert set(event["configs_timings"]) == set(two)
    assert event["duration"] > 0
    assert event["cache_hit"] is False


def test_deprecated_arguments_still_warn(quick):
    with pytest.warns(DeprecationWarning, match="warmup, rep"):
        rlm_autotune(configs=FEW, key=["n"], warmup=5, rep=10)(quick)


def test_resets_and_hooks_are_not_timed_by_our_own_timer(monkeypatch):
    """A hook that costs 20 ms does not show in the time of a kernel that costs nothing."""
    import time

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    tuned = rlm_autotune(
        configs=FEW[:2],
        key=["n"],
        pre_hook=lambda kwargs, reset_only=False: time.sleep(0.02),
        store=False,
    )(Quick(body, lambda given: None))
    tuned.fn.run = lambda *args, **kwargs: None
    tuned[GRID](torch.zeros(1), torch.zeros(1), 1)
    assert all(times[0] < 10 for times in tuned.configs_timings.values())


def test_equal_times_of_both(stub, quick, x):
    """Side by side: every combination of arguments gives the same key and the same choice."""
    kwargs = {"configs": FEW, "key": ["y", "n"]}
    theirs = triton.autotune(**kwargs)(quick)
    ours = rlm_autotune(**kwargs, store=False)(quick)
    tensors = (x, x.half(), None)
    for a, b, n, named in itertools.product(tensors, (1, 2.5, None, True), (3, 4), (0, 1, 2)):
        names = ("x", "y", "n")
        args = (a, b, n)[: 3 - named]
        rest = dict(zip(names[3 - named :], (a, b, n)[3 - named :], strict=True))
        theirs[GRID](*args, **rest)
        ours[GRID](*args, **rest)
        assert ours.best_config == theirs.best_config
    assert ours.cache == theirs.cache
    assert time_of(stub.launches[-1]) == 1.0
