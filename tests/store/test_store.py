"""The store: what was measured, noted and logged comes back."""

import json
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_support import FAILED, A, B, ok, python, task

from autotune_rlm.store import Store, StoreError
from autotune_rlm.store.accuracy import PredictedVsMeasured, TuningEvent
from autotune_rlm.types import Candidate, Device, Measurement, Status


class TestMeasurements:
    def test_what_is_added_is_there_for_everyone(self, store, path):
        measured = ok(1.5, samples=(1.4, 1.6), facts={"registers": 32}, state={"driver": "1"})
        store.add(task(), A, measured)
        for reader in (store, Store(path)):
            (found,) = reader.observations(task())
            assert (found.candidate, found.measurement) == (A, measured)
        assert store.observations(task(2048)) == []

    def test_another_process_is_seen_through_the_cache(self, store, path):
        store.add(task(), A, ok(1.0))
        assert len(store.observations(task())) == 1
        process = python("Store(sys.argv[1]).add(task(), Candidate({'B': 1}), ok(2.0))", path)
        assert process.wait() == 0
        assert len(store.observations(task())) == 2

    def test_the_newest_ok_counts_and_all_are_kept(self, store):
        for measurement in (ok(1.0), ok(2.0), FAILED):
            store.add(task(), A, measurement)
        store.add(task(), B, FAILED)
        found = store.observations(task())
        assert [o.candidate for o in found] == [A, B]
        assert [o.measurement.value for o in found] == [2.0, None]
        assert len(store.observations(task(), every=True)) == 4

    @settings(max_examples=25)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=3),
        )
    )
    def test_any_json_survives(self, value):
        if isinstance(value, float) and abs(value) == float("inf"):
            value = 0.0
        with Store(":memory:") as store:
            fact = json.loads(json.dumps(value).replace("Infinity", "1e3"))
            odd = Candidate({"x": 1}, text="\ud800 \x00 λ")
            store.add(task(), odd, ok(1.0, facts={"fact": fact}))
            (found,) = store.observations(task())
            assert found.measurement.facts == {"fact": fact}
            assert found.candidate == odd

    def test_nan_becomes_null(self, store):
        store.add(task(), A, ok(1.0, facts={"x": float("nan")}, samples=(1.0,)))
        assert store.observations(task())[0].measurement.facts == {"x": None}

    def test_add_many_is_quick_and_whole(self, store):
        items = [(task(i % 7), Candidate({"B": i}), ok(i + 1.0)) for i in range(5000)]
        assert store.add_many(items) == 5000
        assert sum(len(store.observations(task(m))) for m in range(7)) == 5000
        assert store.info().n_measurements == {"ok": 5000}

    def test_rows_that_cannot_be_read_are_passed_over(self, store, path, caplog):
        store.add(task(), A, ok(1.0))
        store.add(task(), B, ok(2.0))
        with sqlite3.connect(path) as raw:
            raw.execute("UPDATE measurements SET measurement = 'garbage' WHERE value = 1.0")
        with Store(path) as again:
            assert [o.candidate for o in again.observations(task())] == [B]
        assert "cannot be read" in caplog.text


class TestTasks:
    def test_filters(self, store):
        other = Device(name="AMD MI300X", sms=304)
        for t in (task(1), task(2, kernel="softmax"), task(3, device=other)):
            store.add(t, A, ok(1.0))
        assert store.tasks(kernel="matmul") == [task(1), task(3, device=other)]
        assert store.tasks(device="AMD MI300X")[0].device.sms == 304
        assert len(store.tasks()) == 3

    def test_landscapes(self, store):
        store.add(task(), A, ok(1.0))
        store.add(task(), B, FAILED)
        (found,) = store.landscapes(kernel="matmul")
        assert found.task == task()
        assert found.ok.tolist() == [True, False]


class TestEventsAndRequests:
    def event(self, t, when="2026-01-02T03:04:05+00:00", **fields):
        point = PredictedVsMeasured(
            config=A.config, median=1.0, low=0.5, high=2.0, p_valid=0.9, status="ok", value=1.1
        )
        fields = {"n_candidates": 9, "points": (point,), "when": when} | fields
        return TuningEvent(task_key=t.key, kernel=t.kernel, device=t.device.name, **fields)

    def test_events_in_order_of_time(self, store):
        late = self.event(task(1), "2026-01-03T00:00:00+00:00", spearman=float("nan"))
        early = self.event(task(2, kernel="softmax"))
        store.add_event(late)
        store.add_event(early)
        assert store.events()[0] == early
        assert store.events(task=task(2, kernel="softmax")) == [early]
        assert store.events(kernel="matmul")[0].spearman is None
        assert store.events(device="nothing") == []

    def test_requests_by_use(self, store):
        for t, n in [(task(1), 1), (task(2), 3), (task(3), 2)]:
            for _ in range(n):
                store.note_request(t, [A.to_json(), B])
        found = store.requests()
        assert [(r.task.problem["M"], r.uses) for r in found] == [(2, 3), (3, 2), (1, 1)]
        assert found[0].candidates == (A, B)
        store.drop_request(task(2))
        assert [r.task for r in store.requests()] == [task(3), task(1)]

    def test_clear_by_kernel(self, store):
        for t in (task(1), task(2, kernel="softmax")):
            store.add(t, A, ok(1.0))
            store.add_event(self.event(t))
            store.note_request(t, [A])
        assert store.clear(kernel="softmax") == 1
        assert [t.kernel for t in store.tasks()] == ["matmul"]
        assert len(store.events()) == len(store.requests()) == 1
        assert store.clear() == 1
        assert (store.info().n_tasks, store.info().n_events, store.observations(task(1))) == (
            0,
            0,
            [],
        )


class TestWhere:
    def test_environment_names_the_default(self, tmp_path, monkeypatch):
        monkeypatch.setenv("AUTOTUNE_RLM_STORE", str(tmp_path / "e.sqlite"))
        with Store() as store:
            assert store.info().name == str(tmp_path / "e.sqlite")

    def test_url(self, tmp_path):
        with Store(f"sqlite:///{tmp_path}/u.sqlite") as store:
            store.add(task(), A, ok(1.0))
        assert (tmp_path / "u.sqlite").exists()

    def test_bad_url(self):
        with pytest.raises(StoreError, match="cannot open nonsense://x"):
            Store("nonsense://x")

    def test_no_server_hides_the_password(self):
        pytest.importorskip("psycopg")
        with pytest.raises(StoreError, match="cannot open the store") as error:
            Store("postgresql://me:secret@127.0.0.1:1/x")
        assert "secret" not in str(error.value)


def test_status_of_every_kind_is_kept(store):
    for i, status in enumerate(s for s in Status if s is not Status.OK):
        store.add(task(), Candidate({"i": i}), Measurement(status=status, reason="why"))
    assert {o.measurement.status for o in store.observations(task())} == set(Status) - {Status.OK}
