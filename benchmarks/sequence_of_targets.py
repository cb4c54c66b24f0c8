"""Accuracy and latencies of networks in one sequence, beside one target at a time.

    python benchmarks/sequence_of_targets.py --data FOLDER --surrogate recipes/weights/nano-validation
    python benchmarks/sequence_of_targets.py --data FOLDER --surrogate FOLDER --read text

``--data`` holds ``nas/nasbench201.csv.gz``. Judged on the fifth of the networks that no recipe trains on
(``reserve: 0.2``), by Spearman's and Kendall's rank correlation. ``--read`` says what is shown of a
network: its ``fields``, its ONNX ``text``, or ``both``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau, spearmanr

from autotune_rlm.landscapes.architectures import read_architectures
from autotune_rlm.landscapes.columns import column_task
from autotune_rlm.networks.rendering import network_candidate
from autotune_rlm.surrogate import load_surrogate
from autotune_rlm.types import Candidate

TARGETS = (
    "c10_val_ep200",
    "hwnb_c10_pixel3_latency",
    "hwnb_c10_edgegpu_latency",
    "hwnb_c10_edgetpu_latency",
    "help_gold_6240",
    "help_1080ti_1",
    "oneproxy_eagle_dsp_855",
    "nnmeter_myriad_vpu",
)


def shown(candidates: list[Candidate], read: str) -> list[Candidate]:
    """The candidates as far as they are to be read."""
    return [
        Candidate({} if read == "text" else c.config, "" if read == "fields" else c.text)
        for c in candidates
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--surrogate", help="checkpoint; default: the bundled one")
    parser.add_argument("--read", choices=("fields", "text", "both"), action="append")
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--target", action="append", help="columns of the table, in their order")
    args = parser.parse_args()
    surrogate = load_surrogate(args.surrogate)
    targets = args.target or list(TARGETS)
    _, table = read_architectures(args.data / "nas" / "nasbench201.csv.gz").split(0.2)
    rows = np.random.default_rng(0).permutation(len(table))[: args.networks]
    table = table.take(np.sort(rows))
    candidates = [
        network_candidate(fields, config, text=table.space.text(config))
        for config, fields in zip(table.configs, table.fields, strict=True)
    ]
    tasks = [column_task(column, table.space.name) for column in targets]
    printed = Table("read", "target", "in sequence", "alone", title="Spearman (Kendall)")
    for read in args.read or ("fields", "text", "both"):
        networks = shown(candidates, read)
        together = surrogate.predict_several(tasks, networks)
        for column, task, told in zip(targets, tasks, together, strict=True):
            values = table.target(column)
            known = np.isfinite(values)
            alone = surrogate.predict(task, networks)
            scores = [
                f"{spearmanr(x.median[known], values[known]).statistic:.3f} "
                f"({kendalltau(x.median[known], values[known]).statistic:.3f})"
                for x in (told, alone)
            ]
            printed.add_row(read, column, *scores)
    Console(width=120).print(printed)


if __name__ == "__main__":
    main()
