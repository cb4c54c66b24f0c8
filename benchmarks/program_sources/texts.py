"""Measurements without the programs' texts, as ``data/programs`` keeps them, and their texts again.

    python benchmarks/program_sources/texts.py strip measured.csv.gz --out data/programs/python.csv.gz
    python benchmarks/program_sources/texts.py join data/programs/python.csv.gz --out python.csv.gz
    python benchmarks/program_sources/texts.py join data/programs/leetcode.csv.gz \\
        --checkout leetcode --out solutions.csv.gz

A row has the program's id, the number of its input (the generator's seed, or the test case), the sizes of
the input, what was measured, and the first 12 hex digits of the text's SHA-256. ``join`` takes the texts
from the installed package ``reasoning-gym``, or from a checkout of ``doocs/leetcode``, and leaves out rows
whose text has changed since.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import leetcode_solutions
import pandas as pd
import reasoning_gym_programs
import typer

app = typer.Typer(add_completion=False)
_LEFT_OUT = ("text", "statement", "sizes", "reason", "runs")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


@app.command()
def strip(table: Path, out: Path = typer.Option(...)) -> None:
    """Leave out texts, and what is only of use with them."""
    found = pd.read_csv(table, low_memory=False)
    digests = {text: _digest(text) for text in found["text"].unique()}
    found["text_sha256"] = found["text"].map(digests)
    found = found.drop(columns=[name for name in _LEFT_OUT if name in found])
    for name in found.select_dtypes("float"):
        found[name] = found[name].map(lambda value: float(f"{value:.4g}"))
    found.to_csv(out, index=False)
    print(f"{out}: {len(found)} rows of {found['program'].nunique()} programs")


@app.command()
def join(
    table: Path,
    out: Path = typer.Option(...),
    checkout: Path | None = typer.Option(None, help="Checkout of doocs/leetcode."),
    folder: Path | None = typer.Option(
        None, help="Folder of reasoning_gym; by default as installed."
    ),
) -> None:
    """Add the texts."""
    found = pd.read_csv(table, low_memory=False)
    if checkout is not None:
        texts = leetcode_solutions.texts(checkout)
    else:
        texts = {
            name: row["code_sample"] for name, row in reasoning_gym_programs.read(folder).items()
        }
    same = {name: texts[name] for name in found["program"].unique() if name in texts}
    digests = found["program"].map({name: _digest(text) for name, text in same.items()})
    kept = found[digests == found["text_sha256"]].drop(columns="text_sha256")
    kept = kept.assign(text=kept["program"].map(same))
    kept.to_csv(out, index=False)
    print(f"{out}: {len(kept)} of {len(found)} rows have the text that was measured")


if __name__ == "__main__":
    app()
