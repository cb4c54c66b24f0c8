"""What decides the surrogate's quality: one thing changed at a time, trained alike, judged alike.

    python benchmarks/ablations.py base p10 small --steps 1000 --data FOLDER --json ablations.jsonl
    python benchmarks/ablations.py --summary ablations.jsonl

Trains on the landscapes and compile facts of a recipe (no networks, no hard examples), judges on what the
recipe holds out, before anything is measured of it. Without names: every variant. From a landscape of
thousands of configurations, 200 are drawn, the same ones for all.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr
from torch import Tensor

from autotune_rlm.landscapes import Landscape
from autotune_rlm.surrogate.codec import DigitCodec
from autotune_rlm.surrogate.decoding import expand
from autotune_rlm.surrogate.fields import EncodedTask, FieldTable
from autotune_rlm.surrogate.metrics import BINS, CODECS
from autotune_rlm.surrogate.network import FieldTensors, Network
from autotune_rlm.surrogate.numbers import NUMBER_FEATURES
from autotune_rlm.surrogate.tokenizer import TextTokenizer, padded
from autotune_rlm.training.examples import Batch, Example, collate, encode_landscape
from autotune_rlm.training.loss import batch_loss, forward
from autotune_rlm.training.prompts import live_renderings
from autotune_rlm.training.recipe import Recipe
from autotune_rlm.training.run import TrainingData, load_data
from autotune_rlm.training.trainer import train_network

_SPECIAL, _FAILED, _UNKNOWN = 2, -1.0, -2.0
_OF_EACH, _ROWS, _WIDTH = 60, 200, 16
_SOURCE = 512
_MATMULS = ("inductor_mm", "inductor_mixed_mm")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One change to the recipe.

    Attributes:
        about: What it is, for the table.
        network: Sizes in place of the recipe's.
        recipe: Keys in place of the recipe's.
        codec: Digits that are written in place of one bin.
        digits: Whether numbers are read as text.
        source: Whether programs are read.
        split: Whether the shared part is encoded once; else each candidate has it among its fields.
        facts: Whether facts of compilation are learned.
    """

    about: str
    network: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    codec: DigitCodec | None = None
    digits: bool = False
    source: bool = True
    split: bool = True
    facts: bool = True


_SMALL = {"d_model": 64, "d_ff": 256, "decoder_layers": 2, "encoder_layers": 1, "source_layers": 1}
_LARGE = {"d_model": 192, "d_ff": 768, "decoder_layers": 6, "heads": 6}
VARIANTS = {
    "base": Variant(about="as the recipe"),
    "p10": Variant(about="digits p10", codec=DigitCodec(style="p10")),
    "ieee": Variant(about="digits ieee", codec=DigitCodec(style="ieee")),
    "hard": Variant(about="bins, one-hot targets", recipe={"smoothing": 0.2}),
    "text": Variant(about="numbers as text", digits=True),
    "small": Variant(about="smaller network", network=_SMALL),
    "large": Variant(about="larger network", network=_LARGE),
    "no-source": Variant(about="programs not read", source=False),
    "no-split": Variant(about="shared fields in each candidate", split=False, recipe={"drop": 0.0}),
    "no-facts": Variant(about="no facts of compilation", facts=False),
}


def texts_of_numbers(table: FieldTable, tokenizer: TextTokenizer) -> FieldTensors:
    """All fields with numbers written out, at most eight pieces of them."""
    texts = [f"{f.value:g}" if isinstance(f.value, float) else f.value for f in table.fields]
    n = len(texts)
    return FieldTensors(
        name=torch.from_numpy(padded([tokenizer.pieces(f.name) for f in table.fields])),
        text=torch.from_numpy(padded([tokenizer.pieces(t) for t in texts])),
        number=torch.zeros(n, NUMBER_FEATURES),
        is_number=torch.zeros(n, dtype=torch.bool),
    )


