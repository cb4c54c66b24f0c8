"""Reads every ONNX model below a folder: refusals, matrix work that is not counted, CPU seconds.

    pip download onnx==1.18.0 --no-deps && unzip -q onnx-1.18.0-*.whl -d models
    python benchmarks/onnx_models.py models

Prints the models that were refused or that have products but neither multiply-accumulates nor an
unknown operator, and a summary. The exit status is 1 where there is any.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from autotune_rlm.integrations.onnx import graph_facts, onnx_text

PRODUCTS = frozenset(
    {"Conv", "ConvInteger", "QLinearConv", "ConvTranspose", "DeformConv", "MatMul", "MatMulInteger"}
    | {"QLinearMatMul", "Gemm", "LSTM", "GRU", "RNN", "Attention"}
)


def products(model: onnx.ModelProto) -> set[str]:
    """Operators with matrix work, wherever they stand; read by other means than the package's."""

    def nodes(graph: Any) -> Iterator[onnx.NodeProto]:
        for node in graph.node:
            yield node
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from nodes(attribute.g)

    called = {(f.domain, f.name) for f in model.functions}
    every = [*nodes(model.graph), *(n for f in model.functions for n in nodes(f))]
    return {
        n.op_type for n in every if n.op_type in PRODUCTS and (n.domain, n.op_type) not in called
    }


def check(model: Any) -> str:
    """What is wrong with what is said of a model; empty where nothing is."""
    try:
        facts, text = graph_facts(model), onnx_text(model)
    except Exception as error:
        return f"refused: {type(error).__name__}: {error}"
    if not text.startswith("onnx "):
        return "has no text"
    proto = model if isinstance(model, onnx.ModelProto) else onnx.load(
        model, load_external_data=False)  # fmt: skip
    found = products(proto)
    if found and not facts.macs and not facts.unknown:
        return f"0 multiply-accumulates and nothing unknown with {sorted(found)}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    paths = sorted(parser.parse_args().folder.rglob("*.onnx"))
    wrong, begin = {}, time.process_time()
    for path in paths:
        if reason := check(path):
            wrong[path] = reason
            print(f"{path}: {reason}")
    seconds = time.process_time() - begin
    print(f"{len(paths)} models, {len(wrong)} wrong, {seconds:.1f} s of CPU time")
    return 1 if wrong or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
