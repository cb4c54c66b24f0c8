"""Predicted latency of 60 networks exported with torch's default exporter, on this machine's CPU.

    python benchmarks/exported_networks.py --folder exports
    python benchmarks/exported_networks.py --folder others --others

Ten families in six sizes, over three decades of multiply-accumulates, built from configurations
with random weights; with ``--others`` eight families that no constant of the package was chosen on.
Each is exported once (kept in the folder), predicted, and measured with ONNX
Runtime on one thread. Prints, before any is measured and after 10 that are drawn at random: Spearman's
rank correlation, the median factor between prediction and measurement, and the share of
measurements within the 90 % interval, on the networks that were not shown (mean of 10 draws).
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

SIZES = range(6)


class Only:
    """Builds a module that gives one output of a network of transformers."""

    def __new__(cls, network: Any, output: str, argument: str = "") -> Any:
        import torch

        class Module(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def forward(self, x: Any) -> Any:
                return getattr(
                    self.network(**{argument: x}) if argument else self.network(x), output
                )

        return Module()


def build(family: str, size: int) -> tuple[Any, Any]:
    """A module and its input."""
    import torch
    import transformers as tr
    from torch import nn

    width = (16, 32, 64, 96, 160, 256)[size]
    deep = (1, 2, 2, 3, 4, 6)[size]
    side = (32, 32, 64, 64, 96, 128)[size]
    tokens = torch.zeros((1, (16, 32, 64, 64, 128, 128)[size]), dtype=torch.long)
    image = torch.zeros(1, 3, side, side)
    text = {"num_hidden_layers": deep, "num_attention_heads": 4, "vocab_size": 1000}
    if family == "mlp":
        layers: list[Any] = [nn.Linear(64, 4 * width), nn.GELU()]
        for _ in range(2 * deep):
            layers += [nn.Linear(4 * width, 4 * width), nn.LayerNorm(4 * width), nn.GELU()]
        return nn.Sequential(*layers, nn.Linear(4 * width, 10)), torch.zeros(8, 64)
    if family == "plain":
        layers, inputs = [], 3
        for i in range(2 + deep):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if i < 3 else []
            inputs = width
        return nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)
        ), image
    if family == "depthwise":
        layers = [nn.Conv2d(3, width, 3, stride=2, padding=1)]
        for _ in range(2 * deep):
            layers += [nn.Conv2d(width, width, 5, padding=2, groups=width), nn.BatchNorm2d(width)]
            layers += [nn.Hardswish(), nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)]
        return nn.Sequential(*layers), image
    if family == "segment":
        down = [nn.Conv2d(3, width // 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        middle = [m for _ in range(deep) for m in (
            nn.Conv2d(width // 2, width // 2, 3, padding=1), nn.SiLU())]  # fmt: skip
        up = [nn.ConvTranspose2d(width // 2, 8, 2, stride=2), nn.ReLU(), nn.Conv2d(8, 2, 1)]
        return nn.Sequential(*down, *middle, *up), image
    if family == "lstm":

        class Recurrent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.LSTM(32, width, min(deep, 3), batch_first=True)

            def forward(self, x: Any) -> Any:
                return self.layers(x)[0]

        return Recurrent(), torch.zeros(1, 8 * (size + 1), 32)
    if family == "resnet":
        config = tr.ResNetConfig(embedding_size=width, hidden_sizes=[width, 2 * width],
                                 depths=[deep, deep], layer_type="basic")  # fmt: skip
        return Only(tr.ResNetModel(config), "last_hidden_state"), image
    if family == "convnext":
        config = tr.ConvNextConfig(
            hidden_sizes=[width, 2 * width], depths=[deep, deep], num_stages=2
        )
        return Only(tr.ConvNextModel(config), "last_hidden_state"), image
    if family == "vit":
        config = tr.ViTConfig(hidden_size=2 * width, num_hidden_layers=deep, num_attention_heads=4,
                              intermediate_size=4 * width, image_size=side, patch_size=8)  # fmt: skip
        return Only(tr.ViTModel(config, add_pooling_layer=False), "last_hidden_state"), image
    if family == "bert":
        config = tr.BertConfig(hidden_size=2 * width, intermediate_size=8 * width, **text)
        return Only(tr.BertModel(config, add_pooling_layer=False), "last_hidden_state"), tokens
    if family == "gpt2":
        config = tr.GPT2Config(
            n_embd=2 * width, n_layer=deep, n_head=4, vocab_size=1000, use_cache=False
        )
        return Only(tr.GPT2LMHeadModel(config), "logits"), tokens
    return build_other(family, size)


def build_other(family: str, size: int) -> tuple[Any, Any]:
    """A module of the eight other families and its input."""
    import torch
    import transformers as tr
    from torch import nn

    width = (24, 40, 56, 80, 120, 200)[size]
    deep = (1, 2, 3, 3, 5, 7)[size]
    side = (32, 32, 64, 64, 96, 96)[size]
    image = torch.zeros(1, 3, side, side)
    tokens = torch.zeros((1, (24, 48, 48, 96, 96, 160)[size]), dtype=torch.long)
    if family == "wave":
        layers: list[Any] = [nn.Conv1d(1, width, 9, stride=2)]
        for i in range(2 * deep):
            layers += [nn.Conv1d(width, width, 3, padding=2**i % 16, dilation=2**i % 16 or 1)]
            layers += [nn.GroupNorm(4, width), nn.Tanh()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1)), torch.zeros(1, 1, 400 * (size + 1))
    if family == "gru":

        class Recurrent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.GRU(48, width, min(deep, 2), batch_first=True, bidirectional=True)

            def forward(self, x: Any) -> Any:
                return self.layers(x)[0]

        return Recurrent(), torch.zeros(2, 6 * (size + 1), 48)
    if family == "dense":

        class Dense(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.ModuleList(
                    nn.Conv2d(3 + i * (width // 2), width // 2, 3, padding=1)
                    for i in range(2 * deep)
                )

            def forward(self, x: Any) -> Any:
                for layer in self.layers:
                    x = torch.cat([x, torch.relu(layer(x))], 1)
                return x

        return Dense(), image
    if family == "mixer":

        class Mixer(nn.Module):
            def __init__(self, patches: int) -> None:
                super().__init__()
                self.embed = nn.Conv2d(3, 2 * width, 8, stride=8)
                self.along = nn.ModuleList(nn.Linear(patches, patches) for _ in range(deep))
                self.across = nn.ModuleList(
                    nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, 4 * width),
                                  nn.GELU(), nn.Linear(4 * width, 2 * width))
                    for _ in range(deep)
                )  # fmt: skip

            def forward(self, x: Any) -> Any:
                x = self.embed(x).flatten(2)
                for along, across in zip(self.along, self.across, strict=True):
                    x = x + along(x)
                    x = x + across(x.transpose(1, 2)).transpose(1, 2)
                return x

        return Mixer((side // 8) ** 2), image
    if family == "mobile":
        config = tr.MobileNetV2Config(image_size=side, depth_multiplier=width / 80)
        return Only(tr.MobileNetV2Model(config), "last_hidden_state"), image
    if family == "regnet":
        config = tr.RegNetConfig(
            embedding_size=width, hidden_sizes=[width, 2 * width], depths=[deep, deep],
            groups_width=8,
        )  # fmt: skip
        return Only(tr.RegNetModel(config), "last_hidden_state"), image
    if family == "distilbert":
        config = tr.DistilBertConfig(
            dim=2 * width, hidden_dim=6 * width, n_layers=deep, n_heads=4, vocab_size=2000
        )
        return Only(tr.DistilBertModel(config), "last_hidden_state"), tokens
    if family == "albert":
        config = tr.AlbertConfig(
            embedding_size=32, hidden_size=2 * width, intermediate_size=4 * width,
            num_hidden_layers=2 * deep, num_attention_heads=4, vocab_size=500,
        )  # fmt: skip
        return Only(tr.AlbertModel(config, add_pooling_layer=False), "last_hidden_state"), tokens
    raise ValueError(family)


FAMILIES = "mlp plain depthwise segment lstm resnet convnext vit bert gpt2".split()  # noqa: SIM905
OTHERS = "wave gru dense mixer mobile regnet distilbert albert".split()  # noqa: SIM905


def export(folder: Path, families: list[str]) -> list[Path]:
    """The files, those that are missing made."""
    import torch

    paths = []
    for family in families:
        for size in SIZES:
            path = folder / f"{family}-{size}.onnx"
            paths.append(path)
            if path.exists():
                continue
            torch.manual_seed(0)
            module, x = build(family, size)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    module.eval(), (x,), str(path), verbose=False, external_data=False
                )
    return paths


def measure(paths: list[Path], folder: Path) -> dict[str, float]:
    """Milliseconds by file name; kept in the folder."""
    from autotune_rlm.measure import OnnxRuntimeMeasurer
    from autotune_rlm.measure.detect import cpu_device
    from autotune_rlm.types import Candidate, Task

    kept = folder / "latency_ms.json"
    if kept.exists():
        return json.loads(kept.read_text())
    task = Task(kernel="networks", device=cpu_device(), language="onnx", metric="latency_ms")
    with OnnxRuntimeMeasurer() as measurer:
        asked = [Candidate({"name": p.name}, payload=str(p)) for p in paths]
        told = {c.config["name"]: m for c, m in measurer.measure(task, asked)}
    failed = {name: m.reason for name, m in told.items() if not m.ok}
    if failed:
        print("not measured:", failed)
    values = {name: m.value for name, m in told.items() if m.ok}
    kept.write_text(json.dumps(values, indent=1))
    return values


def judged(predicted: Any, real: np.ndarray) -> tuple[float, float, float]:
    """Spearman's rho, median factor, coverage."""
    factor = np.exp(np.median(np.abs(np.log(predicted.median / real))))
    inside = np.mean((predicted.low <= real) & (real <= predicted.high))
    return float(spearmanr(predicted.median, real)[0]), float(factor), float(inside)


