from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from surrogate_support import make_candidates, make_landscape, make_task

from autotune_rlm.surrogate import load
from autotune_rlm.surrogate.checkpoint import load_checkpoint
from autotune_rlm.surrogate.known import together, trained_on
from autotune_rlm.surrogate.network import Network
from autotune_rlm.surrogate.rlm import RLMSurrogate
from autotune_rlm.types import Candidate, Device, Measurement, Observation, Status, Surrogate, Task


def finite(prediction) -> bool:
    arrays = ("median", "low", "high", "spread", "p_valid")
    return all(np.isfinite(getattr(prediction, name)).all() for name in arrays)


@pytest.fixture
def with_facts(surrogate):
    metrics = ("slowdown", "scale", "shared_bytes", "registers", "compile_s")
    config = dataclasses.replace(surrogate.checkpoint.network.config, metrics=metrics)
    network = Network(config).eval().requires_grad_(False)
    return RLMSurrogate(dataclasses.replace(surrogate.checkpoint, network=network))


def test_it_is_a_surrogate(surrogate):
    assert isinstance(surrogate, Surrogate)


def test_intervals_hold_the_median(surrogate):
    p = surrogate.predict(make_task(), make_candidates())
    assert finite(p)
    assert (p.low <= p.median).all()
    assert (p.median <= p.high).all()
    assert ((p.p_valid >= 0) & (p.p_valid <= 1)).all()


def test_no_candidates_give_an_empty_prediction(surrogate):
    assert len(surrogate.predict(make_task(), [])) == 0


def test_a_candidate_is_predicted_alike_alone_and_in_company(surrogate):
    candidates = make_candidates()
    together = surrogate.predict(make_task(), candidates)
    alone = surrogate.predict(make_task(), candidates[5:6])
    assert alone.median[0] == pytest.approx(together.median[5], rel=1e-4)


def test_it_is_predicted_alike_in_large_company(surrogate):
    odd = [Candidate({"num_warps": 4}), Candidate({}), Candidate({"BLOCK_M": 64, "MODE": "x"})]
    many = [*odd, *(Candidate({"BLOCK_M": 16 + i, "num_warps": i % 3}) for i in range(400))]
    few, company = (surrogate._ask(make_task(), some, states=True).prior for some in (odd, many))
    for name in ("mean", "p_valid", "hidden"):
        np.testing.assert_allclose(
            getattr(company, name)[:3], getattr(few, name), rtol=1e-3, atol=1e-4
        )


def test_order_of_parameters_does_not_matter(surrogate):
    one = Candidate({"BLOCK_M": 64, "num_warps": 4})
    two = Candidate({"num_warps": 4, "BLOCK_M": 64})
    p = surrogate.predict(make_task(), [one, two])
    assert p.median[0] == pytest.approx(p.median[1], rel=1e-5)


def test_measurements_move_predictions_to_the_measured_scale(surrogate):
    landscape = make_landscape()
    seen = landscape.observations[::6]
    p = surrogate.predict(landscape.task, landscape.candidates, observed=seen)
    ok = landscape.ok
    error = np.abs(np.log(p.median[ok] / landscape.values[ok]))
    assert error.mean() < 0.35
    assert finite(p)


def test_observed_candidates_outside_the_list_count(surrogate):
    landscape = make_landscape()
    asked = landscape.candidates[:10]
    p = surrogate.predict(landscape.task, asked, observed=landscape.observations[10:30])
    assert len(p) == 10
    assert np.abs(np.log(p.median / landscape.values[:10])).mean() < 1.0


def test_failures_lower_the_probability_of_working(surrogate):
    candidates = make_candidates()
    task = make_task()
    failed = Measurement(status=Status.COMPILE_ERROR, reason="no")
    seen = [Observation(c, failed) for c in candidates if c.config["BLOCK_M"] == 128]
    before = surrogate.predict(task, candidates).p_valid
    after = surrogate.predict(task, candidates, observed=seen).p_valid
    big = np.array([c.config["BLOCK_M"] == 128 for c in candidates])
    assert (after[big] < 0.05).all()
    assert after[~big].mean() > 0.5 * before[~big].mean()


def test_skipped_measurements_teach_nothing(surrogate):
    candidates, task = make_candidates(), make_task()
    seen = [Observation(candidates[0], Measurement(status=Status.SKIPPED, reason="budget"))]
    one = surrogate.predict(task, candidates)
    two = surrogate.predict(task, candidates, observed=seen)
    assert (one.median == two.median).all()


def test_scores_to_maximise_keep_their_direction(surrogate):
    task = Task(kernel="net", device=Device(name="x"), metric="accuracy", minimize=False)
    candidates = [Candidate({"depth": d}) for d in range(1, 9)]
    seen = [
        Observation(c, Measurement(status=Status.OK, value=60.0 + 4 * c.config["depth"]))
        for c in candidates[::2]
    ]
    p = surrogate.predict(task, candidates, observed=seen)
    assert (p.low <= p.median).all()
    assert (p.median <= p.high).all()
    assert np.corrcoef(p.median, np.arange(8))[0, 1] > 0.7
    assert (p.median < 100).all()


