"""Names that the tests of the store share."""

import subprocess
import sys
import textwrap

from autotune_rlm.types import Candidate, Device, Measurement, Task

GPU = Device(name="NVIDIA H100")


def task(m=1024, *, kernel="matmul", device=GPU, **fields):
    return Task(kernel=kernel, device=device, problem={"M": m, "dtype": "fp16"}, **fields)


def ok(value, **fields):
    return Measurement(status="ok", value=value, **fields)


FAILED = Measurement(status="compile_error", reason="out of registers")
A, B, C = (Candidate({"BLOCK": n, "num_warps": 4}) for n in (16, 32, 64))


def python(code, *args, **options):
    """Start a process that runs ``code`` with the names of this module's setting."""
    setting = """
        import sys, threading, time
        from autotune_rlm.store import Store
        from autotune_rlm.types import Candidate, Device, Measurement, Task
        def task(m=1024):
            problem = {"M": m, "dtype": "fp16"}
            return Task(kernel="matmul", device=Device(name="NVIDIA H100"), problem=problem)
        def ok(value): return Measurement(status="ok", value=value)
    """
    text = textwrap.dedent(setting) + textwrap.dedent(code)
    command = [sys.executable, "-c", text, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
