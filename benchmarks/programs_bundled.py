"""The bundled model, as users ask it, on the Python programs that nothing in it was trained on.

    python benchmarks/program_sources/texts.py join data/programs/python.csv.gz --out python.csv.gz
    python benchmarks/programs_bundled.py python.csv.gz

The fifth that is reserved by a hash of the program's name (``is_reserved_program``), the first six inputs
of each: Spearman's rank correlation over runs and over programs, and the share within the 90 % interval.
"""

from __future__ import annotations

import argparse

import pandas as pd
from scipy.stats import spearmanr
from train_program_eye import METRICS, SIZES, is_reserved

from autotune_rlm import RLM

INPUTS = 6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table")
    parser.add_argument("--model", help="a checkpoint; default: the bundled one")
    args = parser.parse_args()
    table = pd.read_csv(args.table, low_memory=False)
    reserved = table["group"].map(lambda name: is_reserved(str(name), 0.2))
    table = table[(table["status"] == "ok") & reserved & (table["input"] < INPUTS)]
    sizes = table[[name for name in SIZES if name in table]].astype(float)
    for metric in METRICS:
        model = RLM.load(args.model, metric=metric, language="python")
        low, middle, high = model.predict_quantiles(table["text"].tolist(), fields=sizes).T
        true = table[metric].to_numpy()
        both = pd.DataFrame({"program": table["program"].to_numpy(), "t": true, "p": middle})
        medians = both.groupby("program").median()
        print(
            f"{metric}: {len(table)} runs {spearmanr(true, middle).statistic:.3f}, "
            f"{len(medians)} programs {spearmanr(medians['t'], medians['p']).statistic:.3f}, "
            f"within 90 % {((true >= low) & (true <= high)).mean():.1%}"
        )


if __name__ == "__main__":
    main()
