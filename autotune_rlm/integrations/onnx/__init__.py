"""Networks as ONNX: text for the model, facts, search spaces, prediction and search."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune_rlm.integrations.onnx._facts import GraphFacts, graph_facts
    from autotune_rlm.integrations.onnx._graph import Graph, read_graph
    from autotune_rlm.integrations.onnx._text import onnx_text, printable_text

_HOME = {
    "Graph": "_graph",
    "GraphFacts": "_facts",
    "graph_facts": "_facts",
    "onnx_text": "_text",
    "printable_text": "_text",
    "read_graph": "_graph",
}

__all__ = ["Graph", "GraphFacts", "graph_facts", "onnx_text", "printable_text", "read_graph"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
