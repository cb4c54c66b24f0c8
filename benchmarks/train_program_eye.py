"""Fits the eye for programs of a checkpoint, and judges it on programs that it never saw.

    python benchmarks/train_program_eye.py measured.jsonl.gz solutions.jsonl.gz --reserve 0.2 \\
        --out recipes/weights/nano-validation
    python benchmarks/train_program_eye.py measured.jsonl.gz solutions.jsonl.gz --out WEIGHTS

The recordings are those of ``autotune-rlm record --programs``. The reserved share is drawn by a hash of
the program's group, as in the recipes, so that network and eye can be judged on the same programs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from autotune_rlm.landscapes import Landscape
from autotune_rlm.landscapes.programs import is_reserved_program, program_landscapes
from autotune_rlm.record.log import read_record
from autotune_rlm.surrogate.program_eye import ProgramEye
from autotune_rlm.training.program_eye import fit_program_eye

METRICS = ("peak_bytes", "call_bytes")
_Z90 = 1.6448536


def of_groups(found: Sequence[Landscape], group: dict[str, str]) -> list[list[str]]:
    """The group of each candidate of each landscape."""
    return [[group[str(c.payload)] for c in one.candidates] for one in found]


def judge(eye: ProgramEye, landscape: Landscape) -> dict[str, object]:
    """Scores of one language and metric."""
    word = eye.look(landscape.task, landscape.candidates)
    if word is None:
        return {}
    true = np.log1p(np.maximum(landscape.values, 0.0))
    off = true - word.mean
    names = np.array([str(c.payload) for c in landscape.candidates])
    medians = pd.DataFrame({"n": names, "t": true, "p": word.mean}).groupby("n").median()
    within = (off >= -_Z90 * word.down) & (off <= _Z90 * word.up)
    return {
        "language": landscape.task.language,
        "metric": landscape.task.metric,
        "runs": len(true),
        "programs": len(medians),
        "Spearman, runs": round(float(spearmanr(true, word.mean).statistic), 3),
        "Spearman, programs": round(float(spearmanr(medians["t"], medians["p"]).statistic), 3),
        "within 90 %": round(float(within.mean()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--reserve", type=float, default=0.0, help="share that is judged on")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    recorded = list(read_record(*args.recordings))
    group = {one.id: str(one.task.problem.get("group", one.id)) for one in recorded}
    kept = [one for one in recorded if not is_reserved_program(one.task, args.reserve)]
    reserved = [one for one in recorded if is_reserved_program(one.task, args.reserve)]
    found = program_landscapes(kept, metrics=METRICS)
    # resident sizes of whole processes say little of a function: their own counters do
    found = [x for x in found if x.task.language == "python" or x.task.metric == "call_bytes"]
    eye = fit_program_eye(found, of_groups(found, group), seed=args.seed)
    eye.save(args.out)
    scores = [judge(eye, one) for one in program_landscapes(reserved, metrics=METRICS)]
    if any(scores):
        print(pd.DataFrame([s for s in scores if s]).to_string(index=False))
    print(f"{args.out}: the eye for programs of {len(kept):,} programs")


if __name__ == "__main__":
    main()
