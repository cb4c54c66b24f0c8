"""A table of the published measurements of ``hanabi1224/Programming-Language-Benchmarks`` (MIT).

    git clone --depth 1 https://github.com/hanabi1224/Programming-Language-Benchmarks
    python benchmarks/program_sources/language_benchmarks.py \\
        --checkout Programming-Language-Benchmarks --out published.csv.gz
    python benchmarks/programs_unseen.py published.csv.gz --target peak_bytes --target time_ms --least 6

One row is one program of the checkout, with one input, built by one compiler. Nothing is measured here,
and nothing of it is kept in this project: it is a test across languages.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import typer
from _git import git_texts


def table(checkout: Path) -> pd.DataFrame:
    """One row for each published measurement whose program is in the checkout."""
    texts = git_texts(checkout, "bench/algorithm")
    rows = []
    for name, text in git_texts(checkout, "website/content").items():
        if not name.endswith(".json"):
            continue
        told = json.loads(text)
        program = f"{told['test']}/{told['code']}"
        source = texts.get(f"bench/algorithm/{program}")
        if source is None or not told.get("timeMS"):
            continue
        number = re.search(r"\d+", str(told["input"]))
        rows.append(
            {
                "program": program,
                "language": told["lang"],
                "compiler": told["compiler"],
                "group": program,
                "problem": told["test"],
                "text": source,
                "input": told["input"],
                "largest": float(number[0]) if number else None,
                "status": "ok",
                "peak_bytes": told.get("memBytes"),
                "time_ms": told["timeMS"],
            }
        )
    return pd.DataFrame(rows)


def main(checkout: Path = typer.Option(...), out: Path = typer.Option(...)) -> None:
    """Write the table."""
    found = table(checkout)
    found.to_csv(out, index=False)
    counts = found[["program", "language"]].nunique()
    print(f"{out}: {len(found)} rows, {counts['program']} programs, {counts['language']} languages")


if __name__ == "__main__":
    typer.run(main)
