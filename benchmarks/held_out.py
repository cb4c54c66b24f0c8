"""Writes the landscapes that a recipe keeps out of training, one file per kernel and device.

python benchmarks/held_out.py recipes/nano-validation.yaml --data FOLDER --out runs/held-out
autotune-rlm bench kernels runs/held-out/*.csv.gz --surrogate recipes/weights/nano-validation ...
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from autotune_rlm.landscapes import Landscape, write_landscapes
from autotune_rlm.training.examples import is_held_out
from autotune_rlm.training.recipe import Recipe
from autotune_rlm.training.run import read_source


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--data", help="folder of the recipe's sources")
    parser.add_argument("--out", default="runs/held-out", type=Path)
    args = parser.parse_args()
    recipe = Recipe.load(args.recipe)
    if args.data:
        recipe = replace(recipe, root=args.data)
    groups: defaultdict[str, list[Landscape]] = defaultdict(list)
    for source in recipe.sources:
        if source.format != "landscapes":
            continue
        for landscape in read_source(source, Path(recipe.root)):
            task = landscape.task
            if is_held_out(landscape, recipe.holdout) and task.metric != "compile_s":
                device = task.device.name.replace(" ", "-")
                groups[f"{task.kernel}__{device}"].append(landscape)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, landscapes in groups.items():
        write_landscapes(args.out / f"{name}.csv.gz", landscapes)
        print(f"{name}: {len(landscapes)} landscapes")


if __name__ == "__main__":
    main()