def changed(example: Example, variant: Variant) -> list[Example]:
    """An example as a variant sees it; without the split, one per rendering."""
    prompts = example.prompts
    if not variant.source:
        prompts = tuple(EncodedTask(p.fields, p.source[:0]) for p in prompts)
    if variant.split:
        return [replace(example, prompts=prompts)]
    renderings = (
        prompts if len(prompts) == 1 else (prompts[0],) * 2 * (len(prompts) - 1) + prompts[1:]
    )
    return [_joined(example, prompt) for prompt in renderings]


def _joined(example: Example, prompt: EncodedTask) -> Example:
    told = np.broadcast_to(prompt.fields, (len(example), len(prompt.fields)))
    index = np.concatenate([example.index, told], axis=1)
    return replace(example, index=index, prompts=(EncodedTask(prompt.fields[:1], prompt.source),))


def digit_loss(codec: DigitCodec) -> Callable[..., Tensor]:
    """The cross-entropy of a number's digits, as the paper trains."""

    def loss(
        network: Network, fields: FieldTensors, batch: Batch, metrics: Tensor, *, smoothing: float
    ) -> Tensor:
        names = [network.config.metrics[i] for i in metrics.tolist()]
        bins = batch.targets.reshape(-1, len(names))
        tokens = np.concatenate(
            [
                codec.encode(CODECS[m].value_at(np.maximum(b, 0.0)), b == _FAILED)
                for m, b in zip(names, bins.T, strict=True)
            ],
            axis=1,
        )
        counts = np.repeat(bins > _UNKNOWN, codec.length, axis=1)
        first = np.arange(tokens.shape[1]) % codec.length == 0
        counts &= first | np.repeat(bins != _FAILED, codec.length, axis=1)
        told = torch.from_numpy(tokens)
        logits, *_ = forward(network, fields, batch, metrics, told[:, :-1])
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), told, reduction="none")
        weight = torch.from_numpy(counts).float()
        return codec.length * (each * weight).sum() / weight.sum().clamp(min=1)

    return loss


class Judge:
    """Predictions of a trained network for examples.

    Args:
        network: The network.
        fields: All distinct fields.
        codec: Of its numbers; None for bins.
    """

    def __init__(self, network: Network, fields: FieldTensors, codec: DigitCodec | None) -> None:
        self.network, self.fields, self.codec = network.eval(), fields, codec

    @torch.inference_mode()
    def __call__(self, example: Example, rows: np.ndarray, metrics: Sequence[str]) -> np.ndarray:
        """The last metric's expected place (bins) or value (digits), as its rank needs; shape (n,)."""
        batch = collate([example], [rows], [example.prompts[-1]], metrics)
        asked = torch.tensor([self.network.config.metrics.index(m) for m in metrics])
        if self.codec is not None:
            return self._digits(batch, asked)
        batch = batch._replace(targets=batch.targets[..., :1])  # what is true is not told
        told: Tensor | None = None
        for _ in metrics:
            logits, *_ = forward(self.network, self.fields, batch, asked, told)
            likely = logits[:, -1:].argmax(-1)
            told = likely if told is None else torch.cat([told, likely], dim=1)
        p = logits[:, -1].softmax(-1).double().numpy()
        worked = p[:, _SPECIAL:] / p[:, _SPECIAL:].sum(1, keepdims=True)
        return CODECS[metrics[-1]].value_at(worked @ np.arange(BINS)) + 10.0 * p[:, 0]

    def _digits(self, batch: Batch, asked: Tensor) -> np.ndarray:
        codec, network = self.codec, self.network
        assert codec is not None
        nothing = torch.zeros(batch.candidates.shape[1], 0, dtype=torch.long)
        _, memory, *_ = forward(network, self.fields, batch, asked, nothing)
        ids, where = np.unique(batch.candidates[0], return_inverse=True)
        own = network.embed_fields(FieldTensors(*(t[np.maximum(ids, 0)] for t in self.fields)))
        where = where.reshape(batch.candidates[0].shape)
        places = torch.from_numpy(np.where(batch.candidates[0] < 0, -1, where))
        found = []
        for row in places:
            written = torch.zeros(0, dtype=torch.long)
            for _ in asked[:-1]:
                step = self._step(memory, own, row, asked, written)
                best = expand(codec, step, width=1)
                tokens = codec.encode(best.values if len(best.values) else np.array([0.0]))
                written = torch.cat([written, torch.from_numpy(tokens[0])])
            told = expand(codec, self._step(memory, own, row, asked, written), width=_WIDTH)
            mean = told.mean if len(told.values) else 0.0
            found.append(mean + 10.0 * told.p_failed)
        return np.array(found)

    def _step(self, memory: Any, own: Tensor, row: Tensor, asked: Tensor, written: Tensor) -> Any:
        def step(prefixes: np.ndarray) -> np.ndarray:
            n = len(prefixes)
            told = torch.cat([written.expand(n, -1), torch.from_numpy(prefixes)], dim=1)
            logits, _ = self.network.decode(memory, own, row.expand(n, -1), asked[None], told)
            return logits[:, -1].double().numpy()

        return step