def test_facts_of_compilation_are_numbers_in_their_own_units(with_facts):
    task, candidates = make_task(), make_candidates()
    facts = with_facts.facts(task, candidates)
    assert set(facts) == {"shared_bytes", "registers", "compile_s"}
    for metric, p in facts.items():
        assert p.metric == metric
        assert finite(p)
        assert (p.low >= 0).all()
        assert (p.low <= p.median).all()
        assert (p.median <= p.high).all()
    asked = with_facts.predict(dataclasses.replace(task, metric="registers"), candidates)
    assert asked.median == pytest.approx(facts["registers"].median)
    only = with_facts.facts(task, candidates, metrics=["registers"])
    assert list(only) == ["registers"]


def test_measured_facts_correct_the_others(with_facts):
    task, candidates = dataclasses.replace(make_task(), metric="registers"), make_candidates()
    seen = [Observation(c, Measurement(status=Status.OK, value=40.0)) for c in candidates[::2]]
    before = with_facts.predict(task, candidates).median[1::2]
    after = with_facts.predict(task, candidates, observed=seen).median[1::2]
    assert np.abs(np.log(after / 40.0)).max() < np.abs(np.log(before / 40.0)).min() / 3


def test_facts_that_a_checkpoint_does_not_write_are_refused(surrogate, with_facts):
    with pytest.raises(ValueError, match=r"does not write \['spills'\]"):
        with_facts.facts(make_task(), make_candidates(), metrics=["spills"])
    assert surrogate.facts(make_task(), make_candidates()) == {}
    asked = dataclasses.replace(make_task(), metric="registers")
    assert finite(surrogate.predict(asked, make_candidates()))  # as any metric that it never saw


def test_a_checkpoint_knows_the_parameters_that_it_was_told_times_of(surrogate):
    task, candidates = make_task(), make_candidates()
    assert surrogate.knows(task, candidates)  # says nothing of its training

    def trained_on_others(settings):
        return RLMSurrogate(dataclasses.replace(surrogate.checkpoint, settings=settings))

    told = trained_on([make_landscape()])
    assert surrogate.knows_device(Device(name="abacus"))
    assert trained_on_others(told).knows_device(task.device)
    assert not trained_on_others(told).knows_device(Device(name="abacus"))
    assert trained_on_others(told).knows(task, candidates)
    unlike = [Candidate({"block_size_x": 16, "tile_size_y": 4, "num_warps": 2})]
    assert not trained_on_others(told).knows(task, unlike)
    both = together(told, trained_on([make_landscape()]) | {"parameters": [["a"]]})
    assert trained_on_others(both).knows(task, candidates)
    assert trained_on_others(together(told, {})).knows(task, unlike)


def test_what_it_was_not_trained_on_is_predicted_with_doubt(surrogate):
    task, candidates = make_task(), make_candidates()
    told = trained_on([make_landscape()])
    widths = []
    for settings_ in (
        told,
        {**told, "devices": ["abacus"]},
        {**told, "parameters": [["bead"]]},
    ):
        asked = RLMSurrogate(dataclasses.replace(surrogate.checkpoint, settings=settings_))
        p = asked.predict(task, candidates)
        widths.append(np.log(p.high / p.low))
        assert np.allclose(p.median, surrogate.predict(task, candidates).median)
    assert (widths[0] < widths[1]).all()
    assert (widths[1] < widths[2]).all()


def test_threads_get_the_same_answer(surrogate):
    landscape = make_landscape()
    answers = [None] * 6

    def ask(i: int) -> None:
        p = surrogate.predict(
            landscape.task, landscape.candidates, observed=landscape.observations[:8]
        )
        answers[i] = p.median

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for answer in answers[1:]:
        assert (answer == answers[0]).all()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kernel=st.text(max_size=30),
    source=st.text(max_size=200),
    name=st.text(max_size=30),
    value=st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
)
@example(kernel="", source="", name="n", value=float("inf"))
@example(kernel="", source="", name="n", value=float("nan"))
def test_odd_text_never_gives_nan(surrogate, kernel, source, name, value):
    task = Task(kernel=kernel, device=Device(name=name), source=source, problem={name: value})
    config = {name: value if value == value else None}
    candidates = [Candidate({"x": 1}), Candidate({k: str(v) for k, v in config.items()})]
    assert finite(surrogate.predict(task, candidates))


def test_a_megabyte_of_source_and_bytes_that_are_no_text(surrogate):
    for source in ("x = 1\n" * 170_000, b"\xff\xfe\x00def".decode("utf-8", "surrogateescape"), ""):
        task = Task(kernel="k", device=Device(name="unheard of"), source=source)
        assert finite(surrogate.predict(task, [Candidate({"BLOCK": 64})]))


def test_checkpoints_round_trip(surrogate, tmp_path):
    surrogate.save(tmp_path / "saved")
    again = RLMSurrogate.load(tmp_path / "saved")
    one = surrogate.predict(make_task(), make_candidates())
    two = again.predict(make_task(), make_candidates())
    assert np.allclose(np.log(one.median), np.log(two.median), atol=0.05)


def test_unknown_and_newer_checkpoints_are_refused(surrogate, tmp_path):
    with pytest.raises(FileNotFoundError, match="neither bundled"):
        load(tmp_path / "nothing")
    surrogate.save(tmp_path / "new")
    config = tmp_path / "new" / "config.json"
    config.write_text(config.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(ValueError, match="update autotune-rlm"):
        load_checkpoint(tmp_path / "new")
