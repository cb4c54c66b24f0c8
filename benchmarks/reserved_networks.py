"""Rank correlation on the networks that no bundled model is ever trained on.

    python benchmarks/reserved_networks.py recipes/nano.yaml --data FOLDER [--surrogate FOLDER]

A recipe's ``reserve`` keeps a share of each architecture table out of training, drawn by a hash.
Zero-shot: no value of these networks is told to the model. "unnamed": neither are their space and
choices, as where a plain ONNX file is asked for.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau, spearmanr

from autotune_rlm.landscapes import Landscape
from autotune_rlm.landscapes.architectures import read_architectures
from autotune_rlm.surrogate import load
from autotune_rlm.surrogate.rlm import RLMSurrogate
from autotune_rlm.training.recipe import Recipe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--data", help="folder of the recipe's sources")
    parser.add_argument("--surrogate", help="folder or name; the bundled one where not given")
    parser.add_argument("--networks", type=int, default=1000, help="at most, per table")
    args = parser.parse_args()
    recipe = Recipe.load(args.recipe)
    if args.data:
        recipe = replace(recipe, root=args.data)
    surrogate = load(args.surrogate)
    table = Table("column", "networks", "Spearman", "Kendall", "unnamed Spearman", "Kendall")
    tables = {s.path: s for s in recipe.sources if s.format == "architectures"}
    for source in tables.values():
        networks = read_architectures(Path(recipe.root) / source.path)
        kept = networks.split(source.reserve)[1]
        rows = np.random.default_rng(0).permutation(len(kept))[: args.networks]
        landscapes = kept.take(rows).landscapes(unnamed=True)
        half = len(landscapes) // 2
        for named, unnamed in zip(landscapes[:half], landscapes[half:], strict=True):
            scores = [*agreement(surrogate, named), *agreement(surrogate, unnamed)]
            table.add_row(named.id, str(len(named)), *(f"{score:.3f}" for score in scores))
    Console(width=110).print(table)


def agreement(surrogate: RLMSurrogate, landscape: Landscape) -> tuple[float, float]:
    """Spearman's and Kendall's rank correlation of predictions with the values."""
    predicted = surrogate.predict(landscape.task, landscape.candidates).median
    values = landscape.values
    return spearmanr(predicted, values).statistic, kendalltau(predicted, values).statistic


if __name__ == "__main__":
    main()
