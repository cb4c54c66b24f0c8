"""Trains the compiler's eye of checkpoints.

    python benchmarks/train_eye.py --data FOLDER \\
        --eye recipes/weights/nano-validation=recipes/nano-validation.yaml \\
        --eye autotune_rlm/surrogate/weights/nano
    python benchmarks/train_eye.py --data FOLDER --constants recipes/nano-validation.yaml

``--data`` holds the recorded landscapes and winners. Facts come from ``--facts``; what is missing there
is read from ``--programs`` and added with ``--read``, for up to ``--landscapes`` of each kernel and
device. ``--eye CHECKPOINT=RECIPE`` writes a checkpoint's eye, without what the recipe holds out.
``--constants`` fits ``autotune_rlm.ir.CONSTANTS`` anew, without what the recipe holds out, and uses them
for the rest. ``judge_eye.py`` and ``own_landscapes.py`` judge eyes on
kernels and devices that were left out.
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import track

from autotune_rlm.ir import CONSTANTS, INPUTS, Peaks, inputs_of
from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.landscapes.winners import Winner, read_winners, sample
from autotune_rlm.surrogate.eye import columns
from autotune_rlm.surrogate.known import kind_of
from autotune_rlm.surrogate.programs import load_programs
from autotune_rlm.training.examples import is_held_out
from autotune_rlm.training.eye import RankedList, fit_eye
from autotune_rlm.training.eye_time import fit_time
from autotune_rlm.training.facts_table import FactsTable
from autotune_rlm.training.recipe import Holdout, Recipe
from autotune_rlm.types import Candidate, Task

ROOT = Path(__file__).parents[1]
TIMED = ("triton_matmul_a100", "inductor_mm", "inductor_mixed_mm", "partial_landscapes")
SUITE = [ROOT / f"data/recordings/{device}_suite.jsonl.gz" for device in ("h100", "h200")]
FAMILIES = {
    "attention forward": "attention_forward",
    "attention backward": "attention_backward_kv attention_backward_q",
    "attention paged": "paged_decode_attention",
    "attention linear": "linear_attention_chunks",
    "matrix products": "matmul_kernel splitk_matmul persistent_matmul bmm_kernel grouped_gemm "
    "fused_gate_up scaled_int8_matmul block_scaled_fp8_matmul w4a16_matmul mixed_matmul",
    "mixture of experts": "fused_moe_kernel",
    "norms": "layer_norm_forward layer_norm_backward fused_add_rms_norm rms_norm_backward "
    "group_norm_silu",
    "rows": "softmax_rows cross_entropy_kernel router_top_k column_sum row_argmax squared_norm "
    "row_cumsum histogram_kernel",
    "elementwise": "swiglu_forward bias_gelu_dropout rotary_embedding adamw_step transpose_2d "
    "embedding_bag",
    "quantisation": "quantize_rows_int8 quantize_groups_fp8",
    "convolution": "conv2d_nhwc depthwise_conv2d causal_conv1d",
    "scan": "selective_scan",
}
OF = {kernel: family for family, kernels in FAMILIES.items() for kernel in kernels.split()}
"""Family of each kernel of the suite, whose recorded landscapes are among those learned from."""
MAX_CONFIGS, SAMPLED, NEAR_MISS = 800, 48, 0.4


@dataclass(frozen=True)
class Known:
    """A list of candidates whose order, or whose best, is known.

    Attributes:
        ranked: The list.
        of: What it was made of; a landscape comes without its candidates.
        candidates: The members of the list, with their facts.
    """

    ranked: RankedList
    of: Landscape | Winner
    candidates: list[Candidate]


def timed(landscape: Landscape, table: FactsTable, rng: np.random.Generator) -> Known | None:
    """A landscape as a list; None where too few facts are known."""
    # logs of TorchInductor have cuBLAS among the candidates
    rows = np.flatnonzero([len(c.config) > 1 for c in landscape.candidates])
    if len(rows) > MAX_CONFIGS:
        rows = rng.choice(rows, MAX_CONFIGS, replace=False)
    task = landscape.task
    found = [table.candidate(task, landscape.candidates[i]) for i in rows]
    known = [i for i, c in enumerate(found) if c.facts]
    if len(known) < 3:
        return None
    candidates = [found[i] for i in known]
    ranked = _list(task, candidates, np.log(landscape.values[rows[known]]))
    return Known(ranked, replace(landscape, candidates=(), measurements=()), candidates)


def won(winner: Winner, table: FactsTable, rng: np.random.Generator) -> Known | None:
    """A winner as a list with sampled others that fit its device; None where its facts are not known."""
    pairs = [(table.candidate(winner.task, c), near) for c, near in sample(winner, 80, rng)]
    pairs = [(c, near) for c, near in pairs if c.facts and (near or c.facts["shared_share"] <= 1)]
    if not pairs or pairs[0][1] < 1:
        return None
    near = [p for p in pairs[1:] if p[1]][: SAMPLED // 5]
    pairs = [pairs[0], *near, *[p for p in pairs if not p[1]][: SAMPLED - len(near)]]
    share = np.array([1.0 if near == 1 else NEAR_MISS * near for _, near in pairs])
    candidates = [c for c, _ in pairs]
    return Known(_list(winner.task, candidates, None, share), winner, candidates)


def _list(
    task: Task,
    candidates: list[Candidate],
    log_time: np.ndarray | None,
    share: np.ndarray | None = None,
) -> RankedList:
    peaks = Peaks.of(task.device)
    inputs = [inputs_of(c.facts, peaks) for c in candidates]
    rows = np.array([[x[name] for name in INPUTS] for x in inputs])
    kind = kind_of(candidates)
    return RankedList(
        task.kernel, task.device.name, kind, columns(candidates), rows, log_time, share
    )


def is_told(task: Task) -> bool:
    """Whether a landscape says what ran: some logs of TorchInductor have no number formats."""
    return task.problem.get("dtypes") != ""


def all_lists(args: argparse.Namespace) -> list[Known]:
    """Everything that facts are known of, with what it was made of."""
    if args.lists and args.lists.exists():
        kept: list[Known] = pickle.loads(args.lists.read_bytes())
        return kept
    programs = load_programs(*args.programs) if args.read else None
    table = FactsTable.load(args.facts, programs)
    before, rng = len(table), np.random.default_rng(0)
    found: list[Known] = []
    for file in (*(args.data / f"{name}.csv.gz" for name in TIMED), *SUITE):
        used: Counter[str] = Counter()
        landscapes = read_landscapes(file)
        for i in track(rng.permutation(len(landscapes)), file.name, transient=True):
            one = landscapes[i]
            if args.read and used[one.task.device.name] >= args.landscapes:
                continue
            if not is_told(one.task):
                continue
            if (known := timed(one, table, rng)) is not None:
                used[one.task.device.name] += 1
                found.append(known)
    winners = [w for w in read_winners(args.data / "winners.csv.gz") if w.latest and w.space()]
    read: Counter[tuple[str, str]] = Counter()
    for i in track(rng.permutation(len(winners)), "winners", transient=True):
        device, name = winners[i].task.device, (winners[i].task.kernel, winners[i].task.device.name)
        if not device.target.startswith("sm_") or device.sms is None:
            continue
        if args.read and read[name] >= args.landscapes:
            continue
        if known := won(winners[i], table, rng):
            read[name] += 1
            found.append(known)
    if len(table) > before:
        table.save(args.facts)
    if args.lists:
        args.lists.write_bytes(pickle.dumps(found))
    return found


def without(known: list[Known], recipe: Path | None) -> list[RankedList]:
    """The lists that a recipe does not hold out."""
    holdout = Recipe.load(recipe).holdout if recipe else Holdout()

    def is_out(of: Landscape | Winner) -> bool:
        if isinstance(of, Winner):
            return of.task.device.name in holdout.devices
        return is_held_out(of, holdout)

    return [one.ranked for one in known if not is_out(one.of)]


def add_sources(parser: argparse.ArgumentParser, *, needs_data: bool = True) -> None:
    """The options that ``all_lists`` reads."""
    parser.add_argument("--data", type=Path, required=needs_data)
    parser.add_argument("--facts", type=Path, default=ROOT / "data/kernel_facts/kernel_facts.gz")
    programs = [ROOT / "benchmarks/programs" / name for name in ("recorded.py", "own.py")]
    parser.add_argument("--programs", type=Path, nargs="+", default=programs)
    parser.add_argument("--read", action="store_true", help="read facts that are not in the table")
    parser.add_argument("--landscapes", type=int, default=200)
    parser.add_argument("--lists", type=Path, help="keep what was read here for the next run")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_sources(parser)
    parser.add_argument("--constants", type=Path, metavar="RECIPE")
    parser.add_argument("--eye", action="append", default=[], metavar="CHECKPOINT[=RECIPE]")
    args = parser.parse_args()
    known = all_lists(args)
    count = Counter((one.ranked.family, one.ranked.device) for one in known)
    print({f"{k} on {d}": n for (k, d), n in sorted(count.items())})
    if args.constants:
        fit = fit_time(without(known, args.constants))
        CONSTANTS.update({name: float(f"{value:.3g}") for name, value in fit.items()})
        print(json.dumps(CONSTANTS))
    for text in args.eye:
        checkpoint, _, recipe = text.partition("=")
        lists = without(known, Path(recipe) if recipe else None)
        fit_eye(lists).save(Path(checkpoint))
        print(f"wrote the eye of {checkpoint}, fitted to {len(lists)} lists", flush=True)


if __name__ == "__main__":
    main()
