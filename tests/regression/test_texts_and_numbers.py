"""Promises of ``RLM``: fit, predict, score, sample, log_prob, save and load."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from regression_support import Table
from scipy.stats import spearmanr

from autotune_rlm.regression import RLM


def test_it_learns_from_text_and_fields(fitted, table):
    report = fitted.report_.scores["number"]
    assert report["used"].spearman > 0.9
    assert report["used"].error < 0.5 * report["constant"].error
    assert fitted.predict(table.texts[:7], fields=fields(table, 7)).shape == (7,)


def fields(table, n):
    return {name: column[:n] for name, column in table.fields.items()}


def test_intervals_cover_what_they_say(base, table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = RLM(base, minutes=0, progress=False).fit(
            table.texts, table.bytes, fields=table.fields
        )
    others = Table(rows=400, seed=1)
    covered = model.score(others.texts, others.bytes, fields=others.fields, metric="coverage")
    assert 0.8 <= covered <= 0.99
    low, middle, high = model.predict_quantiles(others.texts, fields=others.fields).T
    assert (low <= middle).all()
    assert (middle <= high).all()


def test_score_is_r2_or_what_is_asked_for(fitted, table):
    arguments = (table.texts, table.bytes)
    predicted = fitted.predict(table.texts, fields=table.fields)
    residual = ((table.bytes - predicted) ** 2).sum()
    r2 = 1 - residual / ((table.bytes - table.bytes.mean()) ** 2).sum()
    assert fitted.score(*arguments, fields=table.fields) == pytest.approx(r2)
    rho = spearmanr(predicted, table.bytes).statistic
    assert fitted.score(*arguments, fields=table.fields, metric="spearman") == pytest.approx(rho)
    with pytest.raises(ValueError, match="metric must be"):
        fitted.score(*arguments, fields=table.fields, metric="luck")


def test_several_targets_are_decoded_in_sequence(two_targets, table):
    assert two_targets.targets == ("bytes", "change")
    found = two_targets.predict(table.texts[:9], fields=fields(table, 9))
    assert found.shape == (9, 2)
    assert (found[:, 1] < 0).any()  # negative numbers are said
    quantiles = two_targets.predict_quantiles(table.texts[:9], (0.1, 0.9), fields=fields(table, 9))
    assert quantiles.shape == (9, 2, 2)
    drawn = two_targets.sample(table.texts[:3], 20, fields=fields(table, 3))
    assert drawn.shape == (3, 20, 2)


def test_samples_agree_with_quantiles(fitted, table):
    drawn = fitted.sample(table.texts[:4], 400, fields=fields(table, 4))
    low, middle, high = fitted.predict_quantiles(table.texts[:4], fields=fields(table, 4)).T
    inside = ((drawn >= low[:, None]) & (drawn <= high[:, None])).mean(1)
    assert np.all((inside > 0.8) & (inside < 0.98))
    assert np.all(np.abs((drawn > middle[:, None]).mean(1) - 0.5) < 0.15)
    again = fitted.sample(table.texts[:4], 400, fields=fields(table, 4))
    assert (drawn == again).all()


@pytest.mark.parametrize("number", [-1e300, -5.0, 0.0, 1e-300, 1e300])
def test_no_finite_number_is_impossible(fitted, table, number):
    assert np.isfinite(fitted.log_prob(table.texts[:1], [number], fields=fields(table, 1))).all()


def test_densities_sum_to_about_one(fitted, table):
    grid = np.exp(np.linspace(-10, 25, 2001))
    one, beside = [table.texts[0]], {k: v[:1] for k, v in table.fields.items()}
    repeated = {k: v * len(grid) for k, v in beside.items()}
    inside = np.exp(fitted.log_prob(one * len(grid), grid, fields=repeated))
    assert np.trapezoid(inside * grid, np.log(grid)) == pytest.approx(1.0, abs=0.05)
    likely = fitted.predict(one, fields=beside)
    assert (
        fitted.log_prob(one, likely, fields=beside)
        > fitted.log_prob(one, 50 * likely, fields=beside)
    ).all()


@pytest.mark.parametrize("name", ["fitted", "two_targets"])
def test_what_is_saved_predicts_alike(name, request, table, tmp_path):
    model = request.getfixturevalue(name)
    again = RLM.load(model.save(tmp_path / "model"))
    assert again.targets == model.targets
    assert str(again.report_) == str(model.report_)
    ours = model.predict_quantiles(table.texts[:20], fields=fields(table, 20))
    theirs = again.predict_quantiles(table.texts[:20], fields=fields(table, 20))
    assert theirs == pytest.approx(ours, rel=0.05)
    assert "tokenizer.json" in {p.name for p in (tmp_path / "model").iterdir()}


def test_batches_do_not_change_what_is_predicted(fitted, table):
    one = fitted.predict(table.texts[:30], fields=fields(table, 30), batch_size=7)
    many = fitted.predict(table.texts[:30], fields=fields(table, 30))
    assert one == pytest.approx(many, rel=1e-3)


def test_pandas_and_lists_are_alike(base, table):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"code": table.texts, "peak": table.bytes, **table.fields})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = RLM(base, minutes=0, progress=False)
        of_lists = model.fit(table.texts, table.bytes, fields=table.fields).predict(
            table.texts, fields=table.fields
        )
        of_frames = model.fit(frame["code"], frame["peak"], fields=frame[["size", "kind"]]).predict(
            frame["code"], fields=frame[["size", "kind"]]
        )
    assert model.targets == ("peak",)
    assert of_frames == pytest.approx(of_lists)


def test_groups_are_never_split(base, table):
    from autotune_rlm.regression._fit import _split
    from autotune_rlm.regression._options import FitOptions

    groups = np.arange(240) // 6
    for seed in range(5):
        parts = _split(groups, FitOptions(seed=seed))
        seen = [set(groups[p]) for p in parts]
        assert not seen[0] & seen[1]
        assert not seen[0] & seen[2]
        assert not seen[1] & seen[2]
        assert sorted(np.concatenate(parts)) == list(range(240))
        assert len(parts[1]) + len(parts[2]) == pytest.approx(0.2 * 240, abs=12)


def test_a_table_that_says_nothing_is_called_so(base):
    rng = np.random.default_rng(0)
    texts = [f"word{i}" for i in range(300)]
    with pytest.warns(UserWarning, match="NO BETTER THAN A CONSTANT"):
        model = RLM(base, minutes=0.02, progress=False).fit(texts, rng.standard_normal(300))
    assert "NO BETTER THAN A CONSTANT" in str(model.report_)
    assert np.abs(model.predict(["word7", "another"])).max() < 0.5


def test_the_floor_holds_where_the_network_cannot_learn(base, table):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = RLM(base, minutes=0.001, progress=False).fit(
            table.texts, table.bytes, fields=table.fields
        )
    scores = model.report_.scores["number"]
    assert model.report_.shares["number"] == 0
    assert any("THE NETWORK ADDS NOTHING" in str(w.message) for w in caught)
    assert scores["used"].error == pytest.approx(scores["trees"].error)


def test_unknown_numbers_are_left_out(base, table):
    numbers = np.column_stack([table.bytes, table.change])
    numbers[:40, 0] = np.nan
    numbers[:20, 1] = np.nan
    with pytest.warns(UserWarning, match="20 rows without any number"):
        model = RLM(base, minutes=0, progress=False).fit(table.texts, numbers, fields=table.fields)
    assert sum(model.report_.rows) == 220


def test_an_interrupted_fit_goes_on(base, table, tmp_path):
    import json

    import torch

    def fit(minutes):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            RLM(base, minutes=minutes, progress=False, patience=10**6).fit(
                table.texts, table.bytes, fields=table.fields, folder=tmp_path
            )
        blob = torch.load(tmp_path / "state.pt", weights_only=True)
        return json.loads(blob["progress"])

    first = fit(0.05)
    second = fit(0.05)  # its time is spent already
    assert second["step"] == first["step"]
    blob = torch.load(tmp_path / "state.pt", weights_only=True)
    blob["progress"] = json.dumps({**first, "spent": 0.0})  # as if killed at the start
    torch.save(blob, tmp_path / "state.pt")
    assert fit(0.05)["step"] > first["step"]


BAD = [
    (lambda m, t: m.fit("text", [1.0]), "texts must be a list"),
    (lambda m, t: m.fit([*t.texts[:-1], None], t.bytes), "row 239"),
    (lambda m, t: m.fit(t.texts, t.bytes[:-1]), "numbers has 239 rows"),
    (lambda m, t: m.fit(t.texts, [*t.bytes[:-1], np.inf]), "infinite in row 239"),
    (lambda m, t: m.fit(t.texts, [*t.bytes[:-1], "many"]), "'many' in row 239"),
    (lambda m, t: m.fit(t.texts, np.full(240, np.nan)), "no number in any row"),
    (lambda m, t: m.fit(t.texts, t.bytes, groups=[1, 2]), "groups has 2 rows"),
    (lambda m, t: m.fit(t.texts, t.bytes, groups=[1] * 240), "at least 3 are needed"),
    (lambda m, t: m.fit(t.texts[:10], t.bytes[:10]), "at least 20"),
    (lambda m, t: m.fit(t.texts, t.bytes, fields={"a": [1]}), "column 'a' has 1 rows"),
    (lambda m, t: m.fit(t.texts, t.bytes, fields=3), "fields must be"),
    (lambda m, t: m.set_params(held_out=1.0).fit(t.texts, t.bytes), "held_out must be"),
    (lambda m, t: m.predict(t.texts), "nothing to ask yet"),
    (lambda m, t: m.save("folder"), "call fit first"),
    (lambda m, t: m.set_params(depth=3), "'depth' is none of"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_input_is_named(base, table, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(RLM(base, progress=False), table)


def test_the_bundled_model_answers_at_once():
    model = RLM.load()
    texts = ["def f(x):\n    return sorted(x)", "def g(x):\n    return [x] * 1000"]
    low, middle, high = model.predict_quantiles(texts).T
    assert (low <= middle).all()
    assert (middle <= high).all()
    assert model.sample(texts, 3).shape == (2, 3)
    assert np.isfinite(model.log_prob(texts, middle)).all()


def test_scikit_learn_can_use_it(base, table):
    from sklearn.base import clone
    from sklearn.model_selection import GroupKFold, cross_val_score

    model = RLM(base, minutes=0, progress=False)
    assert clone(model).get_params() == model.get_params()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = cross_val_score(
            model,
            np.array(table.texts, dtype=object),
            table.bytes,
            cv=GroupKFold(2),
            groups=np.arange(240),
        )
    assert len(scores) == 2
