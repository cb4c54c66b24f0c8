"""Paths through a cell: what its choices do together (BANANAS, White et al., AAAI 2021)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping


def cell_paths(edges: Mapping[tuple[int, int], str], output: int) -> Counter[str]:
    """How many paths lead from vertex 0 to the ``output`` by each sequence of operations.

    ``edges`` are operations by edge (source, target), source before target; "" only passes on.
    """

    def ways(vertex: int) -> Iterator[tuple[str, ...]]:
        if vertex == output:
            yield ()
        for (source, target), operation in edges.items():
            if source == vertex:
                for rest in ways(target):
                    yield (operation, *rest) if operation else rest

    return Counter(" ".join(way) for way in ways(0))
