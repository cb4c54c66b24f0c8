"""Judges the compiler's eye on kernels and devices that were left out of its training.

    python benchmarks/judge_eye.py --data FOLDER --leave-out all
    python benchmarks/judge_eye.py --data FOLDER --widths
    python benchmarks/judge_eye.py --data FOLDER --whole-space w8a8_block_fp8_matmul
    python benchmarks/judge_eye.py --data FOLDER --second-look triton_matmul

``--leave-out`` trains without each family in turn, the constants of the expected time included. A
family with times is searched by the product's own loop in lists of nine configurations, beside XGBoost
on the same facts and data (``trees``), a random forest from scratch, and a random order. A family of
winners is ordered before anything is measured. ``--widths`` chooses how wide intervals are on some
families and judges them on the others. ``--whole-space`` leaves out each device in turn and
looks for a family's winners in the whole space that they were chosen from. ``--second-look`` compiles
the worst first choices of a family that was left out. Data are as for ``train_eye.py``.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import eq
from typing import Any, NamedTuple

import numpy as np
from programs.recorded import PROGRAMS
from scipy.optimize import minimize
from train_eye import OF, Known, add_sources, all_lists

from autotune_rlm.bench.kernels import run_search
from autotune_rlm.ir import CONSTANTS, Peaks, expected_ms
from autotune_rlm.landscapes import Landscape
from autotune_rlm.landscapes.winners import Winner
from autotune_rlm.measure.triton.compile import CompilePool, CompileSpec, parse_target
from autotune_rlm.surrogate import RLMSurrogate, load_surrogate
from autotune_rlm.surrogate.eye import WORST, Eye, columns
from autotune_rlm.surrogate.programs import load_programs, options_of
from autotune_rlm.training.eye import RankedList, fit_eye
from autotune_rlm.training.eye_time import fit_time
from autotune_rlm.training.facts_table import FactsTable
from autotune_rlm.types import Candidate, Measurement

METHODS = ("rlm", "trees", "random-forest", "random")
BUDGETS = (1, 2, 3)
_Z90 = 1.645
_INSIDE = 0.92  # on average over families, so that few of them are below 80 %


def fitted(kept: Sequence[RankedList]) -> Eye:
    """Constants and trees of these lists alone; the constants are used from here on."""
    CONSTANTS.update(fit_time(kept))
    return fit_eye(kept, seeds=1)


def leave_out(known: list[Known], families: list[str], number: int) -> None:
    """Train without each family, and judge on it."""
    for family in families:
        eye = fitted([k.ranked for k in known if k.ranked.family != family])
        surrogate = with_eye(eye)
        for device in sorted({k.ranked.device for k in known if k.ranked.family == family}):
            here = [k for k in known if (k.ranked.family, k.ranked.device) == (family, device)]
            row = {"left out": family, "device": device, "lists": len(here)}
            if here[0].ranked.log_time is None:
                scores = [log_times(eye, k.ranked) for k in here]
                plain = [eye.plain.predict(k.ranked.columns) for k in here]
                row["winner's place"] = place(here, scores)
                row["trees"] = place(here, plain)
                row["most popular"] = place(here, popularity(known, family, device))
            else:
                lists = of_nine(here, number)
                row |= {method: regrets(lists, method, surrogate) for method in METHODS}
            print(json.dumps(row), flush=True)


def with_eye(eye: Eye) -> RLMSurrogate:
    """The bundled surrogate with another eye, which speaks alone: no kernel counts as known."""
    surrogate = load_surrogate("nano")
    settings = {**surrogate.checkpoint.settings, "parameters": []}
    return RLMSurrogate(replace(surrogate.checkpoint, eye=eye, settings=settings))


def of_nine(here: list[Known], number: int) -> list[Landscape]:
    """About so many landscapes of nine configurations each, drawn from lists with times."""
    rng = np.random.default_rng(0)
    found = []
    for k in here:
        assert k.ranked.log_time is not None
        ok = np.flatnonzero(np.isfinite(k.ranked.log_time))
        peaks = Peaks.of(k.of.task.device)
        for _ in range(max(1, min(100, number // len(here)))):
            rows = rng.permutation(ok)[:9]
            candidates = [
                replace(c, facts={**c.facts, "expected_ms": expected_ms(c.facts, peaks)})
                for c in (k.candidates[i] for i in rows)
            ]
            times = np.exp(k.ranked.log_time[rows])
            measured = [Measurement(status="ok", value=float(t)) for t in times]
            found.append(Landscape(k.of.task, tuple(candidates), tuple(measured)))
    return found


def regrets(lists: list[Landscape], method: str, surrogate: RLMSurrogate) -> str:
    """Mean regret in % after 1, 2 and 3 measurements."""
    runs = [
        run_search(x, method, budgets=BUDGETS, seed=i, load_surrogate=lambda: surrogate)
        for i, x in enumerate(lists)
    ]
    return " / ".join(f"{100 * np.mean([r.regret[b] for r in runs]):.1f}" for b in BUDGETS)


def log_times(eye: Eye, one: RankedList) -> np.ndarray:
    """Predicted logarithms of a list's times in ms before anything is measured, (n,)."""
    slowdown, best = eye.times(one.columns, one.expected(), one.kind, one.device)
    return slowdown - slowdown.min() + best


