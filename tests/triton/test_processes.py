"""Killed searches, several processes and several threads at one key."""

from __future__ import annotations

import gc
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from triton_test_support import Oracle, configs, time_of

from autotune_rlm import Store, rlm_autotune
from autotune_rlm.integrations.triton.stub import StubDriver
from autotune_rlm.types import Status

PROGRAM = Path(__file__).with_name("tune_in_a_process.py")


def start(store, log, *, budget, sleep_s=0.0, processes=1, keep=math.inf):
    settings = [store, log, budget, sleep_s, processes, keep]
    return subprocess.Popen(
        [sys.executable, PROGRAM, *map(str, settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def lines(log):
    return log.read_text().splitlines() if log.exists() else []


def test_a_killed_search_resumes_and_nothing_measured_is_lost(tmp_path, quick, store_path, caplog):
    log = tmp_path / "log"
    process = start(store_path, log, budget=18, keep=5)
    assert process.stdout.readline() == "paused\n", process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    measured = lines(log)
    assert len(measured) == 5
    with Store(store_path) as store:
        (task,) = store.tasks()
        kept = [
            f"{o.candidate.config['BLOCK']} {o.candidate.config['num_warps']}"
            for o in store.observations(task)
        ]
        assert store.events() == []
    assert kept == measured
    with StubDriver(time_ms=time_of) as stub:
        kernel = rlm_autotune(
            configs=configs(), key=["n"], budget=18, store=store_path, surrogate=Oracle(-1)
        )(quick)
        kernel[(1,)](torch.zeros(8), torch.zeros(8), 8)
    assert (kernel.best_config.kwargs["BLOCK"], kernel.best_config.num_warps) == (256, 2)
    later = [f"{b.constants['BLOCK']} {b.options['num_warps']}" for b in stub.benchmarked]
    assert not set(later) & set(kept)
    with Store(store_path) as store:
        known = store.observations(task)
    (running,) = [o for o in known if not o.measurement.ok]  # as the process died
    assert running.measurement.status is Status.CRASHED
    left_out = f"{running.candidate.config['BLOCK']} {running.candidate.config['num_warps']}"
    assert {*later, *kept, left_out} == {f"{c.kwargs['BLOCK']} {c.num_warps}" for c in configs()}
    assert left_out not in {*later, *kept}
    assert "ended without a word" in running.measurement.reason
    assert "autotune-rlm store clear --kernel body" in caplog.text


def test_four_processes_share_one_search(tmp_path, store_path):
    log = tmp_path / "log"
    parent = start(store_path, log, budget=6, sleep_s=0.02, processes=4)
    out, err = parent.communicate(timeout=240)
    assert parent.returncode == 0, err
    chosen = out.splitlines()
    assert len(chosen) == 4
    assert len(set(chosen)) == 1
    measured = lines(log)
    assert len(measured) == len(set(measured)) <= 6
    with Store(store_path) as store:
        assert len(store.events()) == 1


def test_eight_threads_share_one_search(quick, store_path):
    kernel = rlm_autotune(
        configs=configs(), key=["n"], budget=6, store=store_path, surrogate=Oracle(-1)
    )(quick)
    x = torch.zeros(8)
    barrier = threading.Barrier(8)
    failures = []

    def launch():
        barrier.wait()
        try:
            for n in (8, 9):
                kernel[(1,)](x, x, n)
        except Exception as error:
            failures.append(error)

    with StubDriver(time_ms=lambda launch: time.sleep(0.01) or time_of(launch)) as stub:
        threads = [threading.Thread(target=launch) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert len(kernel.cache) == 2
    assert len(stub.benchmarked) <= 12
    assert len(stub.launches) == len(stub.benchmarked) + 16


def test_a_fork_while_another_thread_tunes_can_tune(quick, store_path):
    """The child finds every lock free, and leaves its parent's compile workers alone."""
    from autotune_rlm.integrations.triton.resources import compile_pool

    tuning, forked = threading.Event(), threading.Event()

    def time_ms(launch):
        tuning.set()
        assert forked.wait(60)
        return time_of(launch)

    def tuned():
        return rlm_autotune(configs=configs()[:4], key=["n"], store=store_path)(quick)

    x = torch.zeros(8)
    with StubDriver(time_ms=time_ms):
        worker = compile_pool()._new_worker()
        worker.call({"file": "", "function": "", "constexprs": {}}, timeout_s=60)
        thread = threading.Thread(target=lambda: tuned()[(1,)](x, x, 8))
        thread.start()
        assert tuning.wait(60)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(60)
                forked.set()
                kernel = tuned()
                kernel[(1,)](x, x, 9)
                del worker
                gc.collect()
                code = 0 if len(kernel.configs_timings) == 4 else 2
            finally:
                os._exit(code)
        try:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            forked.set()
            thread.join(60)
    assert not thread.is_alive()
    assert worker._process.poll() is None


def test_a_fork_waits_for_what_a_child_would_find_half_done(monkeypatch):
    from autotune_rlm import _forks

    begun, done = threading.Event(), []

    def work():
        with _forks.no_fork():
            begun.set()
            time.sleep(0.5)
            done.append(True)
            time.sleep(0.1)

    def forked():
        """What a child sees that then enters itself."""
        thread = threading.Thread(target=work)
        begun.clear()
        done.clear()
        thread.start()
        assert begun.wait(60)
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            with _forks.no_fork():
                os._exit(len(done))
        thread.join(60)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert forked() == 1
    monkeypatch.setattr(_forks, "_PATIENCE_S", 0.01)  # nothing holds a fork up for ever
    assert forked() == 0
    with _forks.no_fork():
        child = os.fork()
        if child == 0:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_fork_keeps_the_locks_of_the_thread_that_forks():
    from autotune_rlm._forks import ForkSafeLock

    lock = ForkSafeLock()
    child = 1
    try:
        with lock:
            child = os.fork()
    finally:
        if child == 0:
            os._exit(1 if sys.exc_info()[0] else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
