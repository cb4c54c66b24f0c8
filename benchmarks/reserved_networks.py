"""Rank correlation on the networks that no bundled model is ever trained on.

    python benchmarks/reserved_networks.py recipes/nano.yaml --data FOLDER [--surrogate FOLDER]

A recipe's ``reserve`` keeps a share of each architecture table out of training, drawn by a hash.
Zero-shot: nothing of the column is told to the model.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau, spearmanr

from autotune_rlm.landscapes.architectures import read_architectures
from autotune_rlm.surrogate import load
from autotune_rlm.surrogate.training.recipe import Recipe
from autotune_rlm.surrogate.training.run import is_reserved


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
    table = Table("table", "column", "networks", "Spearman", "Kendall")
    for source in recipe.sources:
        if source.format != "architectures":
            continue
        networks = read_architectures(Path(recipe.root) / source.path)
        rows = [i for i, c in enumerate(networks.configs) if is_reserved(c, source.reserve)]
        rows = np.random.default_rng(0).permutation(rows)[: args.networks].tolist()
        for landscape in networks.take(rows).landscapes():
            predicted = surrogate.predict(landscape.task, landscape.candidates).median
            rho = spearmanr(predicted, landscape.values).statistic
            tau = kendalltau(predicted, landscape.values).statistic
            column = landscape.task.metric
            table.add_row(source.path, column, str(len(landscape)), f"{rho:.3f}", f"{tau:.3f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
