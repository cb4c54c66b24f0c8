"""vLLM's files for five public models on five GPUs, predicted: seconds of one core for each.

    python benchmarks/serving_files.py --out build/configs

Sizes are those of the models' own config.json, divided by the GPUs that share a layer.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from autotune_rlm.integrations.serving import BATCHES, ServingFile, driver_name, predict
from autotune_rlm.surrogate import load_surrogate

BLOCKS = {"dtype": "fp8_w8a8", "block_shape": (128, 128)}
MODELS = {
    # name: GPUs, and what a layer of experts is on one of them
    "Mixtral-8x7B": (2, {"E": 8, "N": 14336 // 2, "hidden_size": 4096, "top_k": 2}),
    "DeepSeek-V3": (8, {"E": 256, "N": 2048 // 8, "hidden_size": 7168, "top_k": 8, **BLOCKS}),
    "Qwen3-235B-A22B-FP8": (
        4,
        {"E": 128, "N": 1536 // 4, "hidden_size": 4096, "top_k": 8, **BLOCKS},
    ),
    "Llama-4-Scout": (8, {"E": 16, "N": 8192 // 8, "hidden_size": 5120, "top_k": 1}),
    "gpt-oss-120b": (1, {"E": 128, "N": 2880, "hidden_size": 2880, "top_k": 4}),
}
DEVICES = ("H200", "B300", "RTX PRO 6000 Blackwell", "GB10", "MI355X")


def main() -> None:
    """Predict all files and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/configs"))
    parser.add_argument("--devices", nargs="*", default=DEVICES)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    given = parser.parse_args()
    model = load_surrogate()
    print(
        "| model | GPUs | GPU | file | s of a core |\n| --- | --- | --- | --- | --- |", flush=True
    )
    for name in given.models:
        gpus, sizes = MODELS[name]
        for device in given.devices:
            begin = time.process_time()
            file = ServingFile(kernel="fused_moe", device_name=driver_name(device), **sizes)
            found = {e.batch: e.config for e in predict(file, batches=BATCHES, surrogate=model)}
            path = file.with_configs(found).write(given.out)
            seconds = time.process_time() - begin
            print(f"| {name} | {gpus} | {device} | `{path.name}` | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
