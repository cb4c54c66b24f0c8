"""Networks as ONNX: text for the model, facts, search spaces, prediction and search."""

from __future__ import annotations

from autotune_rlm.integrations.onnx._predict import predict
from autotune_rlm.integrations.onnx._search import search
from autotune_rlm.networks import graph_facts, onnx_text, printable_text
from autotune_rlm.networks.spaces import ArchitectureSpace, space

__all__ = [
    "ArchitectureSpace",
    "graph_facts",
    "onnx_text",
    "predict",
    "printable_text",
    "search",
    "space",
]
