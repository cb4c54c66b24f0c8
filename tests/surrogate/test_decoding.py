from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_rlm.surrogate.codec import FAILED, NAN, BinCodec, DigitCodec
from autotune_rlm.surrogate.decoding import expand


def model(codec, seed, sharpness=1.0):
    """A made-up autoregressive model: the logits depend on the whole prefix."""

    def step(prefixes):
        return np.stack(
            [
                sharpness * np.random.default_rng([seed, *prefix]).standard_normal(codec.vocab_size)
                for prefix in prefixes.tolist()
            ]
        )

    return step


def by_hand(codec, step):
    """Probability of every value, by walking all sequences one by one."""
    found = {}
    for tokens in itertools.product(*(np.flatnonzero(row) for row in codec.masks())):
        if tokens[0] in (FAILED, NAN) and any(
            t != np.flatnonzero(row)[0]
            for t, row in zip(tokens[1:], codec.masks()[1:], strict=True)
        ):
            continue  # what stands behind a special value does not count
        p = 1.0
        for position, token in enumerate(tokens):
            if position and tokens[0] in (FAILED, NAN):
                break
            logits = step(np.array([tokens[:position]], dtype=np.int64))[0]
            allowed = codec.masks()[position]
            weight = np.where(allowed, np.exp(logits - logits[allowed].max()), 0.0)
            p *= weight[token] / weight.sum()
        special = {FAILED: "failed", NAN: "nan"}.get(tokens[0])
        key = special or float(codec.decode(np.array([tokens]))[0])
        found[key] = found.get(key, 0.0) + p
    return found


@settings(max_examples=8)
@given(seed=st.integers(0, 2**16), style=st.sampled_from(["p10", "ieee"]))
def test_a_complete_expansion_is_the_exact_distribution(seed, style):
    small = {
        "p10": {"mantissa": 1, "exponent": 1},
        "ieee": {"mantissa": 1, "base": 3, "exponent": 1},
    }
    codec = DigitCodec(style=style, **small[style])
    step = model(codec, seed)
    expected = by_hand(codec, step)
    found = expand(codec, step, width=10_000)
    assert found.missing == pytest.approx(0.0, abs=1e-9)
    assert found.p_failed == pytest.approx(expected.pop("failed"))
    assert found.p_nan == pytest.approx(expected.pop("nan"))
    assert dict(zip(found.values, found.probabilities, strict=True)) == pytest.approx(expected)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**16), width=st.integers(1, 64), style=st.sampled_from(["p10", "ieee"]))
def test_nothing_is_lost_without_being_told(seed, width, style):
    codec = DigitCodec(style=style)
    found = expand(codec, model(codec, seed), width=width)
    total = found.probabilities.sum() + found.p_failed + found.p_nan + found.missing
    assert total == pytest.approx(1.0)
    assert np.isfinite(found.values).all()
    assert len(found.values) <= width
    assert found.quantile(0.0) <= found.quantile(0.5) <= found.quantile(1.0)
    lowest, highest = found.values[[0, -1]]
    assert lowest <= found.mean <= highest or found.mean == pytest.approx(lowest)


def test_the_number_that_a_sure_model_writes_is_the_answer():
    for codec in (DigitCodec(style="p10"), DigitCodec(style="ieee"), BinCodec(low=0, high=100)):
        tokens = codec.encode(np.array([72.5]))[0]

        def step(prefixes, codec=codec, tokens=tokens):
            return (
                50.0 * np.eye(codec.vocab_size)[np.full(len(prefixes), tokens[prefixes.shape[1]])]
            )

        found = expand(codec, step, width=8)
        assert found.quantile(0.5) == pytest.approx(codec.decode(tokens[None])[0])
        assert found.mean == pytest.approx(codec.decode(tokens[None])[0])


def test_bins_are_exact_with_any_width():
    codec = BinCodec(bins=16)
    logits = np.random.default_rng(0).standard_normal((1, codec.vocab_size))
    found = expand(codec, lambda prefixes: logits, width=1)
    p = np.exp(logits[0]) / np.exp(logits[0]).sum()
    np.testing.assert_allclose(found.probabilities, p[2:])
    assert (found.p_failed, found.p_nan) == pytest.approx((p[FAILED], p[NAN]))
    assert found.missing == pytest.approx(0.0, abs=1e-12)


def test_bad_arguments_are_refused():
    codec = BinCodec()
    with pytest.raises(ValueError, match="width"):
        expand(codec, lambda prefixes: np.zeros((1, codec.vocab_size)), width=0)
    found = expand(codec, lambda prefixes: np.zeros((1, codec.vocab_size)))
    with pytest.raises(ValueError, match="q must"):
        found.quantile(1.5)
