"""One of two ranks that tune the same keys on devices whose timings disagree. Prints JSON."""

import json

import torch
import torch.distributed as dist
from rank_support import meet, rank, store
from triton_test_support import Oracle, Quick, body, configs

from autotune_rlm import rlm_autotune
from autotune_rlm.integrations.triton import _ranks
from autotune_rlm.integrations.triton.stub import StubDriver

meet(patience_s=600)
x = torch.zeros(64)


def noisy(launch):
    """Small blocks are fast on rank 0, large ones on rank 1."""
    block = launch.constants["BLOCK"]
    return float(block if rank == 0 else 2048 - block)


told = {}
with StubDriver(time_ms=noisy) as stub:
    for mode in ("full", "predict"):
        _ranks.ranks._first_s = _ranks.ranks._answer_s = 600.0  # however slow this machine is
        kernel = rlm_autotune(
            configs=configs(), key=["n"], mode=mode, surrogate=Oracle(), store=store
        )(Quick(body))
        for n in (64, 128):
            kernel[(1,)](x, x, n + (mode == "predict"))
            told[f"{mode} {n}"] = kernel.best_config.all_kwargs()
        told[f"{mode} benchmarked"] = len(stub.benchmarked)
        stub.benchmarked.clear()

    dist.barrier()
    if rank == 1:  # a problem that rank 0 never meets
        _ranks.ranks._first_s = 0.1
        kernel[(1,)](x, x, 4096)
        told["alone"] = kernel.best_config.all_kwargs()
    dist.barrier()
print(json.dumps(told))
dist.destroy_process_group()
