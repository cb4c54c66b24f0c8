"""NAS-Bench-101 (Ying et al., ICML 2019): a labelled graph of up to seven vertices as a cell."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from autotune_rlm.networks._builder import NetworkBuilder
from autotune_rlm.networks.spaces._paths import cell_paths
from autotune_rlm.networks.spaces._space import BuilderSpace, Config

_VERTICES = 7
_MAX_EDGES = 9
_EDGES = tuple(combinations(range(_VERTICES), 2))
_OPERATIONS = ("none", "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3")


class NASBench101(BuilderSpace):
    """Cells of NAS-Bench-101: ``e01`` ... ``e56`` (edge or not) and ``op1`` ... ``op5``.

    Smaller cells leave vertices out: their operation is ``none`` and they have no edges.
    """

    name = "nasbench101"
    parameters = {  # noqa: RUF012
        **{f"e{a}{b}": (0, 1) for a, b in _EDGES},
        **{f"op{v}": _OPERATIONS for v in range(1, _VERTICES - 1)},
    }
    input_shape = (1, 3, 32, 32)

    def parse(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of a row with ``adjacency`` (row-major bits) and ``ops``."""
        operations = str(row["ops"]).split(",")
        n = len(operations)
        bits = str(row["adjacency"]).zfill(n * n)
        if len(bits) != n * n:
            raise ValueError(f"adjacency must have {n * n} bits for {n} ops, got {len(bits)}")
        place = [*range(n - 1), _VERTICES - 1]  # the output is always the last vertex
        config: dict[str, Any] = {name: 0 for name in self.parameters if name.startswith("e")}
        config.update({f"op{v}": "none" for v in range(1, _VERTICES - 1)})
        for a, b in combinations(range(n), 2):
            config[f"e{place[a]}{place[b]}"] = int(bits[a * n + b])
        config.update({f"op{v}": operations[v] for v in range(1, n - 1)})
        return self.check(config)

    def valid(self, config: Config) -> bool:
        """At most nine edges, a path from input to output, an operation at each used vertex."""
        matrix = _matrix(config)
        used = _used(matrix)
        if matrix.sum() > _MAX_EDGES or not used[0] or not used[-1]:
            return False
        return all(config[f"op{v}"] != "none" for v in range(1, _VERTICES - 1) if used[v])

    def canonical(self, config: Config) -> dict[str, Any]:
        """Vertices off every path are dropped; the rest keep their order, closed up to the front.

        Graphs that differ in the order of vertices stay different.
        """
        matrix = _matrix(config)
        used = _used(matrix)
        kept = [v for v in range(_VERTICES - 1) if used[v]]
        place = {v: i for i, v in enumerate(kept)} | {_VERTICES - 1: _VERTICES - 1}
        found: dict[str, Any] = {f"e{a}{b}": 0 for a, b in _EDGES}
        found.update({f"op{v}": "none" for v in range(1, _VERTICES - 1)})
        for a, b in _EDGES:
            if matrix[a, b] and used[a] and used[b]:
                found[f"e{place[a]}{place[b]}"] = 1
        for v in kept[1:]:
            found[f"op{place[v]}"] = config[f"op{v}"]
        return found

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """A random valid cell; edges are drawn at the density that the limit of nine asks for."""
        for _ in range(10_000):
            config: dict[str, Any] = {f"e{a}{b}": int(rng.random() < 0.4) for a, b in _EDGES}
            for v in range(1, _VERTICES - 1):
                config[f"op{v}"] = _OPERATIONS[rng.integers(1, len(_OPERATIONS))]
            if self.valid(config):
                return config
        raise RuntimeError("no valid cell in 10,000 draws")

    def counts(self, config: Config) -> Mapping[str, int]:
        """Paths from input to output by the operations of the vertices on them."""
        last = _VERTICES - 1
        edges = {
            (a, b): "" if b == last else str(config[f"op{b}"])
            for a, b in _EDGES
            if config[f"e{a}{b}"]
        }
        return cell_paths(edges, last)

    def network(self, config: Config) -> tuple[NetworkBuilder, str]:
        """Stem of 128 channels, three stacks of three cells, halved and doubled between."""
        config = self.canonical(config)
        matrix = _matrix(config)
        net = NetworkBuilder(self.input_shape)
        x, channels = net.conv_bn_relu(net.input, 128, 3), 128
        for stack in range(3):
            if stack:
                x, channels = net.max_pool(x, 2, stride=2, pad=0), channels * 2
            for _ in range(3):
                x = _cell(net, x, channels, matrix, config)
        return net, net.linear(net.global_pool(x), 10)


def _matrix(config: Config) -> np.ndarray:
    matrix = np.zeros((_VERTICES, _VERTICES), dtype=int)
    for a, b in _EDGES:
        matrix[a, b] = int(config[f"e{a}{b}"])
    return matrix


def _used(matrix: np.ndarray) -> np.ndarray:
    n = len(matrix)
    forward, backward = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    forward[0] = backward[-1] = True
    for v in range(1, n):
        forward[v] |= bool((forward & (matrix[:, v] > 0)).any())
    for v in range(n - 2, -1, -1):
        backward[v] |= bool((backward & (matrix[v] > 0)).any())
    return forward & backward


def _widths(matrix: np.ndarray, channels: int) -> list[int]:
    """Channels of each vertex: the output's are shared out, earlier ones take what they feed."""
    n = len(matrix)
    widths = [0] * n
    widths[-1] = channels
    feeders = [v for v in range(1, n - 1) if matrix[v, n - 1]]
    for rank, v in enumerate(feeders):
        widths[v] = channels // len(feeders) + (rank < channels % len(feeders))
    for v in range(n - 3, 0, -1):
        if not matrix[v, n - 1]:
            widths[v] = max((widths[t] for t in range(v + 1, n - 1) if matrix[v, t]), default=0)
    return widths


def _cell(net: NetworkBuilder, x: str, channels: int, matrix: np.ndarray, config: Config) -> str:
    n = len(matrix)
    widths = _widths(matrix, channels)
    values: dict[int, str] = {}
    for v in range(1, n - 1):
        if not matrix[:, v].any():
            continue
        terms = [net.first_channels(values[s], widths[v]) for s in range(1, v) if matrix[s, v]]
        if matrix[0, v]:
            terms.append(net.conv_bn_relu(x, widths[v], 1))
        total = net.add(*terms)
        operation = config[f"op{v}"]
        if operation == "maxpool3x3":
            values[v] = net.max_pool(total, 3, stride=1, pad=1)
        else:
            kernel = 1 if operation.startswith("conv1x1") else 3
            values[v] = net.conv_bn_relu(total, widths[v], kernel)
    ends = [values[v] for v in range(1, n - 1) if matrix[v, n - 1]]
    if not ends:
        return net.conv_bn_relu(x, channels, 1)
    joined = net.concat(*ends)
    return net.add(joined, net.conv_bn_relu(x, channels, 1)) if matrix[0, n - 1] else joined
