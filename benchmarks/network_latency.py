"""Latency of networks on this machine, told after a few of them were measured.

    python benchmarks/network_latency.py [--space nasbench201] [--networks 200] [--shots 20]

Measures random networks of a space with ``OnnxRuntimeMeasurer``, shows ``predict`` a few of them
(``observed=``), and ranks the others: Spearman and Kendall, mean and worst of all draws. ``ceiling``
is the agreement of two measurements of the same networks.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import kendalltau, spearmanr

from autotune_rlm.integrations.onnx import predict, space
from autotune_rlm.measure.detect import cpu_device
from autotune_rlm.measure.onnxruntime import OnnxRuntimeMeasurer
from autotune_rlm.networks import Graph
from autotune_rlm.types import Candidate, Task


def measured(models: list[bytes]) -> np.ndarray:
    """Milliseconds of each model on this machine's CPU, shape (n,)."""
    task = Task(kernel="networks", device=cpu_device(), language="onnx", metric="latency_ms")
    candidates = [Candidate({"network": i}, payload=model) for i, model in enumerate(models)]
    values = np.full(len(models), np.nan)
    with OnnxRuntimeMeasurer() as measurer:
        steps = track(measurer.measure(task, candidates), "Measuring", total=len(models))
        for candidate, measurement in steps:
            values[candidate.config["network"]] = measurement.value
    return values


def agreement(score: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Spearman's and Kendall's rank correlation."""
    return float(spearmanr(score, values).statistic), float(kendalltau(score, values).statistic)


def ranked(
    graphs: list[Graph], values: np.ndarray, shots: int, draws: int, surrogate: bool | None
) -> np.ndarray:
    """Agreement on the networks that were not shown, shape (draws, 2)."""
    found = []
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(values))
        shown, rest = order[:shots], order[shots:]
        observed = {"latency_ms": [(graphs[i], float(values[i])) for i in shown]}
        prediction = predict([graphs[i] for i in rest], observed=observed, surrogate=surrogate)
        found.append(agreement(prediction.median, values[rest]))
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", default="nasbench201")
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--shots", type=int, action="append", help="repeatable; default: 0 and 20")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    known, rng = space(args.space), np.random.default_rng(0)
    configs: dict[str, dict[str, object]] = {}
    while len(configs) < args.networks:
        config = known.canonical(known.sample(rng))
        configs.setdefault(repr(config), config)
    models = [known.model(c).SerializeToString() for c in configs.values()]
    graphs = [known.graph(c) for c in configs.values()]

    begin = time.perf_counter()
    values, again = measured(models), measured(models)
    seconds = time.perf_counter() - begin
    table = Table("measured", "predictor", "Spearman", "worst", "Kendall")
    rows = []
    for shots in args.shots or (0, 20):
        for name, surrogate in (("surrogate", None), ("regression alone", False)):
            found = ranked(graphs, values, shots, args.draws if shots else 1, surrogate)
            (rho, tau), worst = found.mean(0), found[:, 0].min()
            table.add_row(str(shots), name, f"{rho:.3f}", f"{worst:.3f}", f"{tau:.3f}")
            rows.append({"shots": shots, "predictor": name, "agreement": found.tolist()})
    ceiling = agreement(again, values)
    table.add_row("all", "ceiling", f"{ceiling[0]:.3f}", "", f"{ceiling[1]:.3f}")
    console = Console()
    console.print(table)
    console.print(
        f"{len(values)} networks of {args.space}, {values.min():.2f} to {values.max():.2f} ms, "
        f"measured twice in {seconds:.0f} s"
    )
    if args.json:
        result = {"values": values.tolist(), "again": again.tolist(), "rows": rows}
        args.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
