"""Memory and time of programs never seen: ridge and boosted trees beside length and the repeat ceiling.

    autotune-rlm record --out measured.jsonl.gz --table python.csv.gz
    python benchmarks/programs_unseen.py python.csv.gz --medians --target peak_bytes
    python benchmarks/programs_unseen.py solutions.csv.gz --medians --target call_bytes

Out of fold in five folds that never split a ``group``: what is said of a row comes from a model that
has seen no program of its group. One model for all languages of the table, each language's numbers on
a scale of their own. ``trees`` is the leading model of ``RLM.fit`` (a ridge, and boosted trees over
n-grams, sizes and the facts of ``autotune_rlm.programs``), ``without facts`` the same without those.
The 90 % intervals are those of the other folds' errors. The ceiling is told too: how well the medians
over the even inputs of the programs order those over the odd ones.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from autotune_rlm.regression._lead import fit_lead
from autotune_rlm.regression._ridge import folds

FIELDS = ("items", "characters", "largest", "depth", "lines", "language", "compiler")
COVER = 0.9


def rho(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(a, b).statistic)


def covered(off: np.ndarray, part: np.ndarray) -> float:
    """Share of rows whose error is within the 90 % quantile of the other folds' errors."""
    inside = [
        np.abs(off[part == f]) <= np.quantile(np.abs(off[part != f]), COVER)
        for f in np.unique(part)
    ]
    return float(np.concatenate(inside).mean())


def judge(table: pd.DataFrame, target: str, seed: int, *, statements: bool = False) -> pd.DataFrame:
    """Scores of each language of a table."""
    table = table[table[target].notna()].reset_index(drop=True)
    logs = np.log1p(table[target].clip(lower=0) * (1e6 if target.endswith("ms") else 1.0))
    by = logs.groupby(table["language"])
    z = ((logs - by.transform("mean")) / by.transform("std").clip(lower=1e-9)).to_numpy()
    groups = table["group"].astype("category").cat.codes.to_numpy()
    texts = table["text"].astype(str).tolist()
    if "statement" in table and statements:
        told = table["statement"].fillna("").str.replace("\n", " ")
        texts = [f"{text}\n# {words}\n" for text, words in zip(texts, told, strict=True)]
    names = [name for name in FIELDS if name in table]
    fields = table[names].to_dict("records")
    said = {"length": np.array([len(text) for text in texts])}
    for name, facts in (("trees", True), ("without facts", False)):
        _, words = fit_lead(texts, fields, z[:, None], groups, seed=seed, facts=facts)
        said |= {"ridge": words.ridge[:, 0], name: words.lead[:, 0]}
    part = folds(groups, 5, seed)
    rows = []
    for language, at in table.groupby("language").indices.items():
        scores = {name: round(rho(x[at], z[at]), 3) for name, x in said.items()}
        within = covered((said["trees"] - z)[at], part[at])
        rows.append(
            {
                "target": target,
                "language": language,
                "programs": len(at),
                **scores,
                "within 90 %": round(within, 3),
            }
        )
    return pd.DataFrame(rows)


def medians(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each program: medians over the inputs that worked, where at least half did."""
    runs = table.groupby("program", sort=False).size()
    works = table[table["status"] == "ok"].groupby("program", sort=False)
    numbers = [name for name in works.obj.select_dtypes("number") if name != "input"]
    other = [name for name in works.obj.columns if name not in (*numbers, "program", "input")]
    found = works[other].first().join(works[numbers].median())
    return found[works.size() >= 0.5 * runs.loc[found.index]].reset_index()


def ceiling(inputs: pd.DataFrame, target: str) -> float:
    """Rank correlation of medians over the even and over the odd inputs of each program."""
    works = inputs[inputs["status"] == "ok"]
    halves = works.groupby(["program", works["input"] % 2])[target].median().unstack().dropna()
    return rho(halves[0].to_numpy(), halves[1].to_numpy())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table")
    parser.add_argument("--target", action="append", required=True)
    parser.add_argument(
        "--medians",
        action="store_true",
        help="over the inputs of each program; else each row counts",
    )
    parser.add_argument("--statements", action="store_true", help="problem statements as comments")
    parser.add_argument("--least", type=int, default=40, help="programs that a language must have")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    runs = table = pd.read_csv(args.table, low_memory=False)
    if args.medians:
        table = medians(table)
    same = ["language", "text", *(name for name in ("input", "compiler") if name in table)]
    table = table.drop_duplicates(same)
    table = table[table.groupby("language")["text"].transform("size") >= args.least]
    for target in args.target:
        found = judge(table, target, args.seed, statements=args.statements)
        print(found.to_string(index=False))
        if len(found) > 1:
            print(
                "mean",
                found.select_dtypes("number").drop(columns="programs").mean().round(3).to_dict(),
            )
        if args.medians and runs["input"].nunique() > 1:
            print("two halves of the inputs", round(ceiling(runs, target), 3))


if __name__ == "__main__":
    main()
