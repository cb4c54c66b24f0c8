"""Files that are damaged, read-only or of other versions."""

import logging
import os
import sqlite3
import tempfile
import threading
from pathlib import Path

import pytest
from store_support import FAILED, A, B, ok, python, task

from autotune_rlm.store import Store, StoreError, _engine, _schema


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
