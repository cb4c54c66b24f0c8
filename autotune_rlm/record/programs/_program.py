"""Programs with their inputs, from a folder or a table."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune_rlm._checks import check_type
from autotune_rlm.record.programs._languages import LANGUAGES, language_of

_KNOWN = (
    "program", "language", "text", "file", "call", "inputs", "outputs", "arguments", "group", "runs",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program and what it is run on.

    Attributes:
        id: Its name in the record and the table.
        text: The program.
        language: A key of ``LANGUAGES``.
        call: Python only: the function that is called with each input; empty for a program that reads
            its standard input.
        inputs: One run each: the text of standard input, or the call's arguments by name or in order.
        outputs: What each run has to print, white space at the ends aside; empty where it is not
            compared.
        arguments: Words of its command line.
        group: What it must not be separated from when data are split, such as the problem that several
            programs solve.
        fields: What else is known of it, by name.
        runs: What is run in place of the text, such as the text with a ``main`` around it; empty for the
            text itself.
    """

    id: str
    text: str
    language: str = "python"
    call: str = ""
    inputs: Sequence[Any] = ("",)
    outputs: Sequence[str] = ()
    arguments: Sequence[str] = ()
    group: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    runs: str = ""

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ValueError(
                f"program {self.id!r}: language must be one of {', '.join(LANGUAGES)}, got "
                f"{self.language!r}"
            )
        check_type(f"program {self.id!r}: text", self.text, str)
        if isinstance(self.inputs, str):
            raise TypeError(f"program {self.id!r}: inputs must be a list, got {self.inputs!r}")
        if not self.text.strip():
            raise ValueError(f"program {self.id!r}: text is empty")
        if self.call and self.language != "python":
            raise ValueError(f"program {self.id!r}: call is for Python programs only")
        if self.outputs and len(self.outputs) != len(self.inputs):
            raise ValueError(
                f"program {self.id!r}: outputs must have one entry for each of the "
                f"{len(self.inputs)} inputs, got {len(self.outputs)}"
            )
        wanted = (dict, list, tuple) if self.call else str
        for one in self.inputs:
            if not isinstance(one, wanted):
                what = "the call's arguments (an object or a list)" if self.call else "a text"
                raise ValueError(
                    f"program {self.id!r}: each input must be {what}, got {type(one).__name__}"
                )


def read_programs(path: str | Path) -> Iterator[Program]:
    """The programs of a folder or of a table.

    A folder: every file of a known language is a program. Its inputs are the files ``NAME.in`` and
    ``NAME.*.in`` beside it, else the ``*.in`` files of its folder and of a folder ``inputs`` in it, else
    one empty input. A file ``X.out`` beside ``X.in`` holds what has to be printed. Programs of one
    folder within it are a group.

    A table (``.jsonl``, ``.csv``, ``.parquet``, with ``.gz`` too): one row a program with the columns
    ``text`` or ``file`` (beside the table), and any of ``program``, ``language``, ``call``, ``inputs``,
    ``outputs``, ``arguments`` (each a list, in CSV as JSON), ``group`` and ``runs``. Others are kept.

    Raises:
        FileNotFoundError: There is no such folder or file.
        ValueError: It holds no program, or a row is none; the message names it.
    """
    path = Path(path)
    if path.is_dir():
        yield from _of_folder(path)
        return
    if not path.is_file():
        raise FileNotFoundError(f"no folder or table of programs {str(path)!r}")
    for number, row in enumerate(_rows(path)):
        try:
            yield _of_row(row, number, path)
        except (ValueError, TypeError) as error:  # noqa: PERF203 - the message names the row
            raise ValueError(f"{path}: row {number + 1}: {error}") from None


