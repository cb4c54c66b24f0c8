from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune_rlm.surrogate.codec import FAILED, NAN, BinCodec, DigitCodec

CODECS = [
    BinCodec(),
    BinCodec(low=-16, high=16, knee=float("inf")),
    DigitCodec(),
    DigitCodec(mantissa=5, exponent=6),
    DigitCodec(style="ieee"),
    DigitCodec(style="ieee", base=2, mantissa=8, exponent=6),
]
ids = ["bins", "even", "p10", "p10-long", "ieee", "ieee-binary"]


@pytest.mark.parametrize("codec", CODECS, ids=ids)
@given(values=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=8))
def test_every_token_is_allowed_where_it_stands(codec, values):
    tokens = codec.encode(np.array(values))
    assert tokens.shape == (len(values), codec.length)
    assert codec.masks()[np.arange(codec.length), tokens].all()


@pytest.mark.parametrize("codec", CODECS, ids=ids)
@given(data=st.data())
def test_every_allowed_sequence_is_a_number_or_special(codec, data):
    masks = codec.masks()
    row = [data.draw(st.sampled_from(np.flatnonzero(m).tolist())) for m in masks]
    value = codec.decode(np.array([row]))[0]
    assert np.isnan(value) == (row[0] in (FAILED, NAN))


@given(value=st.floats(min_value=1e-9, max_value=9e9) | st.floats(min_value=-9e9, max_value=-1e-9))
@pytest.mark.parametrize("codec", CODECS[2:4], ids=ids[2:4])
def test_digits_keep_their_precision(codec, value):
    decoded = codec.decode(codec.encode(np.array([value])))[0]
    smallest = 10.0 ** (codec.mantissa - 1 - codec.exponent)
    assert abs(decoded - value) <= max(abs(value) * 0.5001 * 10.0 ** (1 - codec.mantissa), smallest)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
EVERY_FLOAT = [
    DigitCodec(style="ieee", mantissa=4, exponent=3),
    DigitCodec(style="ieee", mantissa=10, exponent=11, base=2),
    DigitCodec(mantissa=4, exponent=340),
]


@pytest.mark.parametrize("codec", EVERY_FLOAT, ids=lambda c: f"{c.style} {c.base}")
@given(value=FINITE)
def test_digits_hold_any_finite_float(codec, value):
    decoded = float(codec.decode(codec.encode(np.array([value])))[0])
    last_digit = float(codec.base) ** (1 - codec.mantissa)
    assert abs(decoded - value) <= last_digit * abs(value) * (1 + 1e-9) + 5e-324
    assert decoded == 0 or (decoded < 0) == (value < 0)


@given(value=st.floats(min_value=1e-98, max_value=9e98) | st.floats(-9e98, -1e-98))
def test_ieee_cuts_digits_off(value):
    codec = DigitCodec(style="ieee", mantissa=4)
    decoded = codec.decode(codec.encode(np.array([value])))[0]
    assert abs(value) * (1 - 1e-3) <= abs(decoded) <= abs(value) * (1 + 1e-12)


@pytest.mark.parametrize("codec", CODECS[:4], ids=ids[:4])
@given(value=FINITE)
def test_what_was_decoded_is_encoded_alike(codec, value):
    once = codec.decode(codec.encode(np.array([value])))
    assert np.isfinite(once).all()
    assert codec.decode(codec.encode(once)) == pytest.approx(once, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("codec", CODECS[2:], ids=ids[2:])
@given(a=FINITE, b=FINITE)
def test_digits_keep_the_order(codec, a, b):
    low, high = codec.decode(codec.encode(np.array([min(a, b), max(a, b)])))
    assert low <= high


# Round trips of google-deepmind/regress-lm's tokenizers as of June 2026: IEEEFloatTokenizer(10, 1, 4) and
# P10Tokenizer(4, 10).
OF_THE_REFERENCE = [
    (0.0, 0.0, 0.0),
    (72.5, 72.5, 72.5),
    (1.99999, 1.999, 2.0),
    (-123456.0, -123400.0, -123500.0),
    (0.57, 0.5699, 0.57),
    (1e8, 1e8, 1e8),
    (3.14159e12, 9.999e9, 3.142e12),
    (-3e300, -9.999e9, -9.999e13),
    (6e-8, 5.999e-8, 1e-7),
    (4e-8, 4e-8, 0.0),
    (-2e-10, 0.0, 0.0),
    (1.2345, 1.234, 1.234),
]


@pytest.mark.parametrize(("value", "ieee", "p10"), OF_THE_REFERENCE)
def test_values_are_those_of_the_reference(value, ieee, p10):
    for codec, expected in (
        (DigitCodec(style="ieee", exponent=1, mantissa=4), ieee),
        (DigitCodec(style="p10", exponent=10, mantissa=4), p10),
    ):
        assert codec.decode(codec.encode(np.array([value])))[0] == pytest.approx(
            expected, rel=1e-12
        )


@given(value=st.floats(min_value=0, max_value=5.5))
def test_bins_resolve_tenths_of_a_per_cent_near_the_best(value):
    codec = BinCodec()
    decoded = codec.decode(codec.encode(np.array([value])))[0]
    assert abs(decoded - value) <= 0.001 + 0.02 * value


@given(a=st.floats(0, 5.5), b=st.floats(0, 5.5))
def test_bins_keep_the_order(a, b):
    first, second = BinCodec().encode(np.array([min(a, b), max(a, b)]))[:, 0]
    assert first <= second


@pytest.mark.parametrize("codec", CODECS, ids=ids)
def test_failed_and_nan_are_values_of_their_own(codec):
    tokens = codec.encode(np.array([1.0, np.nan, 1.0]), np.array([False, False, True]))
    assert tokens[1, 0] == NAN
    assert tokens[2, 0] == FAILED
    assert np.isnan(codec.decode(tokens)).tolist() == [False, True, True]


def test_quantiles_of_a_known_histogram():
    codec = BinCodec(low=0, high=10, knee=float("inf"), bins=11)
    even = np.full((1, 11), 1 / 11)
    assert codec.quantile(even, 0.5)[0] == pytest.approx(5.0)
    sure = np.zeros((1, 11))
    sure[0, 7] = 1.0
    assert codec.quantile(sure, 0.05)[0] == pytest.approx(6.55)
    assert codec.quantile(sure, 0.95)[0] == pytest.approx(7.45)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BinCodec(low=1, high=1),
        lambda: BinCodec(bins=1),
        lambda: DigitCodec(style="roman"),
        lambda: DigitCodec(mantissa=0),
    ],
)
def test_bad_settings_are_named(make):
    with pytest.raises(ValueError, match="must be"):
        make()
