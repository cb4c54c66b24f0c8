"""The store on a real PostgreSQL server: ``AUTOTUNE_RLM_TEST_POSTGRES``, or a throwaway one."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

pytest.importorskip("psycopg")

from autotune_rlm.store import Store, _database
from autotune_rlm.types import Candidate, Device, Measurement, Task

TASK = Task(kernel="k", device=Device(name="d"), problem={"M": 1})


@pytest.fixture(scope="module")
def url():
    given = os.environ.get("AUTOTUNE_RLM_TEST_POSTGRES")
    if given:
        yield given
        return
    initdb, postgres = _binary("initdb"), _binary("postgres")
    if not (initdb and postgres):
        pytest.skip("no PostgreSQL: set AUTOTUNE_RLM_TEST_POSTGRES or install its binaries")
    # PostgreSQL refuses to run as root.
    names = [name for name in ("postgres", "nobody") if _known(name)]
    who = {"user": names[0]} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if who:
        shutil.chown(folder, names[0])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/", **who}
    data = folder / "data"
    subprocess.run(
        [initdb, "-D", data, "-U", "me", "-A", "trust", "--no-sync"], check=True, **quiet
    )
    options = ["-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1", "-F"]
    server = subprocess.Popen([postgres, *options], **quiet)
    try:
        _wait(port, server)
        yield f"postgresql://me@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # waits for no client
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _binary(name):
    """On the path, or where Debian's packages put it."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(debian[-1]) if debian else None)


def _known(name):
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _wait(port, server):
    import psycopg

    for _ in range(150):
        assert server.poll() is None, "PostgreSQL did not start"
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=me dbname=postgres").close()
            return
        except psycopg.OperationalError:
            time.sleep(0.2)
    raise AssertionError("PostgreSQL does not answer")


@pytest.fixture
def store(url):
    with Store(url) as opened:
        opened.clear()
        yield opened


def test_everything_works_there(store, url):
    odd = Candidate({"B": 1}, text="\x00 λ")
    store.add(TASK, odd, Measurement(status="ok", value=1.0, facts={"x": float("nan")}))
    store.add(TASK, odd, Measurement(status="timeout"))
    store.note_request(TASK, [odd])
    store.note_request(TASK, [odd])
    store.add_event({"task_key": TASK.key, "kernel": "k", "device": "d"})
    with Store(url) as other:
        (found,) = other.observations(TASK)
        assert (found.candidate, found.measurement.value) == (odd, 1.0)
        assert other.requests()[0].uses == 2
        assert len(other.events(task=TASK)) == 1
        near = Task(kernel="k", device=Device(name="d"), problem={"M": 2})
        assert other.nearest(near)[0][0] == TASK
        info = other.info()
        assert (info.n_measurements, info.persistent) == ({"ok": 1, "timeout": 1}, True)
        assert other.clear(kernel="k") == 2
    assert store.observations(TASK) == []


def test_processes_write_at_once(store, url):
    code = """
        import sys, threading
        from autotune_rlm.store import Store
        from autotune_rlm.types import *
        store = Store(sys.argv[1])
        task = Task(kernel="k", device=Device(name="d"), problem={"M": 1})
        def write(n):
            for i in range(10):
                name = Candidate({"p": sys.argv[2], "n": n, "i": i})
                store.add(task, name, Measurement(status="ok", value=1.0))
                store.note_request(task, [name])
        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        [t.start() for t in threads]; [t.join() for t in threads]
    """
    text = textwrap.dedent(code)
    running = [subprocess.Popen([sys.executable, "-c", text, url, str(n)]) for n in range(3)]
    assert [p.wait() for p in running] == [0] * 3
    assert len(store.observations(TASK)) == 120
    assert store.requests()[0].uses == 120


def test_a_row_that_the_server_refuses_does_not_block_the_others(store, caplog):
    refused = Task(kernel="k\x00", device=Device(name="d"))  # PostgreSQL's text has no NUL
    store.add(refused, Candidate({"B": 1}), Measurement(status="ok", value=1.0))
    store.add(TASK, Candidate({"B": 1}), Measurement(status="ok", value=2.0))
    assert "kept in memory" in caplog.text
    assert len(store.observations(refused)) == len(store.observations(TASK)) == 1
    assert store.info().n_measurements == {"ok": 1}


class Proxy:
    """Passes bytes on to the server until it is told to fall silent, connections and all."""

    def __init__(self, port):
        self._port = port
        self.silent = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            ours, _ = self._listener.accept()
            theirs = socket.create_connection(("127.0.0.1", self._port))
            for a, b in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=self._pass_on, args=(a, b), daemon=True).start()

    def _pass_on(self, a, b):
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                while self.silent:
                    time.sleep(0.02)
                b.sendall(data)


def test_a_server_that_falls_silent_costs_seconds_once_and_loses_nothing(
    store, url, monkeypatch, caplog
):
    monkeypatch.setattr(_database, "SERVER_S", 1.0)
    parts = sa.make_url(url)
    proxy = Proxy(parts.port or 5432)
    through = parts.set(host="127.0.0.1", port=proxy.port)
    far = Store(through.render_as_string(hide_password=False))
    far.add(TASK, Candidate({"B": 1}), Measurement(status="ok", value=1.0))
    proxy.silent = True
    begin = time.monotonic()
    for b in range(2, 12):
        far.add(TASK, Candidate({"B": b}), Measurement(status="ok", value=float(b)))
        far.nearest(TASK)
        assert len(far.observations(TASK)) >= b - 1
    assert time.monotonic() - begin < 15
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1
    proxy.silent = False
    monkeypatch.setattr(far._database, "_retry_at", 0.0)
    far.close()
    assert {o.candidate.config["B"] for o in store.observations(TASK)} == set(range(1, 12))
