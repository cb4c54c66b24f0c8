"""The veto: rounding passes, errors do not."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from autotune_rlm.measure.triton.correctness import disagreement, snapshot  # noqa: E402


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_rounding_passes_and_a_wrong_element_does_not(dtype):
    exact = torch.randn(64, 64, dtype=torch.float64) * 30
    rounded = exact.to(dtype, copy=True)
    assert disagreement({"c": rounded}, {"c": exact}) is None
    rounded[3, 4] += 100
    assert disagreement({"c": rounded}, {"c": exact}).startswith("c: 0.02% of the elements")


def test_another_order_of_summation_passes():
    a = torch.randn(256, 4096, dtype=torch.float16)
    by_parts = sum(a[:, i : i + 64].sum(1) for i in range(0, 4096, 64))
    assert disagreement({"s": by_parts}, {"s": a.double().sum(1)}) is None


def test_integers_must_be_equal():
    assert disagreement({"i": torch.tensor([1, 2])}, {"i": torch.tensor([1, 2])}) is None
    assert disagreement({"i": torch.tensor([1, 3])}, {"i": torch.tensor([1, 2])})


def test_nan_only_where_it_is_right():
    nan = torch.tensor([1.0, float("nan")])
    assert disagreement({"x": nan}, {"x": nan.clone()}) is None
    assert disagreement({"x": nan}, {"x": torch.ones(2)})
    inf = torch.tensor([1.0, float("inf")])
    assert disagreement({"x": inf}, {"x": inf.clone()}) is None


def test_shapes_names_and_empty_tensors():
    assert "shape" in disagreement({"x": torch.ones(2)}, {"x": torch.ones(3)})
    assert "no such output" in disagreement({}, {"x": torch.ones(3)})
    assert disagreement({"x": torch.ones(0)}, {"x": torch.ones(0)}) is None


def test_own_tolerances():
    assert disagreement({"x": torch.ones(2) * 1.3}, {"x": torch.ones(2)}, rtol=0.5) is None


def test_snapshot_is_a_copy():
    x = torch.ones(3)
    copy = snapshot({"x": x, "n": 3})
    x.zero_()
    assert list(copy) == ["x"]
    assert copy["x"].sum() == 3


FILLS = [(torch.float32, -1e9), (torch.float16, -65504.0), (torch.bfloat16, -1e30)]


@pytest.mark.parametrize(("dtype", "fill"), FILLS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_mask_value_hides_nothing(dtype, fill, share):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(128, 256, generator=generator)
    mask = torch.rand(128, 256, generator=generator) < share
    want = scores.masked_fill(mask, fill).to(dtype)
    assert disagreement({"o": want.clone()}, {"o": want}) is None
    assert disagreement({"o": (scores * 0).masked_fill(mask, fill).to(dtype)}, {"o": want})
    assert disagreement({"o": scores.to(dtype)}, {"o": want})  # nothing is masked
    one = want.clone()
    at = (~mask).nonzero()[3]
    one[at[0], at[1]] += 1
    assert disagreement({"o": one}, {"o": want})


@pytest.mark.parametrize("shape", [(4096,), (3000,), (1, 5000), (64, 64), (2, 3, 50, 40), (999, 3)])
def test_large_elements_hide_no_wrong_ones(shape):
    generator = torch.Generator().manual_seed(1)
    want = torch.randn(shape, generator=generator, dtype=torch.float64)
    flat = want.view(-1)
    flat[:: max(7, len(flat) // 40)] *= 1e6
    got = want.float()
    assert disagreement({"o": got}, {"o": want}) is None
    got = got.masked_fill(want.abs() < 10, 0.0)
    assert disagreement({"o": got}, {"o": want})


def rounded_to_tf32(values):
    bits = values.float().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).double()


@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.0, 1.0, 2.0]))
@settings(max_examples=60)
def test_rounding_of_a_product_passes_whatever_the_scales_of_rows_and_columns(seed, spread):
    generator = torch.Generator().manual_seed(seed)

    def scaled(rows, columns):
        scales = torch.exp(spread * torch.randn(rows, 1, generator=generator, dtype=torch.float64))
        return scales * torch.randn(rows, columns, generator=generator, dtype=torch.float64)

    a, b = scaled(48, 256), scaled(40, 256)
    want = a @ b.T
    as_tf32 = rounded_to_tf32(a) @ rounded_to_tf32(b).T
    assert disagreement({"c": as_tf32.float()}, {"c": want}) is None
    as_bf16 = (a.bfloat16().double() @ b.bfloat16().double().T).bfloat16()
    assert disagreement({"c": as_bf16}, {"c": want}) is None
    row = int(a.norm(dim=1).argmax())  # a wrong row beside others, and all but one wrong
    for rows in ([row], [r for r in range(48) if r != row]):
        wrong = want.float()
        wrong[rows] = 0.0
        assert disagreement({"c": wrong}, {"c": want})


def test_comparing_takes_bounded_memory():
    program = """
import resource, torch
from autotune_rlm.measure.triton.correctness import disagreement
want = torch.randn(4096, 4096)
got = want.clone()
disagreement({"o": got[:64]}, {"o": want[:64]})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert disagreement({"o": got}, {"o": want}) is None
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / want.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert float(done.stdout) < 0.5, done.stderr
