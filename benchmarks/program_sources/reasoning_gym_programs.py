"""A table of Python programs with inputs, from the package ``reasoning-gym`` (Apache-2.0).

``pip install reasoning-gym --no-deps``, then::

    python benchmarks/program_sources/reasoning_gym_programs.py --out programs.jsonl.gz
    autotune-rlm record --programs programs.jsonl.gz --minutes 60 --out measured.jsonl.gz
    autotune-rlm record --out measured.jsonl.gz --table measured.csv.gz

Each program has a generator of inputs, which is run with the seeds 0, 1, 2, ... in a limited child. A
program whose generator fails, or gives what JSON cannot hold, is left out.
"""

from __future__ import annotations

import collections
import gzip
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from autotune_rlm.record.programs import Limits, Sandbox

_FILES = ("codeio", "codeio-hq")
_GENERATE = """
import json as _json
from random import Random
_make = globals().get("generate_inputs") or globals()["generate_input"]
_found = []
for _seed in range({inputs}):
    try:
        _found.append(_json.dumps(_make(Random(_seed))))
    except Exception:
        pass
print("\\n" + _json.dumps(_found))
"""


def read(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """The package's programs by id (``codeio/17``).

    Args:
        folder: Where the package lies; None for the installed one.

    Raises:
        FileNotFoundError: It is not installed.
    """
    if folder is None:
        spec = importlib.util.find_spec("reasoning_gym")
        if spec is None or spec.origin is None:
            raise FileNotFoundError("reasoning-gym is not installed: pip install reasoning-gym")
        folder = Path(spec.origin).parent
    found = {}
    for name in _FILES:
        data = gzip.decompress((folder / "data" / f"{name}.jsonl.gz").read_bytes()).decode()
        rows = json.loads(data) if data.lstrip().startswith("[") else _lines(data)
        found.update({f"{name}/{number}": row for number, row in enumerate(rows)})
    return found


def _lines(data: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines() if line.strip()]


def table(
    folder: Path | None, inputs: int, *, left_out: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Rows for ``record --programs``; why others are left out is counted in ``left_out``."""
    with Sandbox(limits=Limits(timeout_s=20.0)) as sandbox:
        for name, row in read(folder).items():
            text = row["code_sample"]
            made = sandbox.python(
                "from random import Random\n"
                + text
                + "\n\n"
                + row["input_generator"]
                + _GENERATE.format(inputs=inputs)
            )
            if made.code or made.timeout or made.signal:
                reason = made.error.split(":")[0] or ("time-out" if made.timeout else "it ended")
                left_out[reason] = left_out.get(reason, 0) + 1
                continue
            try:
                given = [json.loads(one) for one in json.loads(made.stdout.rsplit("\n", 2)[-2])]
            except (ValueError, IndexError):
                given = []
            given = [one for one in given if isinstance(one, dict)]
            if len(given) < inputs / 2:
                left_out["few inputs"] = left_out.get("few inputs", 0) + 1
                continue
            yield {
                "program": name,
                "language": "python",
                "text": text,
                "call": "main_solution",
                "inputs": given,
                "statement": row["task_description"],
            }


def main(
    out: Path = typer.Option(..., help="Table to write: .jsonl.gz."),
    folder: Path | None = typer.Option(
        None, help="Folder of the package; by default as installed."
    ),
    inputs: int = typer.Option(20, min=1, help="Inputs of each program."),
) -> None:
    """Write the table of programs with their inputs."""
    left_out: dict[str, int] = collections.Counter()
    count = 0
    with gzip.open(out, "wt", encoding="utf-8") as file:
        for row in table(folder, inputs, left_out=left_out):
            file.write(json.dumps(row) + "\n")
            count += 1
            if count % 200 == 0:
                print(f"{count} programs", flush=True)
    print(f"{out}: {count} programs; left out: {dict(left_out)}")


if __name__ == "__main__":
    typer.run(main)
