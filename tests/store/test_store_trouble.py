"""Stores that fail: a launch's store never raises, never hangs, and forgets nothing of this process."""

import logging
import os
import socket
import sqlite3
import stat
import time

import pytest

from autotune_rlm.store import Store, StoreError, _database, _engine
from autotune_rlm.types import Candidate, Device, Measurement, Task


def task(m=1024):
    return Task(kernel="matmul", device=Device(name="NVIDIA H100"), problem={"M": m})


def ok(value):
    return Measurement(status="ok", value=value)


A, B = (Candidate({"BLOCK": n}) for n in (16, 32))


def newer(folder):
    path = folder / "store.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("update autotune_rlm_meta set value = '99' where key = 'schema_version'")
    return path


def garbage(folder):
    path = folder / "store.sqlite"
    path.write_bytes(b"x" * 5000)
    return path


def damaged(folder):
    path = folder / "store.sqlite"
    with Store(path) as store:
        for i in range(200):
            store.add(task(i), A, ok(1.0))
    content = bytearray(path.read_bytes())
    content[100:] = os.urandom(len(content) - 100)
    path.write_bytes(content)
    return path


def a_folder(folder):
    return folder


def nowhere(folder):
    (folder / "file").write_text("")
    return folder / "file" / "store.sqlite"


def unknown_driver(folder):
    return f"nosuchdatabase://me@localhost/{folder}"


def no_url(folder):
    return f"postgresql://me:secret@[half/{folder}"


def nobody_listens(folder):
    return f"postgresql://me@127.0.0.1:1/{folder.name}"


BROKEN = [newer, garbage, damaged, a_folder, nowhere, unknown_driver, no_url, nobody_listens]


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_store_that_cannot_be_opened_is_one_warning_and_everything_in_memory(
    broken, tmp_path, caplog
):
    if broken is nobody_listens:
        pytest.importorskip("psycopg")
    where = broken(tmp_path)
    with pytest.raises(StoreError):
        Store(where)
    caplog.clear()
    store = Store(where, fallback=True)
    for m in (1024, 2048):
        store.add(task(m), A, ok(1.0))
        store.add(task(m), B, ok(2.0))
        store.note_request(task(m), [A, B])
    store.add_event({"kernel": "matmul", "task_key": task().key, "device": "NVIDIA H100"})
    assert [o.measurement.value for o in store.observations(task())] == [1.0, 2.0]
    assert store.nearest(task(4096))[0][0] == task(2048)
    assert len(store.requests()) == 2
    assert len(store.events()) == 1
    store.drop_request(task())
    assert not store.info().persistent
    store.close()
    assert len(warnings(caplog)) == 1
    assert "in memory" in warnings(caplog)[0]
    assert "secret" not in warnings(caplog)[0]


def test_the_variable_too_may_name_a_broken_store(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("AUTOTUNE_RLM_STORE", str(garbage(tmp_path)))
    with pytest.raises(StoreError):
        Store()
    caplog.clear()
    store = Store(fallback=True)
    store.add(task(), A, ok(1.0))
    assert len(store.observations(task())) == 1
    assert len(warnings(caplog)) == 1


def test_what_was_measured_meanwhile_is_written_once_the_place_is_there(tmp_path, monkeypatch):
    path = nowhere(tmp_path)
    store = Store(path, fallback=True)
    store.add(task(), A, ok(1.0))
    path.parent.unlink()
    store.add(task(), B, ok(2.0))  # within the minute
    assert not path.exists()
    monkeypatch.setattr(store._database, "_retry_at", 0.0)
    store.add(task(2), A, ok(3.0))
    assert store.info().persistent
    assert len(store.observations(task())) == 2
    with Store(path) as other:
        assert len(other.observations(task())) == 2
        assert len(other.observations(task(2))) == 1


def test_a_program_that_ends_tries_once_more(tmp_path):
    path = nowhere(tmp_path)
    store = Store(path, fallback=True)
    store.add(task(), A, ok(1.0))
    path.parent.unlink()
    store.close()
    with Store(path) as other:
        assert len(other.observations(task())) == 1


def test_a_server_that_accepts_and_says_nothing_costs_seconds_once(monkeypatch, caplog):
    pytest.importorskip("psycopg")
    monkeypatch.setattr(_engine, "SERVER_S", 1.0)
    monkeypatch.setattr(_database, "SERVER_S", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        begin = time.monotonic()
        store = Store(f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/x", fallback=True)
        assert time.monotonic() - begin < 30
        monkeypatch.setattr(store._database, "_connect", None)  # it is not asked again
        store.add(task(), A, ok(1.0))
        assert len(store.observations(task())) == 1
    assert len(warnings(caplog)) == 1


def test_a_file_that_is_damaged_while_it_is_open_is_one_warning(tmp_path, caplog):
    path = tmp_path / "store.sqlite"
    store = Store(path)
    for i in range(200):
        store.add(task(i), A, ok(1.0))
    store._database._engine.dispose()
    for file in tmp_path.iterdir():
        file.write_bytes(os.urandom(5000))
    for i in range(5):
        store.add(task(1000 + i), A, ok(1.0))
        assert len(store.observations(task(1000 + i))) == 1
        store.nearest(task(7))
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("own", [True, False])
def test_files_and_folders_belong_to_the_user(tmp_path, monkeypatch, own):
    before = os.umask(0)
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.delenv("AUTOTUNE_RLM_STORE", raising=False)
        folder = tmp_path / "autotune_rlm"
        store = Store() if own else Store(folder / "store.sqlite")
        store.add(task(), A, ok(1.0))
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert files
    assert set(files.values()) == {0o600}


def test_a_team_may_open_its_file_to_others(tmp_path):
    path = tmp_path / "team.sqlite"
    Store(path).close()
    path.chmod(0o660)
    Store(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
