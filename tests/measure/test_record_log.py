"""The record survives what may happen to it, and turns into landscapes."""

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_rlm.landscapes import read_landscapes
from autotune_rlm.record.log import RecordLog, convert, merge, read_record
from autotune_rlm.types import Candidate, Device, Measurement, Status, Task

TASK = Task(kernel="k", device=Device(name="d"), problem={"n": 1}, source="def k(): pass")


def ok(value, **fields):
    return Measurement(status=Status.OK, value=value, **fields)


def write(path, values, task=TASK, name="one"):
    with RecordLog(path) as log:
        log.open_landscape(name, task)
        for block, value in values.items():
            log.add(name, Candidate({"BLOCK": block}), ok(value))


@pytest.fixture(params=["r.jsonl", "r.jsonl.gz"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_what_is_written_is_read_again(path):
    facts = {"shared_bytes": 1024, "registers": 32}
    full = ok(1.5, low=1.4, high=1.6, samples=(1.5, 1.4, 1.6), facts=facts, compile_s=0.25)
    failed = Measurement(status=Status.OUT_OF_RESOURCES, reason="shared memory")
    with RecordLog(path) as log:
        log.note("started", seed=1)
        log.open_landscape("one", TASK)
        log.add("one", Candidate({"BLOCK": 1}), full)
        log.add("one", Candidate({"BLOCK": 2}), failed)
    (landscape,) = read_record(path)
    assert landscape.task == TASK
    assert landscape.measurements == (full, failed)
    assert read_landscapes(path)[0].measurements == (full, failed)


def test_a_record_is_gone_on_with(path):
    write(path, {1: 1.0})
    with RecordLog(path) as log:
        assert log.rows == 1
        assert log.done == {("one", Candidate({"BLOCK": 1}).key): 1.0}
        log.open_landscape("one", TASK)
        log.add("one", Candidate({"BLOCK": 2}), ok(2.0))
    (landscape,) = read_record(path)
    assert [m.value for m in landscape.measurements] == [1.0, 2.0]


@settings(max_examples=25)
@given(cut=st.integers(min_value=1, max_value=400), garbage=st.binary(max_size=40))
def test_a_torn_tail_costs_only_itself(tmp_path_factory, cut, garbage):
    path = tmp_path_factory.mktemp("torn") / "r.jsonl.gz"
    write(path, {1: 1.0})
    whole = path.stat().st_size
    write(path, {b: float(b) for b in range(2, 40)})
    data = path.read_bytes()
    torn = data[: max(whole, len(data) - cut)]
    path.write_bytes(torn + (garbage if len(torn) < len(data) else b""))
    (landscape,) = read_record(path)
    assert landscape.measurements[0].value == 1.0
    write(path, {99: 9.0})
    values = [m.value for m in next(iter(read_record(path))).measurements]
    assert values == [1.0, 9.0]
    assert gzip.decompress(path.read_bytes())


def test_kill_9_in_mid_recording_loses_at_most_what_was_not_flushed(path):
    script = textwrap.dedent(
        """
        import sys
        from autotune_rlm.record.log import RecordLog
        from autotune_rlm.types import *
        task = Task(kernel="k", device=Device(name="d"))
        with RecordLog(sys.argv[1]) as log:
            log.open_landscape("one", task)
            for n in range(10**9):
                log.add("one", Candidate({"n": n}), Measurement(status="ok", value=1.0))
                print(n, flush=True)
        """
    )
    run = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    for line in run.stdout:
        if int(line) >= 1000:
            break
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stdout.close()
    (landscape,) = read_record(path)
    assert len(landscape) >= 800
    with RecordLog(path) as log:
        assert log.rows == len(landscape)


def test_two_processes_cannot_write_one_record(path):
    with RecordLog(path), pytest.raises(BlockingIOError, match="another process"):
        RecordLog(path)


def test_another_task_under_the_same_name_is_refused(path):
    write(path, {1: 1.0})
    other = Task(kernel="k", device=Device(name="d"), problem={"n": 2})
    with RecordLog(path) as log, pytest.raises(ValueError, match="another version"):
        log.open_landscape("one", other)


def test_records_are_merged_without_repeats(tmp_path):
    write(tmp_path / "a.jsonl", {1: 1.0, 2: 2.0})
    write(tmp_path / "b.jsonl.gz", {2: 2.5, 3: 3.0})
    write(tmp_path / "c.jsonl", {1: 7.0}, name="two")
    assert merge([tmp_path / "b.jsonl.gz", tmp_path / "c.jsonl"], tmp_path / "a.jsonl") == 2
    one, two = read_record(tmp_path / "a.jsonl")
    assert [m.value for m in one.measurements] == [1.0, 2.0, 3.0]
    assert (two.id, [m.value for m in two.measurements]) == ("two", [7.0])


def test_a_csv_is_merged_back_into_a_record(tmp_path):
    write(tmp_path / "a.jsonl", {1: 1.0, 2: 2.0})
    assert convert([tmp_path / "a.jsonl"], tmp_path / "a.csv.gz") == 2
    assert merge([tmp_path / "a.csv.gz"], tmp_path / "b.jsonl.gz") == 2
    with RecordLog(tmp_path / "b.jsonl.gz") as log:
        log.open_landscape("one", TASK)
        assert set(log.done.values()) == {1.0, 2.0}


def test_a_measurement_that_worked_goes_before_one_that_did_not(tmp_path):
    path = tmp_path / "a.jsonl"
    with RecordLog(path) as log:
        log.open_landscape("one", TASK)
        log.add("one", Candidate({"n": 1}), Measurement(status=Status.TIMEOUT))
        log.add("one", Candidate({"n": 1}), ok(3.0))
        log.add("one", Candidate({"n": 1}), ok(4.0))
    (landscape,) = read_record(path)
    assert [m.value for m in landscape.measurements] == [3.0]


def test_the_size_is_limited(tmp_path):
    with RecordLog(tmp_path / "a.jsonl", max_bytes=100_000) as log:
        log.open_landscape("one", TASK)
        for n in range(100_000):
            log.add("one", Candidate({"n": n}), ok(1.0))
            if log.full:
                break
    assert (tmp_path / "a.jsonl").stat().st_size < 100_000


def test_rows_reach_the_disk_within_seconds(tmp_path):
    path = tmp_path / "a.jsonl"
    with RecordLog(path) as log:
        log.open_landscape("one", TASK)
        log.flush()
        time.sleep(2.1)
        log.add("one", Candidate({"n": 1}), ok(1.0))
        assert '"n":1' in path.read_text()


@pytest.mark.parametrize("text", ["not json\n", '{"measurement": {}}\n', "[1]\n", "7\n"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a\.jsonl"):
        RecordLog(path)
    assert path.read_text() == text
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(b"plain text")
    with pytest.raises(ValueError, match="not a gzip file"):
        RecordLog(packed)


def test_lines_are_compact(tmp_path):
    path = tmp_path / "a.jsonl"
    with RecordLog(path) as log:
        log.open_landscape("one", TASK)
        log.add("one", Candidate({"n": 1}), ok(1.23456789))
    row = json.loads(path.read_text().splitlines()[-1])
    assert row["measurement"] == {"status": "ok", "value": 1.2346}