class Left(NamedTuple):
    """Errors of predicted logarithms of times on what was left out of a fit."""

    family: str
    device: str
    is_timed: bool  # whether the fit knew such a kernel on the device's architecture
    is_kernel: bool  # whether the family was left out, and not a device
    errors: list[tuple[np.ndarray, np.ndarray]]
    """By list, the errors and the expected slow-downs."""


def widths(known: list[Known]) -> None:
    """Choose ``Eye.spreads`` so that intervals hold 92 % of a family's times, and judge the choice.

    Each family, architecture and device with times is left out in turn; the suite's kernels by family.
    The share inside of a family is that with the spreads that the errors of all other families give.
    """
    lists = [k.ranked for k in known]
    timed = [one for one in lists if one.log_time is not None]
    target = {k.ranked.device: k.of.task.device.target for k in known}
    group = {one.family: OF.get(one.family, one.family).split()[0] for one in timed}
    outs = {(name, None, None) for name in group.values()}
    outs |= {(None, target[one.device], None) for one in timed}
    outs |= {(None, None, one.device) for one in timed}
    outs -= {(None, "sm_90", None)}  # what else is known is too little
    found: list[Left] = []
    for out in sorted(outs, key=str):
        is_out = {
            id(one): any(map(eq, out, (group.get(one.family), target[one.device], one.device)))
            for one in lists
        }
        eye = fitted([one for one in lists if not is_out[id(one)]])
        errors: defaultdict[tuple[str, str, bool], list[tuple[np.ndarray, np.ndarray]]]
        errors = defaultdict(list)
        for one in timed:
            if is_out[id(one)]:
                told = log_times(eye, one)
                error, slow = np.asarray(one.log_time) - told, np.minimum(told - told.min(), WORST)
                is_timed = eye.is_timed(one.kind, one.device)
                ok = np.isfinite(error)
                errors[group[one.family], one.device, is_timed].append((error[ok], slow[ok]))
        found += [
            Left(family, device, is_timed, out[0] is not None, e)
            for (family, device, is_timed), e in errors.items()
        ]
    for left in (x for x in found if x.is_kernel):
        spreads = _spreads([x for x in found if x.family != left.family])
        scale = spreads[2 if left.is_timed else 3]
        inside = [
            np.mean(np.abs(e) < _Z90 * np.hypot(spreads[0] + spreads[1] * slow, scale))
            for e, slow in left.errors
        ]
        row = {"left out": left.family, "device": left.device, "timed": left.is_timed}
        print(
            json.dumps({**row, "spreads": spreads, "inside": f"{np.mean(inside):.0%}"}), flush=True
        )
    print(json.dumps({"spreads": _spreads(found)}))


