"""What a network's ONNX text tells beside its fields: NAS-Bench-101 and -201, networks never trained on.

    python benchmarks/network_texts.py --data FOLDER --surrogate recipes/weights/nano-validation

Spearman's (Kendall's) rank correlation of accuracies with fields alone, text alone and both, on the fifth
of the networks that no recipe trains on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau, spearmanr
from sequence_of_targets import shown

from autotune_rlm.landscapes.architectures import read_architectures
from autotune_rlm.landscapes.columns import column_task
from autotune_rlm.networks.rendering import network_candidate
from autotune_rlm.surrogate import load_surrogate

TABLES = (
    ("nasbench101_30k.csv.gz", "val_acc_108"),
    ("nasbench201.csv.gz", "c10_val_ep200"),
    ("nasbench201.csv.gz", "c10_val_ep12"),
    ("accel_nasbench.csv.gz", "val_top1"),  # no recipe has read texts of such networks
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--surrogate", help="checkpoint; default: the bundled one")
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--unnamed", action="store_true", help="as networks of no known space")
    args = parser.parse_args()
    surrogate = load_surrogate(args.surrogate)
    printed = Table("table", "column", "fields", "text", "both", title="Spearman (Kendall)")
    for name, column in TABLES:
        _, table = read_architectures(args.data / "nas" / name).split(0.2)
        known = np.flatnonzero(np.isfinite(table.target(column)))
        rows = np.random.default_rng(0).permutation(known)[: args.networks]
        table = table.take(np.sort(rows))
        candidates = [
            network_candidate(
                fields, None if args.unnamed else config, text=table.space.text(config)
            )
            for config, fields in zip(table.configs, table.fields, strict=True)
        ]
        task = column_task(column, table.space.name, named=not args.unnamed)
        values, scores = table.target(column), []
        for read in ("fields", "text", "both"):
            (one,) = surrogate.predict_several([task], shown(candidates, read))  # reads texts
            told = one.median
            rho, tau = spearmanr(told, values).statistic, kendalltau(told, values).statistic
            scores.append(f"{rho:.3f} ({tau:.3f})")
        printed.add_row(table.name, column, *scores)
    Console(width=120).print(printed)


if __name__ == "__main__":
    main()
