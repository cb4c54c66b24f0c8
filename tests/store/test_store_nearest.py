"""What a store knows of other problems."""

import random
import re
import sqlite3

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from store_support import FAILED, GPU, A, B, C, ok, task

from autotune_rlm.store import Recall, Store, export_store, import_file, problem_distance
from autotune_rlm.types import Device, Measurement, Task


class TestNearest:
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

    def test_of_a_candidate_measured_again_the_newest_value_counts(self, store):
        store.add_many(
            [
                (task(2), A, ok(1.0)),
                (task(2), B, ok(2.0)),
                (task(2), A, ok(3.0)),
                (task(2), B, FAILED),
            ]
        )
        (found,) = store.nearest(task(1))
        assert (found[1].candidate, found[1].measurement.value) == (B, 2.0)

    def test_two_statements_find_the_best_of_any_number(self, store):
        for m in range(2, 40):
            store.add_many([(task(m), A, ok(1.0)), (task(m), B, ok(2.0))])
        asked = []
        engine = store._database._engine
        sa.event.listen(engine, "before_cursor_execute", lambda *a: asked.append(a[2]))
        assert store.near_best(task(1)) == [A] * 8
        assert len([text for text in asked if text.startswith("SELECT")]) <= 2

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
