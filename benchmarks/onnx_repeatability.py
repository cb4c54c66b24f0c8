"""How repeatable are latencies of networks on this CPU? Two passes over 100 small networks.

    python benchmarks/onnx_repeatability.py [--networks 100] [--json OUT]

Ranks the networks twice with the usual loop (one network after the other, mean and median of 50
runs after 10 for warm-up) and twice with ``OnnxRuntimeMeasurer`` (interleaved rounds in a worker
process, a low quantile), and prints Kendall's tau between the two passes of each beside the seconds
they took.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import kendalltau

from autotune_rlm.measure.detect import cpu_device
from autotune_rlm.measure.onnxruntime import OnnxRuntimeMeasurer, OnnxRuntimeSettings
from autotune_rlm.types import Candidate, Task

OPERATORS = ("conv1x1", "conv3x3", "conv5x5", "depthwise", "pool")


def network(seed: int) -> bytes:
    """A chain of 3 to 8 convolutions and poolings on a small image; each seed is another one."""
    choose, values = random.Random(seed), np.random.default_rng(seed)
    size, channels, x = choose.choice([24, 32, 40, 48]), 3, "image"
    nodes, weights = [], []
    for i in range(choose.randint(3, 8)):
        kind, y = choose.choice(OPERATORS), f"layer{i}"
        if kind == "pool":
            pads = [1, 1, 1, 1]
            nodes.append(helper.make_node("AveragePool", [x], [y], kernel_shape=[3, 3], pads=pads))
            x = y
            continue
        depthwise = kind == "depthwise"
        kernel = {"conv1x1": 1, "conv5x5": 5}.get(kind, 3)
        out = channels if depthwise else choose.randint(8, 48)
        shape = (out, 1 if depthwise else channels, kernel, kernel)
        weight = values.normal(scale=0.1, size=shape).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"weight{i}"))
        nodes.append(
            helper.make_node(
                "Conv",
                [x, f"weight{i}"],
                [f"conv{i}"],
                kernel_shape=[kernel, kernel],
                pads=[kernel // 2] * 4,
                group=channels if depthwise else 1,
            )
        )
        nodes.append(helper.make_node("Relu", [f"conv{i}"], [y]))
        x, channels = y, out
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["features"]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, size, size])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, channels, 1, 1])
    graph = helper.make_graph(nodes, f"network{seed}", [image], [features], weights)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    return sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def naive_pass(models: list[bytes]) -> tuple[list[float], list[float], float, float]:
    """Means, medians, seconds and CPU seconds of one network after the other."""
    begin, cpu = time.perf_counter(), cpu_seconds()
    means, medians = [], []
    for model in models:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        shape = session.get_inputs()[0].shape
        feed = {"image": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
        for _ in range(10):
            session.run(None, feed)
        times = []
        for _ in range(50):
            start = time.perf_counter()
            session.run(None, feed)
            times.append(time.perf_counter() - start)
        means.append(float(np.mean(times)))
        medians.append(float(np.median(times)))
    return means, medians, time.perf_counter() - begin, cpu_seconds() - cpu


def our_pass(models: list[bytes]) -> tuple[list[float], float, float]:
    """Values, seconds and CPU seconds of ``OnnxRuntimeMeasurer``, its worker's start included."""
    begin, cpu = time.perf_counter(), cpu_seconds()
    task = Task(kernel="networks", device=cpu_device(), language="onnx", metric="latency_ms")
    candidates = [Candidate({"seed": i}, payload=model) for i, model in enumerate(models)]
    with OnnxRuntimeMeasurer(settings=OnnxRuntimeSettings()) as measurer:
        found = {c.config["seed"]: m for c, m in measurer.measure(task, candidates)}
    values = [found[i].value for i in range(len(models))]
    if any(v is None for v in values):
        raise SystemExit(f"not measured: {[m.reason for m in found.values() if not m.ok]}")
    seconds = time.perf_counter() - begin
    return [float(v) for v in values if v is not None], seconds, cpu_seconds() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    models = [network(seed) for seed in range(options.networks)]
    load = os.getloadavg()[0]
    naive, ours = [], []
    for _ in range(2):  # alternating, so that both meet the same weather
        naive.append(naive_pass(models))
        ours.append(our_pass(models))

    def tau(first: list[float], second: list[float]) -> float:
        return float(kendalltau(first, second).statistic)

    result: dict[str, Any] = {
        "cpu": cpu_device().name,
        "cores": os.cpu_count(),
        "load": load,
        "networks": options.networks,
        "latency_ms": [min(ours[0][0]), max(ours[0][0])],
        "naive_mean_tau": tau(naive[0][0], naive[1][0]),
        "naive_median_tau": tau(naive[0][1], naive[1][1]),
        "naive_s": [p[2] for p in naive],
        "naive_cpu_s": [p[3] for p in naive],
        "ours_tau": tau(ours[0][0], ours[1][0]),
        "ours_s": [p[1] for p in ours],
        "ours_cpu_s": [p[2] for p in ours],
    }
    low, high = result["latency_ms"]
    print(f"{result['cpu']}, {result['cores']} cores, load {load:.1f}; {options.networks} networks")
    print(f"of {low:.3f} to {high:.3f} ms\n")
    print("| method | Kendall tau between two passes | seconds | CPU seconds |")
    print("| --- | --- | --- | --- |")
    rows = [
        ("loop, mean", "naive_mean_tau", "naive"),
        ("loop, median", "naive_median_tau", "naive"),
        ("OnnxRuntimeMeasurer", "ours_tau", "ours"),
    ]
    for name, score, method in rows:
        wall, cpu = (
            " and ".join(f"{s:.1f}" for s in result[f"{method}_{kind}"]) for kind in ("s", "cpu_s")
        )
        print(f"| {name} | {result[score]:.4f} | {wall} | {cpu} |")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
