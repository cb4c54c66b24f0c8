"""A process that is one of two ranks of a job. Its arguments: the rank, a file to meet at, its store."""

import datetime
import sys
from pathlib import Path

import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1] / "triton"))

rank, meeting, store = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def meet(*, patience_s):
    """Wait for the other rank."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=patience_s),
    )