def _of_folder(folder: Path) -> Iterator[Program]:
    found = False
    for file in sorted(folder.rglob("*")):
        language = language_of(file.suffix)
        if not file.is_file() or not language:
            continue
        found = True
        place = file.parent
        own = sorted({*place.glob(f"{file.stem}.in"), *place.glob(f"{file.stem}.*.in")})
        inputs = own or sorted({*place.glob("*.in"), *place.glob("inputs/*.in")})
        answers = [one.with_suffix(".out") for one in inputs]
        known = bool(answers) and all(one.is_file() for one in answers)
        yield Program(
            id=str(file.relative_to(folder)),
            text=file.read_text(encoding="utf-8", errors="replace"),
            language=language,
            inputs=[one.read_text(encoding="utf-8", errors="replace") for one in inputs] or [""],
            outputs=[one.read_text(encoding="utf-8") for one in answers] if known else (),
            group=str(place.relative_to(folder)) if place != folder else file.stem,
        )
    if not found:
        suffixes = ", ".join(s for one in LANGUAGES.values() for s in one.suffixes)
        raise ValueError(f"{folder} holds no program: no file ends in one of {suffixes}")


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".jsonl"):
        opened = gzip.open if path.name.endswith(".gz") else open
        with opened(path, "rt", encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())
        return
    import pandas

    if name.endswith(".csv"):
        frame = pandas.read_csv(path, dtype=str, keep_default_na=False)
    elif name.endswith(".parquet"):
        frame = pandas.read_parquet(path)
    else:
        raise ValueError(f"{path}: a table of programs is a .jsonl, .csv or .parquet file")
    yield from frame.to_dict("records")


def _of_row(row: Mapping[str, Any], number: int, path: Path) -> Program:
    row = {name: value for name, value in row.items() if not _is_missing(value)}
    if "text" not in row and "file" not in row:
        raise ValueError("a row needs a column text (the program) or file (where it is)")
    language = str(row.get("language") or Path(str(row.get("file", "x.py"))).suffix)
    text = row["text"] if "text" in row else (path.parent / str(row["file"])).read_text("utf-8")
    name = str(row.get("program") or row.get("file") or number)
    return Program(
        id=name,
        text=str(text),
        language=language_of(language) or language,
        call=str(row.get("call", "")),
        inputs=_list(row, "inputs") or [""],
        outputs=_list(row, "outputs"),
        arguments=[str(word) for word in _list(row, "arguments")],
        group=str(row.get("group") or name),
        runs=str(row.get("runs", "")),
        fields={k: v for k, v in row.items() if k not in _KNOWN},
    )


def _list(row: Mapping[str, Any], name: str) -> list[Any]:
    value = row.get(name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(f"{name} must be a JSON list, got {value[:60]!r}") from None
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        try:
            value = value.tolist()  # an array of a Parquet file
        except AttributeError:
            raise ValueError(f"{name} must be a list, got {type(value).__name__}") from None
    return list(value)


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def sizes(given: Any) -> dict[str, float]:
    """How large an input is, by name.

    ``items``: numbers and texts in it; ``characters`` of the texts; ``largest`` absolute number;
    ``depth`` of nested lists. Arguments by name add ``NAME``, a number, or ``len(NAME)``. The items of
    standard input are its words; it has ``lines`` in place of a depth.
    """
    if isinstance(given, str):
        words = given.split()
        numbers = [abs(x) for x in map(_number, words) if x is not None]
        return {
            "items": len(words),
            "characters": len(given),
            "largest": max(numbers, default=0.0),
            "lines": given.count("\n"),
        }
    found = {"items": 0, "characters": 0, "largest": 0.0, "depth": 0}
    _walk(given, 0, found)
    if isinstance(given, Mapping):
        for name, value in given.items():
            if isinstance(value, (bool, int, float)):
                found.setdefault(name, _bounded(value))
            elif isinstance(value, (str, list, tuple, Mapping)):
                found[f"len({name})"] = len(value)
    return found


def _walk(value: Any, depth: int, found: dict[str, float]) -> None:
    found["depth"] = max(found["depth"], depth)
    if isinstance(value, Mapping):
        for name, one in value.items():
            found["characters"] += len(str(name))
            _walk(one, depth + 1, found)
    elif isinstance(value, (list, tuple)):
        for one in value:
            _walk(one, depth + 1, found)
    else:
        found["items"] += 1
        if isinstance(value, str):
            found["characters"] += len(value)
        elif isinstance(value, (bool, int, float)):
            found["largest"] = max(found["largest"], abs(_bounded(value)))


def _bounded(value: float) -> float:
    """As a number that JSON can hold and a double can."""
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0
    return value if abs(value) < 2**53 else math.copysign(float(2**53), value)


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return _bounded(value)
