"""Faults injected into the worker: each ends in its status, and the rest are measured."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
import types
from pathlib import Path

import psutil
import pytest

from autotune_rlm.measure.triton import IsolatedMeasurer, Workload
from autotune_rlm.measure.workers import device_lock
from autotune_rlm.measure.workers.process import WorkerFailure, WorkerProcess
from autotune_rlm.types import Candidate, Device, Status, Task

HERE = Path(__file__).parent
TASK = Task(kernel="faulty", device=Device(name="CPU", target="cpu"))
FAULTY = Workload(factory=f"{HERE / 'faulty_workload.py'}:factory")

EXPECTED = {
    "segv": (Status.CRASHED, "SIGSEGV"),
    "sigkill": (Status.SKIPPED, "SIGKILL"),
    "loop": (Status.TIMEOUT, "no answer within 2 s"),
    "child": (Status.TIMEOUT, "no answer within 2 s"),
    "memory": (Status.SKIPPED, "MemoryError"),
    "exit": (Status.RUNTIME_ERROR, "SystemExit: 3"),
    "raise": (Status.RUNTIME_ERROR, "ValueError: no good"),
    "unpicklable": (Status.RUNTIME_ERROR, "cannot be pickled"),
    "print": (Status.OK, ""),
    "garbage": (Status.CRASHED, "garbage"),
    "sticky": (Status.RUNTIME_ERROR, "illegal memory access"),
    "disk": (Status.SKIPPED, "No space left"),
}


def _measure(faults, **options):
    candidates = [Candidate({"fault": fault, "number": i}) for i, fault in enumerate(faults)]
    with IsolatedMeasurer(FAULTY, **options) as measurer:
        return [(c.config["fault"], m) for c, m in measurer.measure(TASK, candidates)]


@pytest.mark.parametrize("fault", EXPECTED)
def test_each_fault_has_its_status_and_costs_only_itself(fault):
    timeout_s = 2 if fault in ("loop", "child") else 20
    (_, first), (_, faulty), (_, last) = _measure(
        ["none", fault, "none"], timeout_s=timeout_s, memory_mb=900
    )
    status, reason = EXPECTED[fault]
    assert faulty.status is status
    assert reason in faulty.reason
    assert "\n" not in faulty.reason
    assert first.ok
    assert last.ok
    assert last.value > 0.9
    assert last.low <= last.value <= last.high


def test_an_exception_at_import_is_the_reason_of_every_candidate():
    workload = Workload(factory=f"{HERE / 'faulty_workload.py'}:broken_factory")
    with IsolatedMeasurer(workload) as measurer:
        results = list(measurer.measure(TASK, [Candidate({"i": i}) for i in range(3)]))
    assert len(results) == 3
    for _, measurement in results:
        assert measurement.status is Status.SKIPPED  # the workload's, not a candidate's
        assert "a_module_that_does_not_exist" in measurement.reason


def test_a_workload_that_only_crashes_is_given_up():
    results = _measure(["segv"] * 5, max_restarts=2)
    assert [m.status for _, m in results[:2]] == [Status.CRASHED] * 2
    assert {m.status for _, m in results[2:]} == {Status.SKIPPED}


def test_a_worker_that_cannot_start_is_given_up_at_once(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    results = _measure(["none"] * 3)
    assert {m.status for _, m in results} == {Status.SKIPPED}
    assert "cannot start" in results[0][1].reason
    assert "died" in results[1][1].reason


def test_a_worker_uses_the_current_device_of_its_parent(monkeypatch):
    import torch

    from autotune_rlm.measure.triton import _device_worker

    used = []
    state = types.SimpleNamespace(is_initialized=lambda: True)
    monkeypatch.setattr(torch, "toy", state, raising=False)
    accelerator = types.SimpleNamespace(
        current_accelerator=lambda: types.SimpleNamespace(type="toy"),
        current_device_index=lambda: 3,
        set_device_index=used.append,
    )
    monkeypatch.setattr(torch, "accelerator", accelerator)
    assert _device_worker.current_device_index() == 3
    with IsolatedMeasurer(FAULTY) as measurer:
        _device_worker._use_device(measurer._worker._hello["init"]["device"])
    assert used == [3]
    with IsolatedMeasurer(FAULTY, env={"CUDA_VISIBLE_DEVICES": "2"}) as measurer:
        assert measurer._worker._hello["init"]["device"] is None
    state.is_initialized = lambda: False
    assert _device_worker.current_device_index() is None


def test_bad_arguments_are_refused_before_anything_starts():
    with pytest.raises(ValueError, match="factory"):
        IsolatedMeasurer(Workload(factory="nonsense"))
    with pytest.raises(ValueError, match="JSON"):
        IsolatedMeasurer(Workload(factory="a:b", arguments={"x": object()}))
    with pytest.raises(ValueError, match="timeout_s"):
        IsolatedMeasurer(FAULTY, timeout_s=0)


def test_a_worker_killed_from_outside_is_replaced():
    worker = WorkerProcess("json:loads")
    with pytest.raises(WorkerFailure) as failure:
        worker.call({"not": "text"}, timeout_s=10)  # json.loads refuses a dictionary
    assert failure.value.fault.status is Status.RUNTIME_ERROR
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(0.2)
    with pytest.raises(WorkerFailure, match="TypeError"):
        worker.call({}, timeout_s=10)
    assert worker.starts == 2
    worker.kill()


def test_a_handler_that_does_not_exist_is_a_reason():
    worker = WorkerProcess("no_such_module:function")
    with pytest.raises(WorkerFailure, match="no_such_module"):
        worker.call({}, timeout_s=10)


def test_workers_die_with_a_parent_that_is_killed(tmp_path):
    """Also one in an endless loop, and its children."""
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import threading, time
            from autotune_rlm.measure.triton import *
            from autotune_rlm.types import *
            measurer = IsolatedMeasurer(Workload(factory={FAULTY.factory!r}))
            task = Task(kernel="k", device=Device(name="CPU", target="cpu"))
            candidates = [Candidate({{"fault": "none"}}), Candidate({{"fault": "loop"}})]
            results = measurer.measure(task, candidates)
            next(results)
            print(measurer._worker.pid, flush=True)
            next(results)
            """
        )
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    time.sleep(0.5)
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)


