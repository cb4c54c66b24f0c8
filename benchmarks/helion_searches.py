"""Helion's searches and ``RLMSearch``: on recorded landscapes without a GPU, or on kernels with one.

    python benchmarks/helion_searches.py FILE.csv.gz... --ids triton_matmul/A100/2048 \
        --surrogate recipes/weights/nano-validation --seeds 3
    python benchmarks/helion_searches.py --kernels --budget 192  # on the GPU that is here

Recorded: the parameters are tunables of ``helion.autotuner.autotune``, a configuration takes the time
that was recorded and fails where none was. Printed is the mean regret in % after so many measurements.
On a GPU each search tunes two Helion kernels; printed are configurations, seconds and the best time.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import helion
import helion.language as hl
import numpy as np
import torch
from helion.autotuner import EnumFragment, search_algorithms
from helion.autotuner.benchmark_provider import BenchmarkProvider, BenchmarkResult
from helion.autotuner.external import _ExternalKernelAdapter, create_user_config_spec

from autotune_rlm.integrations.helion import register
from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.types import Candidate

AT = (8, 16, 32, 64, 96, 200, 400)
SEARCHES = ("RandomSearch", "PatternSearch", "LFBOTreeSearch", "RLMSearch")


class Enough(Exception):
    """So many were measured that the table needs no more."""


def provider(perf_of: Callable[[Any], float], seen: list[float]) -> type[BenchmarkProvider]:
    """A benchmark of Helion that looks times up and keeps them in ``seen``, each configuration once."""
    known: dict[Any, float] = {}

    class Recorded(BenchmarkProvider):
        mutated_arg_indices = ()

        def __init__(self, *, autotune_metrics: Any, **_: Any) -> None:
            self._metrics = autotune_metrics

        def setup(self) -> None:
            """Nothing is needed."""

        def cleanup(self) -> None:
            """Nothing is left."""

        def benchmark(self, configs: list[Any], **_: Any) -> list[BenchmarkResult]:
            """The recorded times."""
            return [self._one(config) for config in configs]

        def _one(self, config: Any) -> BenchmarkResult:
            if config not in known:
                known[config] = perf_of(config)
                seen.append(known[config])
                self._metrics.num_configs_tested += 1
            if len(seen) >= AT[-1]:
                raise Enough
            return BenchmarkResult(
                config=config,
                fn=lambda *args: None,
                perf=known[config],
                status="ok" if math.isfinite(known[config]) else "error",
                compile_time=1.0,
                completed_at=time.perf_counter(),
            )

    return Recorded


def without_measuring(search: Any, perf_of: Callable[[Any], float], seen: list[float]) -> None:
    """Have a search look times up, each configuration's once; they do not change."""
    search._benchmark_provider_cls = provider(perf_of, seen)
    search.rebenchmark = lambda *args, **kwargs: None
    search.final_selection = None


def on_landscape(
    name: str, landscape: Landscape, seed: int, options: dict[str, Any]
) -> list[float]:
    """Times in the order in which a search asked for them; infinite where there is none."""
    values: defaultdict[str, list[Any]] = defaultdict(list)
    for candidate in landscape.candidates:
        for parameter, value in candidate.config.items():
            if value not in values[parameter]:
                values[parameter].append(value)
    recorded = {
        o.candidate.key: o.measurement.value for o in landscape.observations if o.measurement.ok
    }
    tunables = {n: EnumFragment(choices=tuple(sorted(v, key=_order))) for n, v in values.items()}
    adapter = _ExternalKernelAdapter(
        create_user_config_spec(tunables),
        lambda config: lambda *args: None,
        (),
        device=torch.device("cpu"),
        autotune_random_seed=seed,
        autotune_log_level=0,
        autotune_progress_bar=False,
    )
    search = search_algorithms[name](adapter, (), **(options if name == "RLMSearch" else {}))
    seen: list[float] = []
    without_measuring(
        search, lambda config: recorded.get(Candidate(dict(config)).key) or math.inf, seen
    )
    with contextlib.suppress(Enough):
        search.autotune()
    return seen


