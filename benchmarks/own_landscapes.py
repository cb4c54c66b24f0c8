"""Judges the first choices and predicted times on the landscapes of ``data/recordings``.

    python benchmarks/own_landscapes.py --device "NVIDIA H100"
    python benchmarks/own_landscapes.py --data FOLDER --device "NVIDIA H100" --leave-out families
    python benchmarks/own_landscapes.py --data FOLDER --device "NVIDIA H200" --leave-out device

Each landscape is searched by the product's own loop (``rlm``) from nothing measured. Beside it stand
orders that no measurement changes: ``trees`` (XGBoost on the same facts and training data), the expected
time without trees, the roofline (``floor_ms``), what won most among the kernel's other problems, and a
random order. ``--leave-out`` fits constants and trees anew without each family, without each sixth of the
kernels, without everything of the device, or (given twice) without both, and adds trees on the parameters
themselves; nothing is fitted to the attention program and to fla-core's kernels. Data are as for
``train_eye.py``.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from judge_eye import fitted, with_eye
from train_eye import FAMILIES, OF, ROOT, Known, add_sources, all_lists

from autotune_rlm.bench.kernels import run_search
from autotune_rlm.ir import Peaks, expected_ms
from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.surrogate import RLMSurrogate, load_surrogate
from autotune_rlm.surrogate.eye import columns
from autotune_rlm.surrogate.text import normalise_name
from autotune_rlm.training.facts_table import FactsTable
from autotune_rlm.types import Candidate

UNSEEN = {"attention.jsonl.gz": "attention program", "fla.csv.gz": "fla-core"}
BUDGETS = (1, 2, 3, 5)
KERNEL_FOLDS, RANDOM_ORDERS = 6, 50
PARAMETERS = ("block_m", "block_n", "block_k", "group_m", "num_warps", "num_stages")
Order = Callable[[Sequence[Candidate]], np.ndarray]


class Judged(NamedTuple):
    """A landscape with facts, its family, the surrogate that is asked and the other orders' scores."""

    landscape: Landscape
    family: str
    surrogate: RLMSurrogate
    orders: dict[str, Order]


def landscapes(facts: FactsTable, device: str) -> list[tuple[str, Landscape]]:
    """The landscapes that were recorded on a device, with their families; candidates have facts."""
    found = []
    for file in sorted((ROOT / "data/recordings").glob("*.gz")):
        for one in read_landscapes(file):
            if one.task.device.name != device:
                continue
            candidates = tuple(facts.candidate(one.task, c) for c in one.candidates)
            family = UNSEEN.get(file.name.partition("_")[2]) or OF[one.task.kernel]
            if all(c.facts for c in candidates):
                found.append((family, replace(one, candidates=candidates)))
    return found


def fold_of(kernel: str, by: Sequence[str]) -> str:
    """What is left out of the fit at once for a kernel; empty for nothing."""
    if kernel not in OF:
        return ""
    if "families" in by:
        return OF[kernel].split()[0]
    return str(list(OF).index(kernel) % KERNEL_FOLDS) if "kernels" in by else ""


def left_out(
    known: list[Known], all_: list[tuple[str, Landscape]], by: Sequence[str]
) -> list[Judged]:
    """The landscapes, each with an eye that was fitted without its fold, and perhaps its device."""
    folds: defaultdict[str, list[tuple[str, Landscape]]] = defaultdict(list)
    for family, one in all_:
        folds[fold_of(one.task.kernel, by)].append((family, one))
    if "device" in by:
        known = [k for k in known if k.ranked.device != all_[0][1].task.device.name]
    judged = []
    for fold, members in folds.items():
        kept = [k for k in known if not fold or fold_of(k.ranked.family, by) != fold]
        surrogate = with_eye(fitted([k.ranked for k in kept]))
        orders = {**orders_of(surrogate), "parameters": raw_parameters(kept)}
        for family, one in members:
            peaks = Peaks.of(one.task.device)
            candidates = tuple(  # by the constants that were just fitted
                replace(c, facts={**c.facts, "expected_ms": expected_ms(c.facts, peaks)})
                for c in one.candidates
            )
            judged.append(Judged(replace(one, candidates=candidates), family, surrogate, orders))
    return judged


def orders_of(surrogate: RLMSurrogate) -> dict[str, Order]:
    """Scores of candidates by what needs no other landscape, smaller for better ones."""
    assert surrogate.eye is not None
    plain = surrogate.eye.plain
    return {
        "trees": lambda cs: plain.predict(columns(cs)),
        "expected": lambda cs: np.array([c.facts["expected_ms"] for c in cs]),
        "roofline": lambda cs: np.array([c.facts["floor_ms"] for c in cs]),
    }


def raw_parameters(known: list[Known]) -> Order:
    """Trees on tile sizes, warps and stages, fitted to the same lists with times."""
    import xgboost

    def rows(candidates: Sequence[Candidate]) -> np.ndarray:
        named = [{normalise_name(str(n)): v for n, v in c.config.items()} for c in candidates]
        return np.array([[float(x.get(n, np.nan)) for n in PARAMETERS] for x in named])

    x, y = [], []
    for k in known:
        if k.ranked.log_time is not None and np.isfinite(k.ranked.log_time).any():
            ok = np.isfinite(k.ranked.log_time)
            x.append(rows(k.candidates)[ok])
            y.append(k.ranked.log_time[ok] - k.ranked.log_time[ok].min())
    trees = xgboost.XGBRegressor(n_estimators=160, max_depth=4, learning_rate=0.05, n_jobs=1)
    trees.fit(np.concatenate(x), np.concatenate(y))
    return lambda cs: trees.predict(rows(cs))