@pytest.mark.parametrize("trouble", ["full", "locked"])
def test_nothing_is_lost_with_a_full_disk_or_a_locked_store(tmp_path, trouble):
    """The measurements of a search stay, in memory, where the store cannot take them."""
    store_file = tmp_path / "store.db"
    script = tmp_path / "search.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import resource, signal, sqlite3
            from autotune_rlm.store import _engine
            from autotune_rlm.measure.triton import *
            from autotune_rlm.store import Store
            from autotune_rlm.search.tuner import Tuner
            from autotune_rlm.types import *
            task = Task(kernel="k", device=Device(name="CPU", target="cpu"))
            candidates = [Candidate({{"fault": "none", "i": i}}) for i in range(3)]
            _engine.BUSY_S = 0.1
            store = Store({str(store_file)!r})
            store.add(task, Candidate({{"fault": "none", "i": -1}}), Measurement(status="ok", value=1))
            if {trouble == "full"}:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
            else:
                other = sqlite3.connect({str(store_file)!r})
                other.execute("begin exclusive")
            with IsolatedMeasurer(Workload(factory={FAULTY.factory!r})) as measurer:
                result = Tuner(surrogate=None, measurer=measurer, store=store).tune(
                    task, candidates, budget=3
                )
            print(sum(o.measurement.ok for o in result.observations), len(store.observations(task)))
            """
        )
    )
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.split() == ["3", "4"], done.stderr


@pytest.mark.parametrize("fault", [{}, {"dies": ["default"]}, {"slow": ["default"]}])
def test_the_reference_survives_what_becomes_of_its_worker(fault):
    values = {"default": 1.0, "wrong": 7.0, "right": 1.0}
    workload = Workload(
        factory=f"{HERE / 'faulty_workload.py'}:output_factory",
        arguments={"values": values, **fault},
    )
    with IsolatedMeasurer(workload, timeout_s=8.0) as measurer:
        candidates = [Candidate({"name": name}) for name in values]
        found = {c.config["name"]: m.status for c, m in measurer.measure(TASK, candidates)}
    assert (found.pop("default") is Status.OK) == (not fault)
    assert found == {"wrong": "wrong_result", "right": "ok"}


@pytest.mark.parametrize("works", [True, False])
def test_a_search_that_goes_on_names_its_reference(works):
    values = {"default": 1.0, "wrong": 7.0, "right": 1.0}
    arguments = {"values": values if works else {n: v for n, v in values.items() if n != "default"}}
    workload = Workload(
        factory=f"{HERE / 'faulty_workload.py'}:output_factory", arguments=arguments
    )
    with IsolatedMeasurer(workload, reference={"name": "default"}) as measurer:
        left = [Candidate({"name": name}) for name in ("wrong", "right")]
        found = {c.config["name"]: m.status for c, m in measurer.measure(TASK, left)}
    right, wrong = ("right", "wrong") if works else ("wrong", "right")
    assert found == {right: "ok", wrong: "wrong_result"}


def test_one_process_at_a_time_is_on_a_device(tmp_path, monkeypatch):
    monkeypatch.setattr(device_lock, "device_identity", lambda: "GPU-1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = """
import tempfile, time
from autotune_rlm.measure.workers import device_lock
tempfile.tempdir = {folder!r}
with device_lock._holding("GPU-1"):
    print("held", flush=True)
    time.sleep(1.0)
    print(time.monotonic(), flush=True)
"""
    other = subprocess.Popen(
        [sys.executable, "-c", program.format(folder=str(tmp_path))],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "held\n"
    with device_lock._holding("GPU-2"):
        pass  # another device
    with device_lock._holding("GPU-1"):
        mine = time.monotonic()
    assert mine >= float(other.stdout.readline())
    other.wait()
    (folder,) = tmp_path.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} <= {0o600}


def test_a_lock_that_is_never_given_back_stops_nobody(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(device_lock, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(device_lock, "_waits_again_at", 0.0)
    from filelock import FileLock

    with device_lock._holding("GPU-1"):
        (file,) = next(tmp_path.iterdir()).iterdir()
    with FileLock(file):
        for _ in range(3):
            with device_lock._holding("GPU-1"):
                pass
    assert caplog.text.count("another process has been timing") == 1


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_lock_folder_that_somebody_else_prepared_is_not_used(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = tmp_path / f"autotune_rlm-{os.getuid()}"
    victim = tmp_path / "victim"
    victim.mkdir()
    own.symlink_to(victim) if kind == "link" else own.write_text("")
    with device_lock._holding("GPU-1"):
        pass
    assert list(victim.iterdir()) == []