def _spreads(found: list[Left]) -> list[float]:
    """``Eye.spreads`` from errors.

    Those of the slow-down are the likeliest for what is left after each list's median. Those of the best
    time follow from left-out families on timed architectures, and from other architectures and kinds.
    """
    kernels = [x.errors for x in found if x.is_kernel and x.is_timed]
    error, slow, weight = _joined([[(e - np.median(e), s) for e, s in x] for x in kernels])

    def unlikely(logs: np.ndarray) -> float:
        spread = np.exp(logs[0]) + np.exp(logs[1]) * slow
        return float(weight @ (np.log(spread) + 0.5 * (error / spread) ** 2))

    own = np.exp(minimize(unlikely, np.log([0.2, 0.2]), method="Nelder-Mead").x)
    others = [x.errors for x in found if not x.is_timed]
    found_ = [*own, *(_scale_spread(x, own) for x in (kernels, others))]
    return [round(float(s), 2) for s in found_]


def _scale_spread(families: list[list[tuple[np.ndarray, np.ndarray]]], own: np.ndarray) -> float:
    """What to add to the spread of slow-downs so that 92 % of the errors are inside."""
    error, slow, weight = _joined(families)
    squares = (error / _Z90) ** 2 - (own[0] + own[1] * slow) ** 2
    order = np.argsort(squares)
    at = np.searchsorted(np.cumsum(weight[order]), _INSIDE)
    return float(np.sqrt(max(squares[order][at], 0.0)))


def _joined(families: list[list[tuple[np.ndarray, np.ndarray]]]) -> list[np.ndarray]:
    """Errors, slow-downs and weights: each family with the same weight, and each of its lists."""
    lists = [(e, s, len(x) * len(e)) for x in families for e, s in x if len(e)]
    weight = np.concatenate([np.full(len(e), 1 / n) for e, _, n in lists])
    return [*(np.concatenate(x) for x in list(zip(*lists, strict=True))[:2]), weight / weight.sum()]


def place(here: list[Known], scores: list[np.ndarray]) -> str:
    """How far down the order winners stand: median and mean; ties count half."""
    found = []
    for k, score in zip(here, scores, strict=True):
        at = int(np.argmax(k.ranked.share))
        others = np.delete(score, at)
        found.append((others < score[at]).mean() + 0.5 * (others == score[at]).mean())
    return f"{np.median(found):.0%} ({np.mean(found):.0%})"


def popularity(known: list[Known], family: str, device: str) -> list[np.ndarray]:
    """Scores of a family's winners' lists by how often each configuration won on other devices."""
    won = [k for k in known if k.ranked.family == family and isinstance(k.of, Winner)]
    wins = Counter(k.of.candidate.key for k in won if k.ranked.device != device)
    here = [k for k in won if k.ranked.device == device]
    return [np.array([-float(wins[c.key]) for c in k.candidates]) for k in here]


def whole_spaces(known: list[Known], args: argparse.Namespace, family: str) -> None:
    """Look for a family's winners in the whole space that they were chosen from, device by device.

    Everything of the device is left out of the fit. Beside it stand the most popular winners of the
    other devices. Prints the shares of problems whose winner is among the first 40, and whose winner's
    tile is among the first 3 tiles.
    """
    table = FactsTable.load(args.facts, load_programs(*args.programs))
    winners = [k.of for k in known if k.ranked.family == family and isinstance(k.of, Winner)]
    for device in sorted({w.task.device.name for w in winners}):
        eye = fitted([k.ranked for k in known if k.ranked.device != device])
        here = [w for w in winners if w.task.device.name == device]
        wins = Counter(w.candidate.key for w in winners if w.task.device.name != device)
        ours, trees, popular = [], [], []
        for i in np.random.default_rng(0).permutation(len(here))[: args.problems]:
            space = [table.candidate(here[i].task, c) for c in here[i].space()]
            fits = np.array([c.facts.get("shared_share", np.inf) <= 1 for c in space])
            score = np.where(fits, eye.look(space, device).slowdown, np.inf)
            plain = np.where(fits, eye.plain.predict(columns(space)), np.inf)
            ours.append(_found(here[i], space, score))
            trees.append(_found(here[i], space, plain))
            popular.append(_found(here[i], space, np.array([-wins[c.key] for c in space])))
        table.save(args.facts)
        row = {"family": family, "device": device, "problems": len(ours)}
        for name, found in (("eye", ours), ("trees", trees), ("most popular", popular)):
            first, tile = np.mean(found, axis=0)
            row[name] = f"top 40: {first:.1%}, tile in top 3: {tile:.1%}"
        print(json.dumps(row), flush=True)


