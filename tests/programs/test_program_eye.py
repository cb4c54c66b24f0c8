"""The eye for programs: fitted to recorded programs, kept in a checkpoint, asked by the surrogate."""

from dataclasses import replace

import numpy as np
import pytest

from autotune_rlm.landscapes import Landscape
from autotune_rlm.surrogate import RLMSurrogate, load_surrogate, rlm
from autotune_rlm.surrogate.program_eye import ProgramEye
from autotune_rlm.training.program_eye import fit_program_eye
from autotune_rlm.types import Candidate, Device, Measurement, Observation, Status, Task

TASK = Task(kernel="program", device=Device(name="cpu"), language="python", metric="peak_bytes")


def program(size, imports=""):
    return f"{imports}\n\ndef solve(n):\n    table = [0] * {size}\n    return len(table) + n\n"


def landscape(sizes, runs=2):
    candidates, measured = [], []
    for size in sizes:
        for run in range(runs):
            text = program(size, "import json" if size % 2 else "import math")
            candidates.append(Candidate({"items": run + 1, "largest": 5}, text, payload=str(size)))
            value = 8.0 * size + (1e6 if size % 2 else 1e4)
            measured.append(Measurement(status=Status.OK, value=value))
    return Landscape(TASK, tuple(candidates), tuple(measured), "program/python/peak_bytes")


@pytest.fixture(scope="module")
def eye():
    known = landscape([int(1.12**k * 100) + k for k in range(90)])
    return fit_program_eye([known], [[c.payload for c in known.candidates]])


@pytest.fixture(scope="module")
def surrogate(eye):
    return RLMSurrogate(replace(load_surrogate("nano").checkpoint, program_eye=eye))


def test_programs_never_seen_are_ordered_with_and_without_sizes(surrogate):
    texts = [
        program(300, "import math"),
        program(300_001, "import json"),
        program(7, "import json"),
    ]
    for config in ({"items": 1, "largest": 5}, {}):
        told = surrogate.predict(TASK, [Candidate(config, text) for text in texts])
        assert told.median[0] < told.median[2] < told.median[1]
        assert (told.low <= told.median).all()
        assert (told.median <= told.high).all()
        assert told.familiar
        assert not told.unfamiliar


def test_what_was_measured_corrects_it(surrogate):
    candidates = [Candidate({}, program(300)), Candidate({}, program(320))]
    seen = Observation(candidates[0], Measurement(status=Status.OK, value=5e7))
    before = surrogate.predict(TASK, candidates).median[0]
    after = surrogate.predict(TASK, candidates, observed=[seen]).median[0]
    assert abs(np.log(after / 5e7)) < abs(np.log(before / 5e7))


def test_it_is_kept_in_a_checkpoint(surrogate, tmp_path):
    candidates = [Candidate({"items": 3}, program(n)) for n in (10, 1000, 50_000)]
    again = RLMSurrogate.load(surrogate.save(tmp_path / "kept"))
    assert np.allclose(
        again.predict(TASK, candidates).median, surrogate.predict(TASK, candidates).median
    )


def test_one_of_other_columns_is_left_alone(eye, tmp_path, monkeypatch):
    eye.save(tmp_path)
    assert ProgramEye.load(tmp_path) is not None
    monkeypatch.setattr("autotune_rlm.programs.COLUMNS", ("other",))
    assert ProgramEye.load(tmp_path) is None
    assert ProgramEye.load(tmp_path / "missing") is None


@pytest.mark.parametrize("change", [{"metric": "time_ms"}, {"language": "cobol"}])
def test_it_has_no_word_on_what_it_was_never_told(eye, change):
    assert eye.look(replace(TASK, **change), [Candidate({}, program(3))]) is None


def test_a_candidate_without_a_text_is_the_networks(eye):
    assert eye.look(TASK, [Candidate({"n": 3})]) is None


def test_too_few_programs_are_said():
    few = landscape([1, 2, 3])
    with pytest.raises(ValueError, match="30 programs"):
        fit_program_eye([few], [[c.payload for c in few.candidates]])


def test_the_network_is_not_read_where_it_has_no_say(surrogate, monkeypatch):
    """Nothing of the answer changes, and what a measurement needs of the network is read then."""
    candidates = [Candidate({"items": 3}, program(n)) for n in (10, 1000, 50_000)]
    seen = [Observation(candidates[0], Measurement(status=Status.OK, value=5e5))]
    corrected = RLMSurrogate(surrogate.checkpoint).predict(TASK, candidates, observed=seen)
    metrics = surrogate.checkpoint.program_eye.metrics
    mixed = replace(metrics["peak_bytes"], share=1 - 1e-12)
    eye = ProgramEye({**metrics, "peak_bytes": mixed})
    shared = RLMSurrogate(replace(surrogate.checkpoint, program_eye=eye))
    both = shared.predict(TASK, candidates)
    asked = []
    ask = rlm.ask
    monkeypatch.setattr(rlm, "ask", lambda *a: asked.append(a) or ask(*a))
    alone = RLMSurrogate(surrogate.checkpoint)
    told = alone.predict(TASK, candidates)
    assert not asked
    for name in ("median", "low", "high", "spread", "p_valid"):
        assert getattr(told, name) == pytest.approx(getattr(both, name), rel=1e-6)
    later = alone.predict(TASK, candidates, observed=seen)
    assert asked
    assert later.median == pytest.approx(corrected.median, rel=1e-12)
    assert later.spread == pytest.approx(corrected.spread, rel=1e-12)
