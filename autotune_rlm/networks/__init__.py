"""Neural networks without their weights: canonical text, facts and architecture spaces.

Reads ONNX models (the ``onnx`` package is imported when one is read) and builds the networks of
published spaces. No torch is imported, except to export a module that a space of the user builds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune_rlm.networks._facts import GraphFacts, graph_facts
    from autotune_rlm.networks._fields import network_fields
    from autotune_rlm.networks._graph import Graph, read_graph
    from autotune_rlm.networks._text import onnx_text, printable_text
    from autotune_rlm.networks.spaces import ArchitectureSpace, space

_HOME = {
    "ArchitectureSpace": "spaces",
    "Graph": "_graph",
    "GraphFacts": "_facts",
    "graph_facts": "_facts",
    "network_fields": "_fields",
    "onnx_text": "_text",
    "printable_text": "_text",
    "read_graph": "_graph",
    "space": "spaces",
}

__all__ = [
    "ArchitectureSpace",
    "Graph",
    "GraphFacts",
    "graph_facts",
    "network_fields",
    "onnx_text",
    "printable_text",
    "read_graph",
    "space",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
