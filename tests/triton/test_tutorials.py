"""Triton's own tutorials choose under ``enable()`` what they choose under ``triton.autotune``."""

from __future__ import annotations

import math

import pytest
import triton
from tutorial_kernels import TUTORIALS

import autotune_rlm
from autotune_rlm.integrations.triton import RLMAutotuner
from autotune_rlm.integrations.triton.stub import StubDriver


def chosen(tutorial, favourite):
    """The configuration that is taken where ``favourite`` is the fastest, and all times."""
    kernel, options, arguments, grid = tutorial
    kept = [c for c in options["configs"] if c.kwargs["BM"] <= 256]

    def time_ms(launch):
        (place,) = [
            i
            for i, config in enumerate(kept)
            if all(launch.constants[name] == value for name, value in config.kwargs.items())
        ]
        return 1.0 if place == favourite else 2.0 + place

    tuned = triton.autotune(**options)(kernel)
    with StubDriver(time_ms=time_ms) as stub:
        tuned[grid](*arguments())
    assert stub.launches[-1].constants["BM"] == tuned.best_config.kwargs["BM"]
    return tuned, {config: times[0] for config, times in tuned.configs_timings.items()}


@pytest.mark.parametrize("name", TUTORIALS)
def test_every_choice_of_tritons_is_possible_and_no_configuration_is_lost(name, caplog):
    tutorial = TUTORIALS[name]
    n = sum(c.kwargs["BM"] <= 256 for c in tutorial[1]["configs"])
    for favourite in range(n):
        theirs, their_times = chosen(tutorial, favourite)
        with autotune_rlm.enable(store=False):
            ours, our_times = chosen(tutorial, favourite)
            assert isinstance(ours, RLMAutotuner)
        assert ours.best_config == theirs.best_config
        assert our_times == their_times
        assert len(our_times) == n
        assert all(map(math.isfinite, our_times.values()))


@pytest.mark.parametrize("name", ["attention", "persistent"])
def test_descriptor_kernels_are_compiled_by_the_workers(name, store_path):
    """The hook that gives the blocks runs on copies, so that a worker compiles the very binary."""
    with autotune_rlm.enable(store=store_path):
        chosen(TUTORIALS[name], 0)
    with autotune_rlm.Store(store_path) as store:
        (task,) = store.tasks()
        measured = [o.measurement for o in store.observations(task)]
    assert all(m.facts["registers"] > 0 for m in measured)