def recorded_table(given: argparse.Namespace) -> None:
    """Print the mean regrets."""
    landscapes = [one for file in given.files for one in read_landscapes(file)]
    landscapes = [one for one in landscapes if not given.ids or one.id in given.ids]
    print("| landscape | search | " + " | ".join(map(str, AT)) + " |", flush=True)
    print("| --- | --- |" + " --- |" * len(AT), flush=True)
    for landscape in landscapes:
        times = [o.measurement.value for o in landscape.observations if o.measurement.ok]
        best = min(times)
        for name in given.searches:
            rows = []
            for seed in range(given.seeds):
                options = {"store": False, "surrogate": given.surrogate, "budget": given.budget}
                options["device"] = landscape.task.device
                seen = on_landscape(name, landscape, seed, options)
                rows.append([100 * (min(seen[:n], default=math.inf) / best - 1) for n in AT])
            mean = " | ".join(f"{value:.1f}" for value in np.mean(rows, axis=0))
            print(f"| {landscape.id} | {name} | {mean} |", flush=True)


def matmul(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The product of two matrices."""
    m, k = x.size()
    _, n = y.size()
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.addmm(acc, x[tile_m, tile_k], y[tile_k, tile_n])
        out[tile_m, tile_n] = acc
    return out


def softmax(x: torch.Tensor) -> torch.Tensor:
    """Of each row."""
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = torch.softmax(x[tile, :].to(torch.float32), dim=1).to(x.dtype)
    return out


def on_this_gpu(
    given: argparse.Namespace,
    *,
    device: str = "cuda",
    size: int = 4096,
    perf_of: Callable[[Any], float] | None = None,
) -> None:
    """Tune two Helion kernels with each search.

    Args:
        given: The options.
        device: Where the tensors are.
        size: Of a side of the matrices.
        perf_of: Gives times in place of measurements, for a machine without a GPU.
    """
    half = {"device": device, "dtype": torch.float16}
    problems: list[tuple[Any, Sequence[torch.Tensor]]] = [
        (matmul, (torch.randn(size, size, **half), torch.randn(size, size, **half))),
        (softmax, (torch.randn(2 * size, size, **half),)),
    ]
    print("| kernel | search | configurations | s | best ms |\n| --- | --- | --- | --- | --- |")
    for function, args in problems:
        for name in given.searches:
            bound = helion.kernel(function, static_shapes=True).bind(args)
            options: dict[str, Any] = {}
            if name == "RLMSearch":
                options = {"store": False, "budget": given.budget, "pool": given.pool}
            search = search_algorithms[name](bound, args, **options)
            if perf_of is not None:
                without_measuring(search, perf_of, [])
            begin = time.perf_counter()
            search.autotune()
            seconds, tested = time.perf_counter() - begin, search._autotune_metrics
            row = (function.__name__, name, tested.num_configs_tested, f"{seconds:.0f}")
            print(f"| {' | '.join(map(str, row))} | {search.best_perf_so_far:.4g} |", flush=True)


def _order(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="recorded landscapes")
    parser.add_argument("--ids", nargs="*", default=[], help="of the landscapes; all of the files")
    parser.add_argument("--surrogate", help="name or folder; by default the bundled one")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--searches", nargs="*", default=SEARCHES)
    parser.add_argument("--kernels", action="store_true", help="tune kernels on the GPU here")
    parser.add_argument("--budget", type=int, default=192, help="of RLMSearch")
    parser.add_argument("--pool", type=int, default=96, help="of RLMSearch, on a GPU")
    given = parser.parse_args()
    register()
    if given.kernels:
        on_this_gpu(given)
    else:
        recorded_table(given)


if __name__ == "__main__":
    main()
