"""A program that tunes one key in several processes, over a driver without a device.

usage: tune_in_a_process.py STORE LOG BUDGET SLEEP_S PROCESSES KEEP

After KEEP measurements it says "paused", and the next one lasts until the program is killed.
"""

import itertools
import math
import os
import signal
import sys
import time

import torch
from triton_test_support import Oracle, Quick, body, configs, time_of

from autotune_rlm import rlm_autotune
from autotune_rlm.integrations.triton.stub import StubDriver


def tune(store: str, log: str, budget: str, sleep_s: str, keep: float = math.inf) -> None:
    measured = itertools.count()

    def time_ms(launch):
        if next(measured) >= keep:
            os.write(1, b"paused\n")
            signal.pause()
        time.sleep(float(sleep_s))
        line = f"{launch.constants['BLOCK']} {launch.options['num_warps']}\n"
        with open(log, "ab", buffering=0) as stream:
            stream.write(line.encode())
        return time_of(launch)

    kernel = rlm_autotune(
        configs=configs(), key=["n"], budget=int(budget), store=store, surrogate=Oracle(-1)
    )(Quick(body))
    with StubDriver(time_ms=time_ms):
        kernel[(1,)](torch.zeros(8), torch.zeros(8), 8)
    best = kernel.best_config
    os.write(1, f"{best.kwargs} {best.num_warps}\n".encode())


def main() -> int:
    *settings, processes, keep = sys.argv[1:]
    if processes == "1":
        tune(*settings, keep=float(keep))
        return 0
    children = []
    for _ in range(int(processes)):
        child = os.fork()
        if child == 0:
            tune(*settings)
            os._exit(0)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main())
