"""``autotune-rlm fit``, ``predict`` and ``score`` on tables with any column names."""

from __future__ import annotations

import numpy as np
import pytest
from regression_support import Table
from typer.testing import CliRunner

from autotune_rlm.cli import app
from autotune_rlm.landscapes.tables import read_table, write_table

pandas = pytest.importorskip("pandas")
FORMATS = ("csv", "csv.gz", "tsv", "jsonl", "parquet")


def frame(rows=240, seed=0):
    table = Table(rows, seed)
    return pandas.DataFrame(
        {"The code": table.texts, "peak bytes": table.bytes, "Größe": table.size}
    )


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words], env={"COLUMNS": "200"})


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_round_trips(kind, tmp_path):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    write_table(frame(), tmp_path / f"t.{kind}")
    assert read_table(tmp_path / f"t.{kind}").equals(frame())


def test_from_a_table_to_a_scored_model(tmp_path, base):
    write_table(frame(), tmp_path / "known.csv")
    write_table(frame(100, seed=1), tmp_path / "new.jsonl")
    columns = ("--text", "The code", "--field", "Größe")
    fitted = run(
        "fit", tmp_path / "known.csv", *columns, "--target", "peak bytes",
        "--base", base, "--minutes", 0.05, "--out", tmp_path / "model", "--quiet",
    )  # fmt: skip
    assert fitted.exit_code == 0, fitted.output
    assert "ridge" in fitted.output
    assert "constant" in fitted.output
    scored = run(
        "score", tmp_path / "new.jsonl", *columns, "--target", "peak bytes",
        "--model", tmp_path / "model",
    )  # fmt: skip
    assert scored.exit_code == 0, scored.output
    assert "Spearman" in scored.output
    told = run("predict", tmp_path / "new.jsonl", *columns, "--model", tmp_path / "model")
    assert told.exit_code == 0, told.output
    found = read_table(tmp_path / "new-predicted.jsonl")
    assert (found["peak bytes_low"] <= found["peak bytes_predicted"]).all()
    assert (
        np.corrcoef(np.log(found["peak bytes"]), np.log(found["peak bytes_predicted"]))[0, 1] > 0.9
    )


BAD = [
    ("csv", lambda t: t, ("--text", "code"), "no column 'code'; it has: The code"),
    ("csv", lambda t: t, ("--field", "height"), "no column 'height'"),
    ("csv", lambda t: t.assign(**{"peak bytes": "many"}), (), "'many' in row 0"),
    ("csv", lambda t: t.assign(**{"peak bytes": np.inf}), (), "infinite in row 0"),
    ("csv", lambda t: t.assign(**{"peak bytes": np.nan}), (), "no number in any row"),
    ("csv", lambda t: t.assign(**{"The code": [None] * 5 + ["x"] * 235}), (), "in 5 rows"),
    ("csv", lambda t: t.head(9), (), "at least 20 are needed"),
    ("csv", lambda t: t.head(0), (), "no rows"),
    ("csv", lambda t: t, ("--base", "nowhere"), "nowhere"),
    ("csv", lambda t: t, ("--held-out", "1.5"), "held_out must be"),
]


@pytest.mark.parametrize(("kind", "change", "words", "message"), BAD, ids=[b[3] for b in BAD])
def test_bad_tables_are_named_before_work_starts(tmp_path, kind, change, words, message):
    change(frame()).to_csv(tmp_path / "t.csv", index=False)
    given = ("--text", "The code", "--target", "peak bytes", "--out", tmp_path / "m", "--quiet")
    found = run("fit", tmp_path / "t.csv", *given, *words)
    assert found.exit_code == 2
    assert message in found.output.replace("\n", "")
    assert not (tmp_path / "m" / "config.json").exists()


def test_files_of_other_kinds_are_named(tmp_path):
    (tmp_path / "t.xlsx").write_bytes(b"")
    (tmp_path / "t.jsonl").write_text("{]")
    for name, message in (
        ("t.xlsx", "ends in one of"), ("t.jsonl", "cannot be read"), ("no.csv", "no file"),
    ):  # fmt: skip
        found = run("score", tmp_path / name, "--text", "a", "--target", "b")
        assert found.exit_code == 2
        assert message in found.output.replace("\n", "")
