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
from autotune_rlm.landscapes.programs import is_reserved_program
from autotune_rlm.record.log import read_record
from autotune_rlm.record.programs import program_table
from autotune_rlm.surrogate.program_eye import SIZES, ProgramEye
from autotune_rlm.training.program_eye import fit_program_eye
from autotune_rlm.types import Candidate, Device, Measurement, Status, Task

METRICS = ("peak_bytes", "call_bytes")
_Z90 = 1.6448536


def read(paths: Sequence[Path]) -> pd.DataFrame:
    """The runs that worked, of tables and records."""
    tables = [
        program_table(read_record(path)) if ".jsonl" in path.name else pd.read_csv(path)
        for path in paths
    ]
    found = pd.concat(tables, ignore_index=True)
    return found[found["status"] == "ok"]


def landscapes(table: pd.DataFrame) -> tuple[list[Landscape], list[list[str]]]:
    """One landscape for each language and metric, and the groups of its candidates."""
    found, groups = [], []
    for language, rows in table.groupby("language"):
        for metric in METRICS:
            # the resident size of a process says little of a function: the runtime's counters do
            if metric == "peak_bytes" and language != "python":
                continue
            known = rows[rows[metric].notna()]
            task = Task(
                kernel="program", device=Device(name=""), language=str(language), metric=metric
            )
            told = known[[name for name in SIZES if name in known]]
            sizes = told.astype(float).to_dict("records")
            candidates = tuple(
                Candidate({k: v for k, v in size.items() if v == v}, str(text), payload=name)
                for size, text, name in zip(sizes, known["text"], known["program"], strict=True)
            )
            measured = tuple(Measurement(status=Status.OK, value=float(v)) for v in known[metric])
            found.append(Landscape(task, candidates, measured, f"program/{language}/{metric}"))
            groups.append(known["group"].astype(str).tolist())
    return found, groups


def is_reserved(group: str, share: float) -> bool:
    """Whether a group is never trained on, as in the recipes."""
    task = Task(kernel=group, device=Device(name=""), problem={"group": group})
    return is_reserved_program(task, share)


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
    table = read(args.recordings)
    held = table["group"].map(lambda name: is_reserved(str(name), args.reserve)).astype(bool)
    eye = fit_program_eye(*landscapes(table[~held]), seed=args.seed)
    eye.save(args.out)
    scores = [judge(eye, one) for one in landscapes(table[held])[0]] if held.any() else []
    if any(scores):
        print(pd.DataFrame([s for s in scores if s]).to_string(index=False))
    print(f"{args.out}: the eye for programs of {table[~held]['program'].nunique():,} programs")


if __name__ == "__main__":
    main()