def _found(winner: Winner, space: list[Candidate], score: np.ndarray) -> tuple[bool, bool]:
    """Whether a winner is among the first 40, and its tile among the first 3."""
    tiles = [tuple(v for k, v in c.config.items() if k.startswith("BLOCK")) for c in space]
    at = [c.key for c in space].index(winner.candidate.key)
    order = np.argsort(score, kind="stable").tolist()
    first = list(dict.fromkeys(tiles[i] for i in order))[:3]
    return order.index(at) < 40, tiles[at] in first


def second_look(known: list[Known], args: argparse.Namespace, family: str) -> None:
    """Compile the first choices that cost most, for what a second look could have said of them.

    The family is left out of the fit. Prints of the ten worst first choices in lists of nine on the A100
    how many words spill, as expected and as the compiler says, and their share of all regret.
    """
    surrogate = with_eye(fitted([k.ranked for k in known if k.ranked.family != family]))
    here = [k for k in known if (k.ranked.family, k.ranked.device) == (family, "NVIDIA A100")]
    found: list[tuple[float, Landscape, Candidate]] = []
    for x in of_nine(here, args.number):
        first = int(surrogate.predict(x.task, list(x.candidates)).order()[0])
        found.append((x.regret(x.values[first]), x, x.candidates[first]))
    found.sort(key=lambda each: -each[0])
    share = sum(r for r, _, _ in found[:10]) / sum(r for r, _, _ in found)
    print(json.dumps({"family": family, "lists": len(found), "share of the ten worst": share}))
    with CompilePool(1) as pool:
        for regret, x, first in found[:10]:
            config = dict(first.config)
            program = PROGRAMS[x.task.kernel](dict(x.task.problem), config)
            told = pool.compile(spec_of(program, config, x.task.device.target))
            row = {"regret": f"{regret:.0%}", "config": config}
            row["expected"] = round(first.facts["excess_registers"])
            print(json.dumps({**row, "spills": told.facts.get("spills")}), flush=True)


def spec_of(program: Mapping[str, Any], config: Mapping[str, Any], target: str) -> CompileSpec:
    """What to compile for a configuration of a program as ``--programs`` files describe it."""
    kernel, arguments = program["kernel"], dict(program["arguments"])
    fixed = {p.name for p in kernel.params if p.is_constexpr}
    constants = {n: v for n, v in arguments.items() if n in fixed or v == 1}
    left = {n: v for n, v in arguments.items() if n not in constants}
    types = {float: "fp32", int: "i32"}
    return CompileSpec(
        file=kernel.fn.__code__.co_filename,
        function=kernel.fn.__name__,
        signature={n: types.get(type(v), v) for n, v in left.items()},
        constexprs=constants,
        attrs={n: 16 for n, v in left.items() if isinstance(v, str) or v % 16 == 0},
        options=options_of(config),
        target=parse_target(target),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_sources(parser)
    parser.add_argument("--leave-out", action="append", default=[], metavar="FAMILY")
    parser.add_argument("--number", type=int, default=300, help="lists of nine of a family")
    parser.add_argument("--widths", action="store_true")
    parser.add_argument("--whole-space", action="append", default=[], metavar="FAMILY")
    parser.add_argument("--second-look", action="append", default=[], metavar="FAMILY")
    parser.add_argument("--problems", type=int, default=40, help="of each device of a whole space")
    args = parser.parse_args()
    known = all_lists(args)
    families = sorted({k.ranked.family for k in known} - set(OF))
    leave_out(known, families if args.leave_out == ["all"] else args.leave_out, args.number)
    if args.widths:
        widths(known)
    for family in args.whole_space:
        whole_spaces(known, args, family)
    for family in args.second_look:
        second_look(known, args, family)


if __name__ == "__main__":
    main()
