"""A program that tunes one key over a driver without a device; run by the tests of processes.

usage: tune_in_a_process.py STORE LOG BUDGET SLEEP_S
"""

import os
import sys
import time

import torch
from triton_test_support import Oracle, Quick, body, configs, time_of

from autotune_rlm import rlm_autotune
from autotune_rlm.integrations.triton.stub import StubDriver


def main() -> None:
    store, log, budget, sleep_s = sys.argv[1:]

    def time_ms(launch):
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
    print(os.getpid(), kernel.best_config.kwargs["BLOCK"], kernel.best_config.num_warps)


if __name__ == "__main__":
    main()
