"""Many writers, forks and kills: nothing measured is lost."""

import os
import signal
import subprocess
import threading

from store_support import A, B, C, ok, python, task

from autotune_rlm.store import Store
from autotune_rlm.types import Candidate


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
