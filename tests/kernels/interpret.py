"""Run by test_interpreter in a process of its own: Triton decides at import whether to interpret."""

import json
import math
import sys

import torch

from autotune_rlm.record.suite import load_suite


def programs(kernel, args, config):
    return math.prod(kernel.grid({**args, **config}))


def configs(kernel, args):
    """The one with the fewest programs, and one that splits the problem over a few."""
    some = kernel.space.sample(64, seed=0)
    fewest = min(some, key=lambda c: programs(kernel, args, c))
    few = [c for c in some if 2 <= programs(kernel, args, c) <= 12]
    return [fewest, few[-1]] if few else [fewest]


def faults(kernel):
    for index, problem in enumerate(kernel.small):
        args = kernel.make_args(problem, "cpu", torch.Generator().manual_seed(0))
        expected = kernel.reference(args)
        for config in configs(kernel, args)[: 2 if index == 0 else 1]:
            kernel.clear(args)
            kernel.launch(args, config)
            wrong = kernel.check(args, expected, problem)
            if wrong:
                yield f"{problem} {config}: {wrong}"


for name, kernel in load_suite().items():
    try:
        found = list(faults(kernel))
    except Exception as error:
        found = [repr(error)]
    json.dump([name, found], sys.stdout)
    print()