def groups_of(held_out: Sequence[Landscape]) -> dict[str, list[Landscape]]:
    """What is judged: at most sixty landscapes of a kind."""
    rng = np.random.default_rng(0)

    def some(found: list[Landscape]) -> list[Landscape]:
        chosen = rng.permutation(len(found))[:_OF_EACH]
        return [found[i] for i in chosen]

    timed = [
        x for x in held_out if x.task.metric != "compile_s" and np.isfinite(x.values).sum() > 1
    ]
    facts = [x for x in held_out if x.task.kernel in ("fused_add_rms_norm", "depthwise_conv2d")]
    mm = [x for x in timed if x.task.kernel in _MATMULS]
    return {
        "mm, unseen shapes": some([x for x in mm if x.task.device.name == "NVIDIA A100"]),
        "mm, unseen device": some([x for x in mm if x.task.device.name == "NVIDIA H100"]),
        "triton matmul": [x for x in timed if x.task.kernel == "triton_matmul"],
        "unseen kernels": [x for x in timed if "convolution" in x.task.kernel],
        "facts": some(facts),
    }


def scores_of(judge: Judge, groups: dict[str, list[Example]]) -> dict[str, list[float]]:
    """By kind of landscape: median Spearman and mean regret of the first choice, or the facts' errors."""
    told: dict[str, list[float]] = {}
    rng = np.random.default_rng(1)
    for name, examples in groups.items():
        rho, regret = [], []
        for example in track(examples, f"judging {name}", transient=True):
            rows = np.sort(rng.permutation(len(example))[:_ROWS])
            if name == "facts":
                for metrics, errors in (
                    (("shared_bytes",), rho),
                    (("shared_bytes", "registers"), regret),
                ):
                    bins = example.targets.get(metrics[-1])
                    if bins is not None:
                        truth = CODECS[metrics[-1]].value_at(bins[rows])
                        error = np.abs(np.clip(judge(example, rows, metrics), 0.0, 16.0) - truth)
                        errors.append(float(np.exp(np.median(error[bins[rows] >= 0]))))
                continue
            values = example.errors[rows]
            worked = np.isfinite(values)
            predicted = judge(example, rows, ("slowdown",))
            if worked.sum() > 1 and np.ptp(predicted[worked]) > 0:
                rho.append(float(spearmanr(predicted[worked], values[worked]).statistic))
            first = values[np.argmin(predicted)]
            first = first if np.isfinite(first) else np.nanmax(values)
            regret.append(float(first / np.nanmin(values) - 1))
        told[name] = [
            float(np.median(rho)),
            float(np.median(regret) if name == "facts" else np.mean(regret)),
        ]
    return told