def popular(one: Landscape, all_: list[tuple[str, Landscape]]) -> Order:
    """How seldom a configuration won among the kernel's other problems."""
    others = [x for _, x in all_ if x.task.kernel == one.task.kernel and x.id != one.id]
    wins = Counter(x.candidates[int(np.nanargmin(x.values))].key for x in others)
    return lambda cs: np.array([-float(wins[c.key]) for c in cs])


def regrets(one: Landscape, scores: np.ndarray) -> np.ndarray:
    """Regret by budget of an order by scores; the mean over orders of ties."""
    rng, found = np.random.default_rng(0), []
    values = np.where(one.ok, one.values, one.worst)
    for _ in range(RANDOM_ORDERS):
        order = np.lexsort((rng.random(len(scores)), scores))
        best = np.minimum.accumulate(values[order])
        found.append([one.regret(best[min(n, len(best)) - 1]) for n in BUDGETS])
    return np.mean(found, axis=0)


def searched(judged: Judged, seed: int) -> np.ndarray:
    """Regret by budget of the product's own loop."""
    one = judged.landscape
    run = run_search(
        one, "rlm", budgets=BUDGETS, seed=seed, load_surrogate=lambda: judged.surrogate
    )
    return np.array([run.worst_regret if run.regret[n] is None else run.regret[n] for n in BUDGETS])


def report(judged: list[Judged], all_: list[tuple[str, Landscape]]) -> None:
    """Print regrets by family, then how right times, intervals, failures and binaries' facts are."""
    table: defaultdict[str, defaultdict[str, list[np.ndarray]]]
    table = defaultdict(lambda: defaultdict(list))
    errors: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    failures: list[tuple[bool, bool]] = []
    binaries: list[tuple[Mapping[str, float], Mapping[str, Any]]] = []
    for i, x in enumerate(judged):
        one, row = x.landscape, table[x.family]
        row["rlm"].append(searched(x, i))
        orders = {**x.orders, "popular": popular(one, all_), "random": lambda cs: np.zeros(len(cs))}
        for name, order in orders.items():
            row[name].append(regrets(one, order(one.candidates)))
        told = x.surrogate.predict(one.task, one.candidates)
        ok = one.ok
        inside = (told.low[ok] <= one.values[ok]) & (one.values[ok] <= told.high[ok])
        factor = np.abs(np.log(one.values[ok] / told.median[ok]))
        errors[x.family].append((float(inside.mean()), float(np.median(factor))))
        binaries += [
            (c.facts, m.facts) for c, m in zip(one.candidates, one.measurements, strict=True)
        ]
        failures += zip((~ok).tolist(), (told.p_valid < 0.5).tolist(), strict=True)
    names = list(next(iter(table.values())))
    print(f"| mean regret after {' / '.join(map(str, BUDGETS))}, % | {' | '.join(names)} |")
    print("| --- " * (len(names) + 1) + "|")
    for family in [*FAMILIES, *UNSEEN.values()]:
        cells = [_text(np.mean(table[family][name], axis=0)) for name in names]
        print(f"| {family} ({len(table[family]['rlm'])}) | {' | '.join(cells)} |")
    means = [np.mean([np.mean(table[f][name], axis=0) for f in FAMILIES], axis=0) for name in names]
    print(f"| mean of the families | {' | '.join(map(_text, means))} |\n")
    print("| family | inside of 90 % intervals | median factor |\n| --- | --- | --- |")
    for family in [*FAMILIES, *UNSEEN.values()]:
        inside, factor = np.array(errors[family]).T
        print(f"| {family} | {inside.mean():.0%} | {np.exp(np.median(factor)):.2f} |")
    failed = [expected for is_failed, expected in failures if is_failed]
    wrong = [expected for is_failed, expected in failures if not is_failed]
    print(
        f"\n{sum(failed)} of {len(failed)} failures foreseen; {sum(wrong)} of {len(wrong)} others"
    )
    for name in ("registers", "shared_bytes"):
        pairs = np.array([(e[name], b[name]) for e, b in binaries if b.get(name) is not None])
        factor = np.exp(np.abs(np.diff(np.log1p(pairs)))).ravel()
        told = f"median factor {np.median(factor):.2f}, 90th percentile {np.percentile(factor, 90):.2f}"
        print(f"{name} of {len(pairs)} binaries: {told}")
    spills = np.array(
        [(e["excess_registers"] > 0, b["spills"] > 0) for e, b in binaries if "spills" in b]
    )
    both, wrong = spills.all(1).sum(), (spills[:, 0] & ~spills[:, 1]).sum()
    print(f"{both} of {spills[:, 1].sum()} that spill foreseen, {wrong} of the others")


def _text(regret: np.ndarray) -> str:
    return " / ".join(f"{100 * r:.1f}" for r in regret)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_sources(parser, needs_data=False)
    parser.add_argument("--device", default="NVIDIA H100", help="whose landscapes are judged")
    choices = ("families", "kernels", "device")
    parser.add_argument("--leave-out", action="append", choices=choices)
    parser.add_argument("--surrogate", default="nano", help="a checkpoint's name or folder")
    args = parser.parse_args()
    all_ = landscapes(FactsTable.load(args.facts), args.device)
    if args.leave_out:
        report(left_out(all_lists(args), all_, args.leave_out), all_)
    else:
        surrogate = load_surrogate(args.surrogate)
        orders = orders_of(surrogate)
        report([Judged(one, family, surrogate, orders) for family, one in all_], all_)


if __name__ == "__main__":
    main()