def main() -> None:
    from autotune_rlm.integrations.onnx import graph_facts, predict
    from autotune_rlm.networks import read_graph

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("exports"))
    parser.add_argument("--others", action="store_true", help="the eight other families")
    parser.add_argument("--shown", type=int, default=10)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    options.folder.mkdir(parents=True, exist_ok=True)
    paths = export(options.folder, OTHERS if options.others else FAMILIES)
    values = measure(paths, options.folder)
    names = [p.name for p in paths if p.name in values]
    graphs = [read_graph(options.folder / n) for n in names]
    facts = [graph_facts(g) for g in graphs]
    real = np.array([values[n] for n in names])
    macs = np.array([f.macs for f in facts], dtype=float)
    print(f"{len(names)} networks, {macs.min():.2g} to {macs.max():.2g} multiply-accumulates, "
          f"{real.min():.3g} to {real.max():.3g} ms, "
          f"{sum(f.unknown for f in facts)} operators unknown")  # fmt: skip
    print("| measured | Spearman | median factor | within the 90 % interval |")
    print("| --- | --- | --- | --- |")
    before = judged(predict(graphs), real)
    print(f"| none | {before[0]:.3f} | {before[1]:.2f} | {before[2]:.0%} |")
    print(f"| none, by multiply-accumulates | {spearmanr(macs, real)[0]:.3f} | | |")
    after = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(names))
        seen, rest = order[: options.shown], order[options.shown :]
        known = [(graphs[i], float(real[i])) for i in seen]
        told = predict([graphs[i] for i in rest], observed={"latency_ms": known})
        after.append(judged(told, real[rest]))
    mean = np.mean(after, axis=0)
    print(f"| {options.shown} | {mean[0]:.3f} | {mean[1]:.2f} | {mean[2]:.0%} |")


if __name__ == "__main__":
    main()
