"""The store: nothing measured is lost, by whoever and whatever happens."""

import json
import logging
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_rlm.store import (
    Recall,
    Store,
    StoreError,
    _engine,
    _schema,
    export_store,
    import_file,
    problem_distance,
)
from autotune_rlm.store.accuracy import PredictedVsMeasured, TuningEvent
from autotune_rlm.types import Candidate, Device, Measurement, Status, Task

GPU = Device(name="NVIDIA H100")


def task(m=1024, *, kernel="matmul", device=GPU, **fields):
    return Task(kernel=kernel, device=device, problem={"M": m, "dtype": "fp16"}, **fields)


def ok(value, **fields):
    return Measurement(status="ok", value=value, **fields)


FAILED = Measurement(status="compile_error", reason="out of registers")
A, B, C = (Candidate({"BLOCK": n, "num_warps": 4}) for n in (16, 32, 64))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "store.sqlite"


@pytest.fixture
def store(path):
    with Store(path) as opened:
        yield opened


def python(code, *args, **options):
    """Start a process that runs ``code`` with the names of this module's setting."""
    setting = """
        import sys, threading, time
        from autotune_rlm.store import Store
        from autotune_rlm.types import Candidate, Device, Measurement, Task
        def task(m=1024):
            problem = {"M": m, "dtype": "fp16"}
            return Task(kernel="matmul", device=Device(name="NVIDIA H100"), problem=problem)
        def ok(value): return Measurement(status="ok", value=value)
    """
    text = textwrap.dedent(setting) + textwrap.dedent(code)
    command = [sys.executable, "-c", text, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


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

    @settings(deadline=None, max_examples=25)
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

    def test_nearest(self, store):
        for m, value in [(128, 1.0), (1024, 2.0), (4096, 3.0)]:
            store.add(task(m), A, ok(value))
            store.add(task(m), B, ok(value / 2))
            store.add(task(m), C, FAILED)
        (found,) = store.nearest(task(2000))
        assert found[0] == task(1024)
        assert (found[1].candidate, found[1].measurement.value) == (B, 1.0)
        assert [t.problem["M"] for t, _ in store.nearest(task(2000), 5)] == [1024, 4096, 128]
        assert [t.problem["M"] for t, _ in store.nearest(task(1024), 1)] == [4096]

    def test_nearest_of_the_same_kernel_and_device_only(self, store):
        store.add(task(1000, kernel="softmax"), A, ok(1.0))
        store.add(task(1000, device=Device(name="X")), A, ok(1.0))
        store.add(task(999, metric="energy_j"), A, ok(1.0))
        store.add(task(10**6), A, FAILED)
        assert store.nearest(task(1024)) == []
        assert store.nearest(task(1024), same_device=False)[0][0].device.name == "X"

    def test_the_best_of_near_problems_and_devices(self, store):
        for m, device, candidate in (
            (1024, "NVIDIA H200", A),  # 0.3 away
            (2048, GPU.name, B),  # 1 away
            (1024, "NVIDIA T4", C),  # 7 away
        ):
            store.add(task(m, device=Device(name=device)), candidate, ok(1.0))
        assert store.near_best(task(1024)) == [A, B, C]
        assert store.near_best(task(1024), 1) == [A]

    def test_the_own_device_is_found_among_many_others(self, store):
        for i in range(100):
            store.add(task(1024, device=Device(name=f"other {i}")), A, ok(1.0))
        store.add(task(4096), B, ok(1.0))
        assert store.near_best(task(1024), 1) == [B]

    def test_nearest_knows_a_renamed_kernel_by_its_source(self, store):
        store.add(task(1, kernel="old", source="body"), A, ok(1.0))
        assert store.nearest(task(2, kernel="new", source="body"))[0][0].kernel == "old"

    def test_nearest_maximizes_where_larger_is_better(self, store):
        more = {"metric": "tflops", "minimize": False}
        store.add(task(1, **more), A, ok(1.0))
        store.add(task(1, **more), B, ok(2.0))
        assert store.nearest(task(2, **more))[0][1].candidate == B

    def test_nearest_k_is_checked(self, store):
        with pytest.raises(ValueError, match="k must be at least 1, got 0"):
            store.nearest(task(), 0)


def launched(n, rows=64, **fields):
    """A task as the decorator makes it: what has to be equal is told apart by ``like``."""
    problem = {"n": n, "x": {"dtype": "fp16", "shape": [rows, n], "strides": [n, 1]}}
    fields = {"like": "same", "binary": "one", **fields}
    return Task(kernel="norm", device=GPU, problem=problem, **fields)


class TestRecall:
    def test_of_nothing(self, store):
        found = store.recall(launched(16))
        assert (found.own, found.failed, found.alike, found.has_near) == ((), (), (), False)

    def test_own_observations(self, store):
        store.add(launched(16), A, ok(1.0))
        found = store.recall(launched(16))
        assert [o.candidate for o in found.own] == [A]
        assert (found.alike, found.has_near) == ((), False)

    def test_a_choice_is_taken_over_between_close_sizes_the_nearest_first(self, store):
        for n in (16, 40_000, 60_000, 10**6):
            store.add(launched(n), A, ok(float(n)))
        found = store.recall(launched(65_536))
        assert [t.problem["n"] for t, _ in found.alike] == [60_000, 40_000]
        assert found.alike[0][1][0].measurement.value == 60_000
        assert found.has_near
        assert store.recall(launched(200)).alike == ()
        assert store.recall(launched(17)).alike[0][0].problem["n"] == 16

    def test_not_where_something_else_differs(self, store):
        store.add(launched(1000), A, ok(1.0))
        assert len(store.recall(launched(1001)).alike) == 1
        assert store.recall(launched(1001, like="other")).alike == ()
        assert store.recall(launched(1001, like="")).alike == ()
        assert store.recall(launched(1001, rows=1000)).alike == ()
        assert store.recall(launched(1001, metric="energy_j")).alike == ()

    def test_failures_of_equal_binaries(self, store):
        other = launched(10**6, like="")
        store.add(other, A, FAILED)
        store.add(other, B, Measurement(status="timeout", reason="of this launch"))
        store.add(other, C, ok(1.0))
        assert [o.candidate for o in store.recall(launched(16)).failed] == [A]
        assert store.recall(launched(16, binary="two")).failed == ()
        assert store.recall(launched(16, binary="")).failed == ()

    def test_what_waits_in_memory_counts(self, path):
        Store(path).close()
        with Store(path, read_only=True) as store:
            store.add(launched(1000), A, ok(1.0))
            store.add(launched(1000), B, FAILED)
            found = store.recall(launched(1001))
        assert found.alike[0][0] == launched(1000)
        assert found.has_near
        assert [o.candidate for o in found.failed] == [B]

    def test_cleared_is_forgotten(self, store):
        store.add(launched(1000), A, ok(1.0))
        store.add(launched(1000), B, FAILED)
        store.clear(kernel="norm")
        assert store.recall(launched(1001)) == Recall()
        store.add(launched(1000), A, ok(1.0))
        assert store.recall(launched(1001)).alike

    def test_marks_survive_a_round_trip(self, store, tmp_path):
        store.add(launched(1000), A, ok(1.0))
        store.add(launched(1000), B, FAILED)
        export_store(store, tmp_path / "all.jsonl")
        with Store(tmp_path / "other.sqlite") as other:
            import_file(other, tmp_path / "all.jsonl")
            found = other.recall(launched(1001))
        assert found.alike
        assert found.failed

    @pytest.mark.parametrize("known", [0, 3, 3000])
    def test_a_new_key_costs_the_same_however_many_are_known(self, store, known):
        items = [(launched(100 + i, rows=1 + i % 50), A, ok(1.0)) for i in range(known)]
        store.add_many(items)
        asked, fetched = [], []

        def note(connection, cursor, statement, parameters, context, many):
            asked.append((statement, parameters))

        engine = store._database._engine
        sa.event.listen(engine, "before_cursor_execute", note)
        found = store.recall(launched(50_000))
        sa.event.remove(engine, "before_cursor_execute", note)
        assert found.own == ()
        assert len([s for s, _ in asked if "places" in s]) == 1
        assert len([s for s, _ in asked if s.startswith("SELECT")]) <= 7
        with sqlite3.connect(store.info().name) as raw:
            for statement, parameters in asked:
                if statement.startswith("SELECT"):
                    plan = raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
                    tables = "measurements|tasks|places|problems"
                    assert not [row for row in plan if re.search(f"SCAN ({tables})", row[3])]
                    fetched.append(len(raw.execute(statement, parameters).fetchall()))
        assert sum(fetched) <= 4 * 2 * 8 + 4

    def test_among_many_the_nearest_are_near(self, store):
        rng = random.Random(0)
        sizes = [tuple(2 ** rng.uniform(4, 14) for _ in range(3)) for _ in range(2000)]
        known = [Task(kernel="mm", device=GPU, problem=problem_of(*s)) for s in sizes[:1900]]
        store.add_many([(t, A, ok(1.0)) for t in known])
        excess = []
        for asked in sizes[1900:]:
            new = Task(kernel="mm", device=GPU, problem=problem_of(*asked))
            found = problem_distance(new.problem, store.nearest(new)[0][0].problem)
            best = min(problem_distance(new.problem, t.problem) for t in known)
            excess.append(found / best)
        assert sorted(excess)[50] < 1.1
        assert sorted(excess)[95] < 2.0


def problem_of(m, n, k):
    m, n, k = int(m), int(n), int(k)
    return {"M": m, "N": n, "K": k, "a": {"dtype": "fp16", "shape": [m, k], "strides": [k, 1]}}


class TestDistance:
    @given(st.integers(0, 10**9), st.integers(0, 10**9))
    def test_symmetric_and_zero_for_equals(self, m, n):
        a, b = {"M": m, "t": {"shape": [m, n]}}, {"M": n, "t": {"shape": [n, m]}}
        assert problem_distance(a, b) == problem_distance(b, a)
        assert problem_distance(a, a) == 0.0

    def test_order(self):
        base = {"M": 1024, "dtype": "fp16"}
        double = problem_distance(base, {**base, "M": 2048})
        assert double == pytest.approx(1.0, abs=0.01)
        assert double < problem_distance(base, {**base, "dtype": "fp32"})
        assert problem_distance(base, {"M": 1024}) == 4.0
        assert problem_distance({"x": True}, {"x": 1}) == 4.0


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


class TestManyWriters:
    def test_four_processes_of_eight_threads_lose_nothing(self, path):
        code = """
            me = int(sys.argv[2])
            store = Store(sys.argv[1])
            def write(thread):
                for i in range(10):
                    name = {"process": me, "thread": thread, "i": i}
                    store.add(task(i % 3), Candidate(name), ok(1.0))
                    store.note_request(task(9), [Candidate(name)])
            threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
            [t.start() for t in threads]; [t.join() for t in threads]
        """
        processes = [python(code, path, n, stderr=subprocess.PIPE) for n in range(4)]
        for process in processes:
            _, errors = process.communicate()
            assert (process.returncode, errors) == (0, "")
        with Store(path) as store:
            keys = {o.candidate.key for m in range(3) for o in store.observations(task(m))}
            assert len(keys) == 4 * 8 * 10
            assert store.info().n_measurements == {"ok": 320}
            assert store.requests()[0].uses == 320

    def test_threads_share_one_store_in_memory(self):
        store = Store(":memory:")

        def write(n):
            for i in range(20):
                store.add(task(), Candidate({"n": n, "i": i}), ok(1.0))
                store.observations(task())

        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.observations(task())) == 160

    def test_killed_in_the_middle(self, path):
        code = """
            store = Store(sys.argv[1])
            for i in range(10**6):
                store.add(task(), Candidate({"i": i}), ok(1.0))
                print(i, flush=True)
        """
        process = python(code, path)
        said = [int(process.stdout.readline()) for _ in range(25)]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.stdout.read().split("\n")[:-1]]
        process.wait()
        with Store(path) as store:
            found = {o.candidate.config["i"] for o in store.observations(task())}
            assert set(said) <= found
            store.add(task(), A, ok(1.0))

    def test_forked_child_has_its_own_connections(self, store):
        store.add(task(), A, ok(1.0))
        child = os.fork()
        if child == 0:
            store.add(task(), B, ok(2.0))
            os._exit(0 if len(store.observations(task())) == 2 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        store.add(task(), C, ok(3.0))
        assert len(store.observations(task())) == 3


class TestTrouble:
    def test_a_lock_is_waited_for(self, store, path):
        raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        raw.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.5, lambda: raw.execute("COMMIT"))
        timer.start()
        store.add(task(), A, ok(1.0))
        assert store.info().n_measurements == {"ok": 1}
        timer.join()
        raw.close()

    def test_locked_for_long_goes_on_in_memory_and_writes_later(self, path, caplog, monkeypatch):
        monkeypatch.setattr(_engine, "BUSY_S", 0.1)
        store = Store(path)
        raw = sqlite3.connect(path, isolation_level=None)
        raw.execute("BEGIN IMMEDIATE")
        store.add(task(), A, ok(1.0))
        store.add(task(), B, ok(2.0))
        store.note_request(task(2), [A])
        assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [
            r.message for r in caplog.records if "stays in memory" in r.message
        ]
        assert len(caplog.records) == 1
        assert len(store.observations(task())) == 2
        assert store.tasks() == [task(), task(2)]
        assert store.nearest(task(3))[0][0] == task()
        assert store.requests()[0].task == task(2)
        assert store.info().n_waiting == 3
        raw.execute("COMMIT")
        raw.close()
        store.close()
        with Store(path) as again:
            assert len(again.observations(task())) == 2
            assert again.info().n_waiting == 0

    def test_disk_full(self, path):
        code = """
            import logging, resource
            logging.basicConfig(stream=sys.stdout, format="%(levelname)s")
            store = Store(sys.argv[1])
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
            for i in range(300):
                store.add(task(), Candidate({"i": i}, text="x" * 2000), ok(1.0))
            assert len(store.observations(task())) == 300, "what was measured must be known"
            assert store.info().n_waiting > 0, "the limit must have been hit"
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
            store.close()
        """
        process = python(code, path)
        out, _ = process.communicate()
        assert process.returncode == 0
        assert out.split() == ["WARNING"]
        with Store(path) as store:
            assert len(store.observations(task())) == 300

    def test_own_store_that_cannot_be_made_is_kept_in_memory(self, monkeypatch, caplog):
        monkeypatch.delenv("AUTOTUNE_RLM_STORE", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
        store = Store()
        store.add(task(), A, ok(1.0))
        assert len(store.observations(task())) == 1
        assert not store.info().persistent
        assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1

    def test_a_named_store_that_cannot_be_made_is_an_error(self):
        with pytest.raises(StoreError, match="cannot open the store /proc/nowhere"):
            Store("/proc/nowhere/store.sqlite")

    def test_damaged_file(self, tmp_path):
        path = tmp_path / "x.sqlite"
        path.write_bytes(b"this is no database, " * 100)
        with pytest.raises(StoreError, match="is no store or is damaged"):
            Store(path)

    def test_file_without_permission_is_read_and_the_rest_kept_in_memory(self, caplog):
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            path = Path(folder) / "store.sqlite"
            with Store(path) as store:
                store.add(task(), A, ok(1.0))
            os.chmod(path, 0o444)
            os.chmod(folder, 0o555)
            child = os.fork()
            if child == 0:  # root may write anywhere, so be nobody
                try:
                    if os.geteuid() == 0:
                        os.setgid(65534)
                        os.setuid(65534)
                    store = Store(path)
                    store.add(task(), B, ok(2.0))
                    good = len(store.observations(task())) == 2 and store.read_only
                    warned = [r for r in caplog.records if "stays in memory" in r.message]
                    os._exit(0 if good and len(warned) == 1 else 1)
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            os.chmod(folder, 0o755)


class TestReadOnly:
    def test_reads_and_keeps_what_is_added_for_this_process(self, store, path, caplog):
        store.add(task(), A, ok(1.0))
        with Store(path, read_only=True) as reader:
            reader.add(task(), B, ok(2.0))
            reader.add_event({"kernel": "k", "task_key": "x", "device": "d"})
            assert len(reader.observations(task())) == 2
            assert len(reader.events()) == 1
            with pytest.raises(StoreError, match="read-only"):
                reader.clear()
        assert len(store.observations(task())) == 1
        assert not caplog.records

    def test_there_must_be_a_store(self, path):
        with pytest.raises(StoreError, match="no store to read"):
            Store(path, read_only=True)


class TestVersions:
    def test_newer_is_refused(self, store, path):
        with sqlite3.connect(path) as raw:
            raw.execute("UPDATE autotune_rlm_meta SET value = '99'")
        with pytest.raises(StoreError, match=r"newer autotune_rlm: schema version 99.*upgrade"):
            Store(path)

    def test_older_is_migrated_once_by_many(self, path, monkeypatch):
        with Store(path) as store:
            store.add(task(), A, ok(1.0))
        step = "ALTER TABLE tasks ADD COLUMN note TEXT"
        now = _schema.VERSION
        monkeypatch.setattr(_schema, "VERSION", now + 1)
        monkeypatch.setattr(_schema, "MIGRATIONS", {now: (step,)})
        with pytest.raises(StoreError, match=f"needs {now + 1}; open it once without read_only"):
            Store(path, read_only=True)
        found = []
        threads = [threading.Thread(target=lambda: found.append(Store(path))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(s.observations(task())) for s in found] == [1] * 4
        with sqlite3.connect(path) as raw:
            assert "note" in [row[1] for row in raw.execute("PRAGMA table_info(tasks)")]

    def test_a_store_of_the_first_edition_is_indexed(self, path):
        with Store(path) as store:
            for m in (128, 1024):
                store.add(task(m), A, ok(1.0))
            store.add(task(2000), A, FAILED)
        with sqlite3.connect(path) as raw:
            raw.execute("DROP INDEX measurements_binary")
            raw.execute("ALTER TABLE measurements DROP COLUMN binary_key")
            raw.execute("DROP TABLE places")
            raw.execute("DROP TABLE problems")
            raw.execute("UPDATE autotune_rlm_meta SET value = '1'")
        with Store(path) as store:
            assert [t for t, _ in store.nearest(task(2001), 5)] == [task(1024), task(128)]
            store.add(task(4096), A, ok(1.0))
            assert store.nearest(task(4095))[0][0] == task(4096)

    def test_many_create_at_once(self, path):
        found, errors = [], []

        def make():
            try:
                found.append(Store(path))
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(found), errors) == (8, [])


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
