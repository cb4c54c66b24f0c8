"""Every kernel of the suite compiles for NVIDIA's Ampere, Hopper and Blackwell and AMD's CDNA3."""

import math

import pytest

from autotune_rlm.measure.triton.capture import describe_call
from autotune_rlm.measure.triton.compile import CompilePool, parse_target
from autotune_rlm.record.suite import load_suite

pytest.importorskip("triton")

SUITE = load_suite()
TARGETS = ("sm_80", "sm_90", "sm_100", pytest.param("gfx942", marks=pytest.mark.amd))

pytestmark = pytest.mark.timeout(1200)


def small_config(kernel):
    """A small configuration compiles fast."""
    size = lambda c: math.prod(v for v in c.values() if type(v) is int)  # noqa: E731
    return min(kernel.space.sample(64, seed=0), key=size)


def specs(pairs):
    found = {}
    for name, target in pairs:
        kernel = SUITE[name]
        if kernel.supports(parse_target(target)[:2]):
            args = kernel.make_args(kernel.problems[0], "meta", None)
            args = {**args, **small_config(kernel)}
            spec = describe_call(kernel.fn, (), args, target=parse_target(target))
            assert spec is not None
            found[name, target] = spec
    return found


def failures(pairs, cache):
    wanted = specs(pairs)
    with CompilePool(2, cache_dir=str(cache)) as pool:
        futures = {key: pool.submit(spec) for key, spec in wanted.items()}
        results = {key: future.result() for key, future in futures.items()}
    for (_, target), result in results.items():
        if result.ok and target.startswith("sm_"):
            assert result.facts["registers"] > 0
    return {key: result.reason for key, result in results.items() if not result.ok}


@pytest.mark.parametrize("target", TARGETS)
def test_each_kernel_compiles_for_one_target_in_turn(target, tmp_path):
    first = ("sm_80", "sm_90", "sm_100", "gfx942").index(target)
    names = list(SUITE)[first :: len(TARGETS)]
    assert failures([(name, target) for name in names], tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_each_kernel_compiles_for_every_target(target, tmp_path):
    assert failures([(name, target) for name in SUITE], tmp_path) == {}
