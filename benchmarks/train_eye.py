"""Trains the compiler's eye of a checkpoint, and judges it on kernels that were left out.

    python benchmarks/train_eye.py --data FOLDER --recipe recipes/nano-validation.yaml \\
        --surrogate recipes/weights/nano-validation
    python benchmarks/train_eye.py --data FOLDER --surrogate autotune_rlm/surrogate/weights/nano
    python benchmarks/train_eye.py --data FOLDER --leave-out all

``--data`` holds the recorded landscapes and winners. Facts come from ``--facts``; what is missing there
is read from ``--programs`` and added with ``--read``, for up to ``--landscapes`` of each kernel and
device. A recipe names what is held out. ``--leave-out`` trains without each family in turn and prints
how its landscapes are ranked before anything is measured, in lists of nine; a family with winners alone
is judged by how often a winner is among the first 40.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.landscapes.winners import Winner, read_winners, sample
from autotune_rlm.surrogate.eye import columns, known_costs
from autotune_rlm.surrogate.programs import load_programs
from autotune_rlm.surrogate.trees import Trees
from autotune_rlm.training.examples import is_held_out
from autotune_rlm.training.eye import RankedList, fit_eye, fit_slowdown
from autotune_rlm.training.facts_table import FactsTable
from autotune_rlm.training.recipe import Holdout, Recipe
from autotune_rlm.types import Candidate

ROOT = Path(__file__).parents[1]
TIMED = ("triton_matmul_a100", "inductor_mm", "inductor_mixed_mm")
MOST_CONFIGS, SAMPLED, NEAR_MISS = 1600, 48, 0.4


def timed(landscape: Landscape, table: FactsTable, rng: np.random.Generator) -> RankedList | None:
    """A landscape as a list; None where too few facts are known."""
    rows = np.arange(len(landscape))
    if len(rows) > MOST_CONFIGS:
        rows = rng.choice(rows, MOST_CONFIGS, replace=False)
    task = landscape.task
    found = [table.candidate(task, landscape.candidates[i]) for i in rows]
    known = [i for i, c in enumerate(found) if c.facts]
    if len(known) < 3:
        return None
    candidates = [found[i] for i in known]
    return _list(task.kernel, task.device.name, candidates, np.log(landscape.values[rows[known]]))


def won(winner: Winner, table: FactsTable, rng: np.random.Generator) -> RankedList | None:
    """A winner as a list with sampled others that fit its device; None where its facts are not known."""
    pairs = [(table.candidate(winner.task, c), near) for c, near in sample(winner, 110, rng)]
    pairs = [(c, near) for c, near in pairs if c.facts and (near or c.facts["shared_share"] <= 1)]
    if not pairs or pairs[0][1] < 1:
        return None
    near = [p for p in pairs[1:] if p[1]][: SAMPLED // 5]
    pairs = [pairs[0], *near, *[p for p in pairs if not p[1]][: SAMPLED - len(near)]]
    share = np.array([1.0 if near == 1 else NEAR_MISS * near for _, near in pairs])
    task = winner.task
    return _list(task.kernel, task.device.name, [c for c, _ in pairs], None, share)


def _list(
    family: str,
    device: str,
    candidates: list[Candidate],
    log_time: np.ndarray | None,
    share: np.ndarray | None = None,
) -> RankedList:
    roofline = np.log([c.facts["roofline_ms"] for c in candidates])
    costs = known_costs(candidates)
    return RankedList(family, device, columns(candidates), log_time, share, roofline, costs)


def all_lists(args: argparse.Namespace, holdout: Holdout) -> list[RankedList]:
    """Everything that facts are known of, without what is held out."""
    programs = load_programs(args.programs) if args.read else None
    table = FactsTable.load(args.facts, programs)
    before, rng, found = len(table), np.random.default_rng(0), []
    for name in TIMED:
        used: Counter[str] = Counter()
        landscapes = read_landscapes(args.data / f"{name}.csv.gz")
        for i in track(rng.permutation(len(landscapes)), name, transient=True):
            one = landscapes[i]
            if args.read and used[one.task.device.name] >= args.landscapes:
                continue
            if not is_held_out(one, holdout) and (ranked := timed(one, table, rng)) is not None:
                used[one.task.device.name] += 1
                found.append(ranked)
    winners = [w for w in read_winners(args.data / "winners.csv.gz") if w.latest and w.space()]
    for i in track(rng.permutation(len(winners)), "winners", transient=True):
        device = winners[i].task.device
        if not device.target.startswith("sm_") or device.sms is None:
            continue
        if device.name not in holdout.devices and (ranked := won(winners[i], table, rng)):
            found.append(ranked)
    if len(table) > before:
        table.save(args.facts)
    return found


def judged(
    left_out: list[RankedList], scores: list[np.ndarray], rng: np.random.Generator
) -> dict[str, str]:
    """Mean regret of lists of nine after 1, 2, 3, beside a random order; or winners in the first 40."""
    regret, chance, hits = [], [], []
    for one, score in zip(left_out, scores, strict=True):
        if one.log_time is None:
            assert one.share is not None
            winner = int(np.argmax(one.share))
            hits.append((score < score[winner]).mean())
            continue
        ok = np.flatnonzero(np.isfinite(one.log_time))
        for _ in range(max(1, min(100, 300 // len(left_out)))):
            rows = rng.permutation(ok)[:9]
            time = np.exp(one.log_time[rows] - one.log_time[rows].min())
            order = time[np.argsort(score[rows], kind="stable")]
            regret.append([order[:n].min() - 1 for n in (1, 2, 3)])
            chance.append([time[:n].min() - 1 for n in (1, 2, 3)])
    if hits:
        rank = np.array(hits)
        return {"winner's place": f"{np.median(rank):.0%}", "random": "50%"}
    text = [" / ".join(f"{100 * x:.1f}" for x in np.mean(r, axis=0)) for r in (regret, chance)]
    return {"regret": text[0], "random": text[1]}


def leave_out(lists: list[RankedList], families: list[str]) -> None:
    """Train without each family and judge on it."""
    rows = []
    for family in families:
        kept = [x for x in lists if x.family != family]
        left_out = [x for x in lists if x.family == family]
        trees = Trees.from_xgboost(fit_slowdown(kept, seeds=1, rounds=150))
        for device in sorted({x.device for x in left_out}):
            here = [x for x in left_out if x.device == device]
            scores = [trees.predict(x.columns) + x.costs for x in here]
            told = judged(here, scores, np.random.default_rng(0))
            rows.append({"left out": family, "device": device, "lists": str(len(here)), **told})
            print(json.dumps(rows[-1]), flush=True)
    table = Table(*(names := ["left out", "device", "lists", "regret", "winner's place", "random"]))
    for row in rows:
        table.add_row(*[row.get(n, "") for n in names])
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--facts", type=Path, default=ROOT / "data/kernel_facts/kernel_facts.gz")
    parser.add_argument("--programs", type=Path, default=ROOT / "benchmarks/programs/recorded.py")
    parser.add_argument("--read", action="store_true", help="read facts that are not in the table")
    parser.add_argument("--landscapes", type=int, default=200)
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--surrogate", type=Path, help="checkpoint whose eye is written")
    parser.add_argument("--leave-out", action="append", default=[], metavar="FAMILY")
    args = parser.parse_args()
    holdout = Recipe.load(args.recipe).holdout if args.recipe else Holdout()
    lists = all_lists(args, holdout)
    count: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in lists:
        count[one.family, one.device] += 1
    print({f"{k} on {d}": n for (k, d), n in sorted(count.items())})
    if args.surrogate:
        fit_eye(lists).save(args.surrogate)
        print(f"wrote {args.surrogate / 'eye.safetensors'}")
    if args.leave_out:
        families = sorted({x.family for x in lists})
        leave_out(lists, families if args.leave_out == ["all"] else args.leave_out)


if __name__ == "__main__":
    main()
