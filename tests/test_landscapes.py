"""The Landscape class and the files that keep it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from landscape_support import close, landscape

from autotune_rlm.devices import lookup
from autotune_rlm.landscapes import Landscape, read_landscapes, write_landscapes
from autotune_rlm.types import Candidate, Device, Measurement, Status, Task

DATA = Path(__file__).parents[2] / "shared" / "data" / "gpu"


class TestLandscape:
    def test_values_are_nan_where_failed(self):
        found = landscape([2.0, None, 1.0])
        assert found.ok.tolist() == [True, False, True]
        np.testing.assert_array_equal(found.values, [2.0, np.nan, 1.0])
        assert (found.best, found.best_index, found.worst, len(found)) == (1.0, 2, 2.0, 3)

    def test_regret_is_relative_to_the_best(self):
        assert landscape([2.0, 4.0]).regret(3.0) == pytest.approx(0.5)
        assert landscape([2.0, 4.0], minimize=False).regret(3.0) == pytest.approx(0.25)
        assert landscape([2.0, 4.0]).regret(2.0) == 0.0

    @pytest.mark.parametrize("value", [None, float("nan")])
    def test_regret_of_nothing_is_nan(self, value):
        assert np.isnan(landscape([1.0]).regret(value))

    def test_nothing_worked(self):
        found = landscape([None, None])
        assert found.best_index is None
        assert np.isnan(found.best)
        assert np.isnan(found.worst)
        assert np.isnan(found.regret(1.0))

    def test_take_keeps_order_and_id(self):
        found = landscape([3.0, 1.0, 2.0])
        assert found.take([2, 0]).values.tolist() == [2.0, 3.0]
        assert found.take(np.array([True, False, True])).id == found.id

    def test_unequal_numbers_are_refused(self):
        with pytest.raises(ValueError, match="equally many"):
            Landscape(Task(kernel="k", device=Device(name="d")), (Candidate({}),), ())

    def test_arrays_cannot_be_changed(self):
        with pytest.raises(ValueError, match="read-only"):
            landscape([1.0]).values[0] = 2.0


# What can be written, drawn at random.

finite = st.floats(allow_nan=False, allow_infinity=False)
seconds = st.floats(0, 1e6, allow_subnormal=False)
# Surrogates cannot be written as UTF-8; "\x00" cannot be read by Python 3.10's csv.
words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=12)
names = words.filter(lambda s: s.strip() == s != "")
scalars = st.one_of(st.integers(-(2**53), 2**53), st.booleans(), finite, words, st.none())
problems = st.dictionaries(
    words, st.one_of(scalars, st.lists(st.integers(0, 2**31), max_size=3)), max_size=3
)
devices = st.one_of(
    st.sampled_from(["NVIDIA H100", "AMD MI300X", "NVIDIA A100"]).map(lookup),
    st.builds(Device, name=names, sms=st.none() | st.integers(1, 999)),
)
fact_names = st.sampled_from(["registers", "spills", "shared_bytes", "note"])
facts = st.dictionaries(fact_names, st.one_of(st.integers(0, 2**40), finite, words), max_size=3)
measurement_fields = {
    "compile_s": st.none() | seconds,
    "cost_s": seconds,
    "low": st.none() | finite,
    "high": st.none() | finite,
    "samples": st.lists(finite, max_size=3).map(tuple),
    "facts": facts,
    "state": st.dictionaries(words, words, max_size=2),
}
measurements = st.one_of(
    st.builds(Measurement, status=st.just("ok"), value=finite, **measurement_fields),
    st.builds(
        Measurement,
        status=st.sampled_from([s for s in Status if s is not Status.OK]),
        reason=names,
        **measurement_fields,
    ),
)


@st.composite
def landscapes(draw, max_size=3, *, metric=None):
    task = Task(
        kernel=draw(names),
        device=draw(devices),
        problem=draw(problems),
        source=draw(words),
        language=draw(st.sampled_from(["triton", "cuda", "onnx"])),
        metric=metric or draw(st.sampled_from(["time_ms", "accuracy"])),
        minimize=True if metric else draw(st.booleans()),
        versions=draw(st.dictionaries(words, words, max_size=2)),
    )
    parameters = draw(st.lists(st.sampled_from(["BM", "BN", "num_warps", "λ"]), unique=True))
    configs = draw(
        st.lists(st.fixed_dictionaries({p: scalars for p in parameters}), max_size=max_size)
    )
    pairs = {Candidate(c, draw(words)): draw(measurements) for c in configs}
    return Landscape(task, tuple(pairs), tuple(pairs.values()), id=draw(names))


# Explaining and shrinking these large examples takes minutes and tells little.
quick = settings(max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])


class TestRoundTrip:
    @quick
    @given(found=st.lists(landscapes(), max_size=3, unique_by=lambda x: x.id))
    @pytest.mark.parametrize("name", ["l.csv", "l.csv.gz", "l.jsonl"])
    def test_exact(self, tmp_path_factory, name, found):
        path = tmp_path_factory.getbasetemp() / name
        found = [item for item in found if len(item) or name == "l.jsonl"]
        assert write_landscapes(path, found) == [path]
        assert read_landscapes(path) == found

    @quick
    @given(found=landscapes())
    def test_t4(self, tmp_path_factory, found):
        path = tmp_path_factory.getbasetemp() / "l.json"
        write_landscapes(path, [found], "t4")
        (back,) = read_landscapes(path)
        close(back, found)

    @quick
    @given(found=landscapes())
    def test_kernel_tuner(self, tmp_path_factory, found):
        path = tmp_path_factory.getbasetemp() / "l.json"
        names = list(found.candidates[0].config) if len(found) else []
        keys = {",".join(str(c.config[n]) for n in names) for c in found.candidates}
        if len(keys) < len(found):  # 1 and "1", or the same with another text
            with pytest.raises(ValueError, match="write csv, t4 or jsonl"):
                write_landscapes(path, [found], "kernel-tuner")
            return
        write_landscapes(path, [found], "kernel-tuner")
        (back,) = read_landscapes(path)
        close(back, found)

    def test_several_make_a_folder(self, tmp_path):
        found = [
            Landscape(Task(kernel=k, device=lookup("A100")), (Candidate({"B": 1}),), (OK,), id=i)
            for k, i in [("a", "a/x"), ("b", "a x"), ("c", "c")]
        ]
        written = write_landscapes(tmp_path / "all", found, "t4")
        assert len(set(written)) == 3
        assert sorted(x.id for x in read_landscapes(tmp_path / "all")) == ["a x", "a/x", "c"]

    def test_written_whole_or_not_at_all(self, tmp_path):
        path = tmp_path / "l.jsonl"
        found = landscape([1.0])
        write_landscapes(path, [found])
        with pytest.raises(ValueError, match="appears twice"):
            write_landscapes(path, [found, found])
        assert read_landscapes(path) == [found]
        assert [p.name for p in tmp_path.iterdir()] == ["l.jsonl"]


OK = Measurement(status="ok", value=1.5)


class TestFace:
    def test_format_must_be_known(self, tmp_path):
        with pytest.raises(
            ValueError, match="csv, jsonl, kernel-tuner, t4, ktt, triton, got 'xml'"
        ):
            read_landscapes(tmp_path / "x", "xml")
        with pytest.raises(ValueError, match="format must be given"):
            write_landscapes(tmp_path / "x.json", [])

    def test_json_of_another_kind(self, tmp_path):
        path = tmp_path / "x.json"
        path.write_text('{"hello": 1}')
        with pytest.raises(ValueError, match="without 'cache'"):
            read_landscapes(path)

    def test_content_tells_where_the_name_does_not(self, tmp_path):
        found = landscape([1.0])
        for name in ("l.csv", "l.jsonl"):
            write_landscapes(tmp_path / name, [found])
            (tmp_path / name).rename(tmp_path / "plain")
            assert read_landscapes(tmp_path / "plain") == [found]

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            read_landscapes(tmp_path / "none.csv")


@pytest.mark.skipif(not DATA.is_dir(), reason="no recorded data beside the checkout")
def test_recorded_data_survives_a_round_trip(tmp_path):
    found = read_landscapes(DATA / "hub_convolution.csv.gz")
    assert [len(x) for x in found] == [4362] * 4
    write_landscapes(tmp_path / "x.csv.gz", found)
    assert read_landscapes(tmp_path / "x.csv.gz") == found


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl"])
def test_facts_of_the_first_ir_are_kept(tmp_path, suffix):
    candidate = Candidate({"BLOCK": 64}, facts={"waves": 1 / 3, "registers": 40.0})
    task = Task(kernel="k", device=Device(name="some device"))
    measured = Measurement(status="ok", value=1.0)
    file = tmp_path / f"record{suffix}"
    write_landscapes(file, [Landscape(task, (candidate,), (measured,))])
    (found,) = read_landscapes(file)[0].candidates
    assert found == candidate
    assert found.facts == pytest.approx(dict(candidate.facts), rel=1e-5)
