"""Tables of texts and numbers on disk, as pandas reads them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from autotune_rlm._checks import check_path, of_extra

__all__ = ["TABLE_FORMATS", "read_table", "write_table"]

TABLE_FORMATS = (".parquet", ".csv", ".csv.gz", ".tsv", ".jsonl", ".jsonl.gz", ".ndjson")
_KINDS = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "json", ".ndjson": "json"}
_SEPARATORS = {"csv": ",", "tsv": "\t"}


def read_table(path: str | Path) -> Any:
    """A table as a pandas ``DataFrame``.

    Args:
        path: A file whose name ends in one of ``TABLE_FORMATS``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind, damaged, or has no rows.
        ImportError: pandas, or for Parquet files pyarrow, is not installed.
    """
    path = check_path("path", path)
    kind = _kind(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    with of_extra("tables", f"reading {path}"):
        import pandas

        try:
            if kind == "parquet":
                table = pandas.read_parquet(path)
            elif kind == "json":
                table = pandas.read_json(path, lines=True, dtype=False, precise_float=True)
            else:
                # The default of pandas 2 drops last digits; pandas 3 knows no other way than this one.
                old = {"float_precision": "round_trip"} if pandas.__version__ < "3" else {}
                table = pandas.read_csv(path, sep=_SEPARATORS[kind], **old)
        except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
            raise ValueError(f"{path} cannot be read as {kind}: {error}") from error
    if not len(table):
        raise ValueError(f"{path} has no rows")
    return table


def write_table(table: Any, path: str | Path) -> None:
    """Write a ``DataFrame`` in the format that the name says.

    Raises:
        ValueError: The name ends in none of ``TABLE_FORMATS``.
    """
    path = check_path("path", path)
    kind = _kind(path)
    if kind == "parquet":
        table.to_parquet(path, index=False)
    elif kind == "json":
        _write_lines(table, path)
    else:
        table.to_csv(path, index=False, sep=_SEPARATORS[kind])


def _write_lines(table: Any, path: Path) -> None:
    """One JSON object a line, each number with all of its digits."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "wt", encoding="utf-8") as file:
        for row in table.astype(object).where(table.notna(), None).to_dict("records"):
            plain = {k: v.item() if hasattr(v, "item") else v for k, v in row.items()}
            file.write(json.dumps(plain, ensure_ascii=False, default=str) + "\n")


def _kind(path: Path) -> str:
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in _KINDS:
        raise ValueError(
            f"{path}: a table is a file that ends in one of {', '.join(TABLE_FORMATS)}"
        )
    return _KINDS[suffix]
