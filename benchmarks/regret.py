"""Regret of tuning methods on folders of recorded landscapes, one table for each group of files.

python benchmarks/held_out.py recipes/nano-validation.yaml --data FOLDER --out runs/held-out
python benchmarks/regret.py runs/held-out/inductor*.gz --surrogate recipes/weights/nano-validation \\
    --methods rlm nearest random --train FOLDER/gpu/inductor*.gz --budgets 1 3 5 8 --out runs/mm.jsonl

The searches are those of ``autotune-rlm bench kernels``. Each is written to the file as it ends, and one
that is there already is not run again: the command goes on where it was stopped, with more methods too.
What ``--train`` holds of the judged landscapes themselves is left aside.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from autotune_rlm.bench import REACHES, NotApplicableError, run_search, seconds_to_reach
from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.surrogate import load
from autotune_rlm.training.facts_table import FactsTable


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--surrogate", help="name or path; default: the bundled weights")
    parser.add_argument("--methods", nargs="+", default=["rlm", "random"])
    parser.add_argument("--budgets", nargs="+", type=int, default=[4, 8, 16, 32, 64])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--most", type=int, help="landscapes of a file, drawn at random")
    parser.add_argument("--least", type=int, default=1, help="fewest candidates of a landscape")
    parser.add_argument("--train", nargs="+", type=Path, default=[])
    parser.add_argument("--others", action="store_true", help="all but the searched one are known")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--facts", type=Path, help="table of the compiler's facts of the candidates"
    )
    parser.add_argument("--blind", action="store_true", help="leave recorded facts aside")
    args = parser.parse_args()
    facts = FactsTable.load(args.facts) if args.facts else None
    read = {
        file: [_with_facts(x, facts, args.blind) for x in read_landscapes(file)]
        for file in args.files
    }
    keys = {one.task.key for many in read.values() for one in many}
    read = {file: [x for x in many if len(x) >= args.least] for file, many in read.items()}
    judged = {file: _some(many, args.most) for file, many in read.items()}
    known = [o for file in args.train for o in read_landscapes(file) if o.task.key not in keys]
    surrogate = cache(lambda: load(args.surrogate or "nano"))
    done = {(r["file"], r["landscape"], r["method"], r["seed"]) for r in _read(args.out)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a") as out:
        for file, landscape, method, seed in _searches(judged, args.methods, args.seeds):
            if (file.name, landscape.id, method, seed) in done:
                continue
            others = [x for many in read.values() for x in many if x.task.key != landscape.task.key]
            begin = time.process_time()
            try:
                found = run_search(
                    landscape,
                    method,
                    budgets=args.budgets,
                    seed=seed,
                    train=known + others if args.others else known,
                    load_surrogate=surrogate,
                )
            except NotApplicableError as error:
                print(f"{method} skips {landscape.id}: {error}", file=sys.stderr)
                continue
            row = {**asdict(found), "file": file.name, "cpu_s": time.process_time() - begin}
            reached = {str(r): seconds_to_reach(found, r) for r in REACHES}
            row.update(best=None, seconds=reached if found.seconds else None)
            out.write(json.dumps(row) + "\n")
            out.flush()
    _show([r for r in _read(args.out) if r["method"] in args.methods], args.budgets)


def _searches(
    judged: dict[Path, list[Landscape]], methods: list[str], seeds: int
) -> Iterator[tuple[Path, Landscape, str, int]]:
    for seed in range(seeds):
        for method in methods:
            for file, landscapes in judged.items():
                for landscape in landscapes:
                    yield file, landscape, method, seed


def _with_facts(landscape: Landscape, facts: FactsTable | None, blind: bool) -> Landscape:
    candidates = landscape.candidates
    if blind:
        candidates = tuple(replace(c, facts={}) for c in candidates)
    elif facts is not None:
        candidates = tuple(facts.candidate(landscape.task, c) for c in candidates)
    return replace(landscape, candidates=candidates)


def _some(landscapes: list[Landscape], most: int | None) -> list[Landscape]:
    order = np.random.default_rng(0).permutation(len(landscapes))[:most]
    return [landscapes[i] for i in order]


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.open()] if file.exists() else []


def _show(rows: list[dict[str, Any]], budgets: list[int]) -> None:
    groups: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[f"{row['kernel']}, {row['device']}"][row["method"]].append(row)
        groups["all"][row["method"]].append(row)
    for name, methods in groups.items():
        print(f"\n{name}: mean (median) regret in per cent\n")
        print(f"| method | searches | {' | '.join(map(str, budgets))} | stopped, regret left |")
        print(f"| --- | --- |{' --- |' * len(budgets)} --- |")
        for method, runs in methods.items():
            cells = (_mean([_regret(r, str(n)) for r in runs]) for n in budgets)
            ended = [_regret(r, str(max(budgets))) for r in runs if r["stopped"]]
            left = f"{len(ended)}: {100 * np.mean(ended):.2f}" if ended else "0"
            print(f"| `{method}` | {len(runs)} | {' | '.join(cells)} | {left} |")


def _regret(row: dict[str, Any], budget: str) -> float:
    """The regret; where nothing worked, that of the worst configuration."""
    found = row["regret"].get(budget)
    return row["worst_regret"] if found is None else found


def _mean(values: list[float]) -> str:
    return f"{100 * np.mean(values):.2f} ({100 * np.median(values):.2f})"


if __name__ == "__main__":
    main()
