"""Workloads that go wrong in every way, for a worker process to survive."""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time

from autotune_rlm.measure.statistics.timing import Call
from autotune_rlm.measure.triton.job import Job


def factory(**_):
    hoard = []

    def make(config):
        fault = config["fault"]

        def run():
            if fault == "segv":
                ctypes.string_at(0)
            elif fault == "sigkill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif fault == "loop":
                while True:
                    pass
            elif fault == "memory":
                while True:
                    hoard.append(bytearray(64 * 2**20))
            elif fault == "exit":
                sys.exit(3)
            elif fault == "raise":
                raise ValueError("no good")
            elif fault == "unpicklable":
                raise Unpicklable(lambda: 1)
            elif fault == "print":
                print("garbage " * 10_000)
                sys.stdout.buffer.write(bytes(range(256)) * 1000)
            elif fault == "garbage":
                for fd in sorted(map(int, os.listdir("/proc/self/fd")))[3:]:
                    with contextlib.suppress(OSError):
                        socket.socket(fileno=os.dup(fd)).sendall(b"\0garbage on the pipe\0" * 10)
                time.sleep(5)
            elif fault == "sticky":
                raise RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")
            elif fault == "disk":
                raise OSError(28, "No space left on device")
            elif fault == "child":
                os.system("sleep 60")
            time.sleep(config.get("sleep", 0.001))

        return Job(Call(run))

    return make


def output_factory(*, values, dies=(), slow=()):
    """Configurations that write a value, some of them too slow to time or deadly once they are timed."""
    import torch

    out = torch.zeros(4)
    runs = dict.fromkeys(values, 0)

    def make(config):
        name = config["name"]

        def run():
            runs[name] += 1
            out.fill_(values[name])
            if runs[name] > 1 and name in dies:
                os.kill(os.getpid(), signal.SIGKILL)
            if runs[name] > 1 and name in slow:
                time.sleep(60)

        return Job(Call(run), outputs=lambda: {"out": out}, prepare=lambda: out.fill_(float("nan")))

    return make


def broken_factory(**_):
    import a_module_that_does_not_exist  # noqa: F401


class Unpicklable(Exception):
    def __init__(self, secret):
        super().__init__("cannot be pickled")
        self.secret = secret

    def __reduce__(self):
        raise TypeError("not me")
