"""NAS-Bench-201 (Dong and Yang, ICLR 2020): one operation on each of six edges of a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune_rlm.networks._builder import NetworkBuilder
from autotune_rlm.networks.spaces._paths import cell_paths
from autotune_rlm.networks.spaces._space import BuilderSpace, Config

_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


class NASBench201(BuilderSpace):
    """Cells of NAS-Bench-201: parameters ``e01`` ... ``e23``, edge from node to node.

    Args:
        classes: Width of the last layer: 10, 100 or 120.
        side: Side of the input image: 32, or 16 for ImageNet16-120.
    """

    name = "nasbench201"
    parameters = {f"e{a}{b}": _OPERATIONS for a, b in _EDGES}  # noqa: RUF012

    def __init__(self, *, classes: int = 10, side: int = 32) -> None:
        self.classes = classes
        self.input_shape = (1, 3, side, side)

    def parse(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of a row with ``arch_str``, such as ``|none~0|+|...|``."""
        return self.from_string(str(row["arch_str"]))

    def from_string(self, text: str) -> dict[str, Any]:
        """The configuration of a cell string such as ``|nor_conv_3x3~0|+|none~0|...|``."""
        config = {}
        for target, node in enumerate(text.split("+"), start=1):
            for part in filter(None, node.split("|")):
                operation, _, source = part.partition("~")
                config[f"e{source}{target}"] = operation
        return self.check(config)

    def to_string(self, config: Config) -> str:
        """The cell string of a configuration."""
        nodes = []
        for target in (1, 2, 3):
            parts = [f"{config[f'e{source}{target}']}~{source}" for source in range(target)]
            nodes.append("|" + "|".join(parts) + "|")
        return "+".join(nodes)

    def canonical(self, config: Config) -> dict[str, Any]:
        """Edges that no path from input to output uses are ``none``."""
        live = [(a, b) for a, b in _EDGES if config[f"e{a}{b}"] != "none"]
        forward = {0}
        for a, b in sorted(live):
            if a in forward:
                forward.add(b)
        backward = {3}
        for a, b in sorted(live, reverse=True):
            if b in backward:
                backward.add(a)
        used = {(a, b) for a, b in live if a in forward and b in backward}
        return {f"e{a}{b}": config[f"e{a}{b}"] if (a, b) in used else "none" for a, b in _EDGES}

    def counts(self, config: Config) -> Mapping[str, int]:
        """Paths from input to output by the operations on them."""
        live = {(a, b): str(config[f"e{a}{b}"]) for a, b in _EDGES}
        passed = {e: "" if o == "skip_connect" else o for e, o in live.items() if o != "none"}
        return cell_paths(passed, 3)

    def network(self, config: Config) -> tuple[NetworkBuilder, str]:
        """Three stages of five cells, 16 to 64 channels, with residual reductions between."""
        config = self.canonical(config)
        net = NetworkBuilder(self.input_shape)
        x = net.bn(net.conv(net.input, 16, 3))
        for channels in (16, 32, 64):
            if channels > 16:
                x = _reduction(net, x, channels)
            for _ in range(5):
                x = _cell(net, x, config)
        x = net.global_pool(net.relu(net.bn(x)))
        return net, net.linear(x, self.classes)


def _cell(net: NetworkBuilder, x: str, config: Config) -> str:
    nodes: list[str | None] = [x]
    for target in (1, 2, 3):
        terms = []
        for source in range(target):
            value, operation = nodes[source], config[f"e{source}{target}"]
            if value is not None and operation != "none":
                terms.append(_apply(net, value, operation))
        nodes.append(net.add(*terms) if terms else None)
    return nodes[3] if nodes[3] is not None else net.zero(x)


def _apply(net: NetworkBuilder, x: str, operation: str) -> str:
    if operation == "skip_connect":
        return x
    if operation == "avg_pool_3x3":
        return net.avg_pool(x, 3, stride=1, pad=1)
    kernel = 1 if operation == "nor_conv_1x1" else 3
    return net.bn(net.conv(net.relu(x), net.channels(x), kernel))


def _reduction(net: NetworkBuilder, x: str, channels: int) -> str:
    a = net.bn(net.conv(net.relu(x), channels, 3, stride=2))
    b = net.bn(net.conv(net.relu(a), channels, 3))
    return net.add(net.conv(net.avg_pool(x, 2, stride=2, pad=0), channels, 1), b)
