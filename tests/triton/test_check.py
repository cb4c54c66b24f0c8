"""``check="default"``: a configuration that writes something else than the default is left out."""

import pytest
import torch
from triton_test_support import Oracle, Quick, body, configs

from autotune_rlm import Store, rlm_autotune
from autotune_rlm.types import Status


def kernel_that(writes):
    """A kernel that does ``writes(x, y, block)`` at a launch."""

    def launch(given):
        writes(given["x"], given["y"], given["BLOCK"])

    return Quick(body, launch)


def tuned(kernel, store, **options):
    options = {"configs": configs(warps=(2,)), "check": "default", "mode": "full", **options}
    return rlm_autotune(key=["n"], surrogate=Oracle(), store=store, **options)(kernel)


def statuses(store_path):
    with Store(store_path) as store:
        (task,) = store.tasks()
        observed = store.observations(task)
        return {o.candidate.config["BLOCK"]: o.measurement.status for o in observed}


@pytest.fixture
def tensors():
    return torch.randn(64, 64), torch.randn(64, 64)


def doubled(x, y, block):
    y.copy_(x * (2 if block != 256 else 3))


def test_the_fastest_is_not_taken_if_it_is_wrong(stub, store_path, tensors):
    x, y = tensors
    kernel = tuned(kernel_that(doubled), store_path)
    kernel[(1,)](x, y, 64)
    assert kernel.best_config.kwargs["BLOCK"] in (128, 512)
    assert torch.equal(y, 2 * x)
    found = statuses(store_path)
    assert found.pop(256) is Status.WRONG_RESULT
    assert set(found.values()) == {Status.OK}


def test_without_it_nothing_is_compared(stub, store_path, tensors):
    kernel = tuned(kernel_that(doubled), store_path, check=None)
    kernel[(1,)](*tensors, 64)
    assert kernel.best_config.kwargs["BLOCK"] == 256


def test_what_an_earlier_launch_wrote_does_not_pass(stub, store_path, tensors):
    def lazy(x, y, block):
        if block != 256:
            y.copy_(2 * x)

    x, y = tensors
    y.copy_(2 * x)  # the buffer of the last step of a loop
    kernel = tuned(kernel_that(lazy), store_path)
    kernel[(1,)](x, y, 64)
    assert statuses(store_path)[256] is Status.WRONG_RESULT


def test_part_of_a_tensor_and_integers(stub, store_path):
    def half(x, y, block):
        y[:32].copy_(x[:32] + (block == 256))

    x, y = torch.arange(64), torch.zeros(64, dtype=torch.int64)
    tuned(kernel_that(half), store_path)[(1,)](x, y, 64)
    assert statuses(store_path)[256] is Status.WRONG_RESULT
    assert torch.equal(y[:32], x[:32])
    assert not y[32:].any()


@pytest.mark.parametrize("kind", ["parameter", "inference"])
def test_a_tensor_that_torch_guards_is_read_as_any_other(stub, store_path, kind):
    with torch.inference_mode(kind == "inference"):
        x = torch.nn.Parameter(torch.randn(64)) if kind == "parameter" else torch.randn(64)
    y, before = torch.zeros(64), x.detach().clone()
    kernel = tuned(kernel_that(lambda x, y, block: y.copy_(2 * x.detach())), store_path)
    kernel[(1,)](x, y, 64)
    assert set(statuses(store_path).values()) == {Status.OK}
    assert torch.equal(x, before)


def test_what_a_backward_pass_has_saved_is_not_taken_for_changed(stub, store_path):
    x = torch.randn(64, requires_grad=True)
    saved = x.exp()
    kernel = tuned(kernel_that(lambda x, y, block: y.copy_(x.detach())), store_path)
    kernel[(1,)](saved, torch.zeros(64), 64)
    saved.sum().backward()
    assert torch.equal(x.grad, saved.detach())


def test_a_kernel_that_adds_in_place_has_added_once(stub, store_path, tensors):
    def add(x, y, block):
        y.add_(x)

    x, y = tensors
    want = y + x
    kernel = tuned(kernel_that(add), store_path)
    kernel[(1,)](x, y, 64)
    assert torch.equal(y, want)
    assert set(statuses(store_path).values()) == {Status.OK}
    assert kernel.best_config.kwargs["BLOCK"] == 256


def test_the_first_configuration_is_what_is_right(stub, store_path, tensors):
    def other(x, y, block):
        y.copy_(x * (5 if block == 32 else 2))

    kernel = tuned(kernel_that(other), store_path)
    kernel[(1,)](*tensors, 64)
    assert kernel.best_config is kernel.configs[0]
    assert list(statuses(store_path).values()).count(Status.WRONG_RESULT) == 5


def test_what_was_measured_without_it_is_not_trusted(stub, store_path, tensors):
    tuned(kernel_that(doubled), store_path, check=None)[(1,)](*tensors, 64)
    kernel = tuned(kernel_that(doubled), store_path)
    kernel[(1,)](*tensors, 64)
    assert kernel.best_config.kwargs["BLOCK"] != 256
    before = len(stub.benchmarked)
    again = tuned(kernel_that(doubled), store_path)
    again[(1,)](*tensors, 64)
    assert again.best_config.kwargs["BLOCK"] != 256
    assert len(stub.benchmarked) == before


def test_a_search_that_goes_on_compares_with_the_default_too(stub, store_path, tensors):
    kernel = tuned(kernel_that(doubled), store_path)
    kernel.configs = [c for c in kernel.configs if c.kwargs["BLOCK"] != 256]
    kernel[(1,)](*tensors, 64)
    whole = tuned(kernel_that(doubled), store_path)
    whole[(1,)](*tensors, 64)  # measures the one that is missing
    assert statuses(store_path)[256] is Status.WRONG_RESULT
    assert whole.best_config.kwargs["BLOCK"] != 256


def test_where_the_default_does_not_work_the_first_that_does_is_right(stub, store_path, tensors):
    def picky(x, y, block):
        if block == 32:
            raise RuntimeError("Triton Error [CUDA]: invalid argument")
        y.copy_(x * (3 if block == 256 else 2))

    kernel = tuned(kernel_that(picky), store_path)
    kernel[(1,)](*tensors, 64)
    assert kernel.best_config.kwargs["BLOCK"] in (128, 512)


def test_the_variable_asks_for_it_too(stub, store_path, tensors, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_RLM_CHECK", "default")
    kernel = tuned(kernel_that(doubled), store_path, check=None)
    kernel[(1,)](*tensors, 64)
    assert kernel.best_config.kwargs["BLOCK"] != 256


def test_arguments_are_looked_at_before_anything_runs(quick):
    with pytest.raises(ValueError, match="check must be None or 'default'"):
        tuned(quick, None, check="always")
    with pytest.raises(ValueError, match=r"no folder nonesuch .* bundled ones are: nano"):
        rlm_autotune(configs(), ["n"], surrogate="nonesuch")
