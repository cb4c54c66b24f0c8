"""``autotune-rlm store`` and the files it writes and reads."""

import json

import pytest
from typer.testing import CliRunner

from autotune_rlm.cli import app
from autotune_rlm.landscapes import read_landscapes
from autotune_rlm.store import Store, export_store, import_file
from autotune_rlm.types import Candidate, Device, Measurement, Task

run = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})


def task(kernel, m):
    return Task(kernel=kernel, device=Device(name="NVIDIA H100"), problem={"M": m}, source="def k")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        for kernel, m in [("matmul", 64), ("matmul", 128), ("softmax", 64)]:
            for i in range(4):
                value = Measurement(status="ok", value=i + 1.0, compile_s=0.5)
                store.add(task(kernel, m), Candidate({"BLOCK": 16 << i}), value)
            failed = Measurement(status="timeout", reason="too slow")
            store.add(task(kernel, m), Candidate({"BLOCK": 256}), failed)
        store.add_event({"task_key": task("matmul", 64).key, "kernel": "matmul", "device": "d"})
    return path


def invoke(*args, code=0):
    result = run.invoke(app, ["store", *map(str, args)])
    assert result.exit_code == code, result.output
    return result.output


def test_info(path):
    out = invoke("info", "--store", path)
    assert "15 (12 ok, 3 timeout)" in out
    assert str(path) in out
    assert "NVIDIA H100" in out
    assert "softmax" in out


def test_info_of_an_empty_store(tmp_path):
    assert "Nothing measured yet" in invoke("info", "--store", tmp_path / "new.sqlite")


@pytest.mark.parametrize(
    ("name", "format"),
    [("x.csv.gz", None), ("x.jsonl", None), ("folder", "t4"), ("folder", "kernel-tuner")],
)
def test_export_and_import_lose_nothing(path, tmp_path, name, format):
    options = ["--format", format] if format else []
    out = invoke("export", tmp_path / name, *options, "--store", path)
    assert "wrote 15 measurements" in out
    new = tmp_path / "new.sqlite"
    assert "added 15 measurements" in invoke("import", tmp_path / name, "--store", new)
    with Store(path) as before, Store(new) as after:
        assert {x.task for x in after.landscapes()} == {x.task for x in before.landscapes()}
        for t in before.tasks():
            known = {o.candidate: o.measurement.value for o in before.observations(t)}
            assert {o.candidate: o.measurement.value for o in after.observations(t)} == known


def test_import_twice_adds_nothing(path, tmp_path):
    file = tmp_path / "x.jsonl"
    with Store(path) as store:
        export_store(store, file)
        assert import_file(store, file) == (0, 15)
        assert store.info().n_events == 1


def test_jsonl_keeps_every_measurement_and_the_events(path, tmp_path):
    with Store(path) as store:
        store.add(task("matmul", 64), Candidate({"BLOCK": 16}), Measurement(status="ok", value=9.0))
        export_store(store, tmp_path / "x.jsonl")
    with Store(tmp_path / "new.sqlite") as new:
        assert import_file(new, tmp_path / "x.jsonl") == (16, 0)
        assert new.info().n_events == 1


def test_filters(path, tmp_path):
    invoke("export", tmp_path / "x.csv", "--kernel", "softmax", "--store", path)
    assert [x.task.kernel for x in read_landscapes(tmp_path / "x.csv")] == ["softmax"]
    invoke("clear", "--kernel", "softmax", "--yes", "--store", path)
    assert "10 (8 ok, 2 timeout)" in invoke("info", "--store", path)


def test_clear_asks(path):
    assert run.invoke(app, ["store", "clear", "--store", str(path)], input="n\n").exit_code == 1
    nothing = run.invoke(app, ["store", "clear", "--kernel", "no_such", "--store", str(path)])
    assert (nothing.exit_code, nothing.output[:9]) == (0, "deleted 0")
    assert "15 (" in invoke("info", "--store", path)
    assert run.invoke(app, ["store", "clear", "--store", str(path)], input="y\n").exit_code == 0
    assert "Nothing measured yet" in invoke("info", "--store", path)


def test_errors_are_one_line(path, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"nothing": 1}))
    assert "bad.json: line 1" in invoke("import", bad, "--store", path, code=1)
    assert "format must be given" in invoke("export", tmp_path / "x", "--store", path, code=1)
    (tmp_path / "junk").write_text("junk" * 999)
    assert "no store or is damaged" in invoke("info", "--store", tmp_path / "junk", code=1)
