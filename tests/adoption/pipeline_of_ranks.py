"""One of two stages of a pipeline. Rank 0 tunes behind a receive; rank 1 tunes the same key, then sends.

Prints JSON.
"""

import functools
import json
import time

import torch
import torch.distributed as dist
from rank_support import meet, rank, store
from triton_test_support import Oracle, Quick, body, configs, time_of

from autotune_rlm import rlm_autotune
from autotune_rlm.integrations.triton import agree_ranks
from autotune_rlm.integrations.triton.stub import StubDriver

meet(patience_s=100)
x, message = torch.zeros(64), torch.zeros(1)
kernel = rlm_autotune(configs=configs(), key=["n"], surrogate=Oracle(-1), store=store)(Quick(body))
if rank == 0:
    received = dist.irecv(message, src=1)  # in the queue of this rank's device

    wait_once = functools.cache(received.wait)

    def time_ms(launch):
        wait_once()  # as a measurement waits for what is in the queue
        return time_of(launch)
else:

    def time_ms(launch):
        raise AssertionError("rank 1 measures what rank 0 measures")


with StubDriver(time_ms=time_ms):
    dist.barrier()
    if rank == 1:
        time.sleep(1.0)  # the forward pass; rank 0 has begun meanwhile
    kernel[(1,)](x, x, 64)
    first = kernel.best_config.all_kwargs()
    if rank == 1:
        dist.send(message, dst=0)
    agree_ranks()
    kernel[(1,)](x, x, 64)
print(json.dumps({"first": first, "then": kernel.best_config.all_kwargs()}))
dist.barrier()
dist.destroy_process_group()
