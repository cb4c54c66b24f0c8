"""The veto: rounding passes, errors do not."""

import pytest

torch = pytest.importorskip("torch")

from autotune_rlm.measure.correctness import disagreement, snapshot  # noqa: E402


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
