"""Latency that ``predict`` says of networks on twelve devices, beside what the figures allow.

    python benchmarks/network_devices.py [model.onnx ...]

Without models: a small residual network, a ResNet-50 and a decoder layer stack made here. Prints a
Markdown table: the predicted median with its 90 % interval, the floor (peak rates, one launch) and
the ceiling (a hundredth of the peak, each operator launched by an interpreter).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from autotune_rlm.devices import lookup
from autotune_rlm.integrations.onnx import graph_facts, predict
from autotune_rlm.networks import read_graph
from autotune_rlm.networks._builder import NetworkBuilder
from autotune_rlm.networks.latency import latency_ms, network_work

DEVICES = (
    "NVIDIA T4", "NVIDIA L4", "NVIDIA A10G", "NVIDIA V100", "NVIDIA A100", "NVIDIA L40S",
    "NVIDIA RTX 4090", "NVIDIA H100", "NVIDIA H200", "NVIDIA B200", "AMD MI250X", "AMD MI300X",
)  # fmt: skip


def small() -> Any:
    """A residual network of 12 K parameters for images of 32 by 32."""
    net = NetworkBuilder((1, 3, 32, 32))
    x = net.relu(net.conv(net.input, 16, 3))
    for _ in range(5):
        x = net.add(x, net.relu(net.conv(x, 16, 3)))
    return net.graph(net.linear(net.global_pool(x), 10))


def resnet50() -> Any:
    """ResNet-50 for images of 224 by 224: 4.1 G multiply-accumulates."""
    net = NetworkBuilder((1, 3, 224, 224))
    x = net.max_pool(net.conv_bn_relu(net.input, 64, 7, stride=2), 3, stride=2, pad=1)
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(blocks):
            stride = first if i == 0 else 1
            y = net.conv_bn_relu(net.conv_bn_relu(x, width, 1), width, 3, stride=stride)
            y = net.bn(net.conv(y, 4 * width, 1))
            same = net.shape(x) == net.shape(y)
            x = net.relu(
                net.add(y, x if same else net.bn(net.conv(x, 4 * width, 1, stride=stride)))
            )
    return net.graph(net.linear(net.global_pool(x), 1000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    given = parser.parse_args().models
    models = {p.name: read_graph(p, dims=graph_facts(p).dims) for p in given}
    models = models or {"small residual": small(), "ResNet-50": resnet50()}
    print("| network | device | predicted, ms (90 %) | floor, ms | ceiling, ms |")
    print("| --- | --- | --- | --- | --- |")
    for name, graph in models.items():
        work = network_work(graph)
        for device in DEVICES:
            told, bounds = predict(graph, device=device), latency_ms(work, lookup(device))
            print(
                f"| {name} | {device} | {told.median[0]:.3g} ({told.low[0]:.2g} to "
                f"{told.high[0]:.2g}) | {bounds.floor_ms:.2g} | {bounds.ceiling_ms:.3g} |"
            )


if __name__ == "__main__":
    main()