def run(
    variant: Variant, recipe: Recipe, data: TrainingData, groups: dict[str, list[Example]]
) -> dict[str, Any]:
    """Train one variant and judge it."""
    codec = variant.codec
    recipe = replace(recipe, **variant.recipe, network={**recipe.network, **variant.network})
    vocabulary = codec.vocab_size if codec else BINS + _SPECIAL
    config = recipe.network_config(
        vocab_size=len(data.tokenizer),
        number_vocab=vocabulary,
        number_length=codec.length if codec else 1,
    )
    fields = (
        texts_of_numbers(data.table, data.tokenizer)
        if variant.digits
        else data.table.tensors(data.tokenizer)
    )
    sources = {
        name: ([c for e in examples for c in changed(e, variant)], weight)
        for name, (examples, weight) in data.sources.items()
        if variant.facts or "compile_facts" not in name
    }
    torch.manual_seed(recipe.seed)
    network = Network(config)
    loss = digit_loss(codec) if codec else batch_loss
    start = time.process_time()
    state = train_network(network, fields, sources, recipe, device="cpu", loss_of=loss)
    trained = time.process_time() - start
    shown = {k: [changed(e, variant)[-1] for e in v] for k, v in groups.items()}
    start = time.process_time()
    scores = scores_of(Judge(state.averaged, fields, codec), shown)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "step_ms": trained / recipe.steps * 1e3,
        "judging_s": time.process_time() - start,
        "scores": scores,
    }


def summary(path: Path) -> None:
    """The table of what ``--json`` wrote."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kinds = list(lines[0]["scores"])
    table = Table(
        "variant",
        "M parameters",
        "step ms",
        *kinds,
        "judging s",
        title=f"{lines[0]['steps']} steps",
    )
    for line in lines:
        cells = [
            f"x{a:.2f} x{b:.2f}" if k == "facts" else f"{a:.3f} / {b:.1%}"
            for k, (a, b) in line["scores"].items()
        ]
        table.add_row(
            VARIANTS[line["variant"]].about
            + (f", seed {line['seed']}" if line.get("seed") else ""),
            f"{line['parameters'] / 1e6:.2f}",
            f"{line['step_ms']:.0f}",
            *cells,
            f"{line['judging_s']:.0f}",
        )
    Console(width=200).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--recipe", default="recipes/nano-validation.yaml")
    parser.add_argument("--data", help="folder of the recipe's sources")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")
    parser.add_argument("--json", type=Path, help="append one line per variant here")
    parser.add_argument("--summary", type=Path, help="print a table of what --json wrote")
    args = parser.parse_args()
    if args.summary:
        summary(args.summary)
        return
    if unknown := set(args.variants) - set(VARIANTS):
        parser.error(f"unknown variants {sorted(unknown)}; known are {list(VARIANTS)}")
    torch.set_num_threads(1)
    recipe = Recipe.load(args.recipe)
    recipe = replace(
        recipe,
        root=args.data or recipe.root,
        sources=tuple(s for s in recipe.sources if s.format == "landscapes"),
        network={**recipe.network, "max_source": _SOURCE},
        steps=args.steps,
        tasks=8,
        minutes=None,
        mined=0.0,
        seed=args.seed,
    )
    data = load_data(recipe)
    groups: dict[str, list[Example]] = {}
    for name, found in groups_of(data.held_out).items():
        encoded = [
            encode_landscape(
                x,
                data.table,
                data.tokenizer,
                renderings=live_renderings(x.task)[:1],
                max_source=_SOURCE,
            )
            for x in found
        ]
        groups[name] = [e for e in encoded if e is not None]
    for name in args.variants or VARIANTS:
        line = {"variant": name, "steps": args.steps, "seed": args.seed}
        line |= run(VARIANTS[name], recipe, data, groups)
        print(json.dumps(line), flush=True)
        if args.json:
            with args.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
