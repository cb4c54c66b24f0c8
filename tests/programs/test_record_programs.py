"""Programs measured in limited children, recorded and read back as a table."""

import json
import shutil

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from autotune_rlm.cli import app
from autotune_rlm.record.log import RecordLog, read_record
from autotune_rlm.record.programs import (
    Limits,
    Program,
    ProgramMeasurer,
    Sandbox,
    program_table,
    read_programs,
    record_programs,
    sizes,
)
from autotune_rlm.types import Status

LISTS = "import math\n\ndef solve(n):\n    return len([0] * n)\n"
ENDLESS = "def solve(n):\n    while n:\n        pass\n"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(limits=Limits(timeout_s=2.0, memory_mb=256)) as one:
        yield one


def measured(program, **limits):
    with ProgramMeasurer(limits=Limits(**{"timeout_s": 2.0, "memory_mb": 256, **limits})) as one:
        return list(one.prepare(program)(program.inputs))


def test_the_peak_of_a_call_is_what_it_allocates_and_imports_count(sandbox):
    small, large = sandbox.calls(LISTS, "solve", [[10], {"n": 100_000}], trace=True)
    assert 80 <= small.numbers["call_bytes"] < 2_000
    assert 800_000 <= large.numbers["call_bytes"] < 802_000
    assert large.numbers["peak_bytes"] > large.numbers["call_bytes"]
    [heavy] = sandbox.calls("import json\n" + LISTS, "solve", [[10]], trace=True)
    assert heavy.numbers["peak_bytes"] > small.numbers["peak_bytes"] + 100_000


def test_calls_do_not_see_each_other(sandbox):
    text = "kept = []\ndef solve(n):\n    kept.append(n)\n    assert len(kept) == 1\n"
    assert all(run.code == 0 for run in sandbox.calls(text, "solve", [[1], [2], [3]]))


def test_memory_does_not_change_from_run_to_run():
    program = Program(id="a", text="print(len({str(i) for i in range(5000)}))")
    first, second = measured(program), measured(program)
    assert first[0].value == pytest.approx(second[0].value, rel=1e-3)


def test_hashes_and_the_module_path_are_those_of_an_isolated_interpreter(sandbox):
    run = sandbox.python("import sys\nprint(hash('a'), sys.flags.no_site, 'numpy' in sys.path)")
    assert run.stdout == sandbox.python("import sys\nprint(hash('a'), 1, False)").stdout


def test_there_is_no_network_where_the_system_can_take_it_away(sandbox):
    if sandbox.has_network:
        pytest.skip("no namespaces here")
    run = sandbox.python("import socket\nsocket.create_connection(('127.0.0.1', 9))")
    assert run.code == 1
    assert "OSError" in run.error or "Error" in run.error


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("while True: pass", Status.TIMEOUT),
        ("x = [0] * 10**9", Status.OUT_OF_RESOURCES),
        ("import os; os.abort()", Status.CRASHED),
        ("1 / 0", Status.RUNTIME_ERROR),
        ("def f(: pass", Status.RUNTIME_ERROR),
        ("import sys; sys.exit(3)", Status.RUNTIME_ERROR),
        ("import sys; sys.exit(0)", Status.OK),
        ("import os\nif not os.fork():\n    import time; time.sleep(60)", Status.OK),
    ],
)
def test_what_goes_wrong_has_a_status_and_a_reason(text, status):
    [found] = measured(Program(id="a", text=text))
    assert found.status is status
    assert found.ok or found.reason


def test_one_endless_call_costs_that_call_only():
    program = Program(id="a", text=ENDLESS, call="solve", inputs=[[0], [1], [0]])
    assert [m.status.value for m in measured(program, timeout_s=0.5)] == ["ok", "timeout", "ok"]


def test_a_program_that_reports_garbage_is_a_failed_program(sandbox):
    run = sandbox.python("import os\nfor fd in range(3, 40):\n    try: os.write(fd, b'x y z\\n\\xff')\n"
                         "    except OSError: pass")  # fmt: skip
    assert "x" not in run.numbers
    assert sandbox.python("print(1)").stdout == "1\n"


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_compiled_program_is_measured_above_an_empty_one():
    text = "#include <vector>\n#include <cstdio>\nint main() { int n; scanf(\"%d\", &n);\n" \
           "  std::vector<char> v(n, 1); printf(\"%d\", v[n / 2] + n); }"  # fmt: skip
    program = Program(
        id="a",
        text=text,
        language="cpp",
        inputs=["10", "5000000", "8"],
        outputs=["11", "5000001", "7"],
    )
    small, large, wrong = measured(program, timeout_s=10.0)
    assert large.value - small.value == pytest.approx(5_000_000, rel=0.01)
    assert wrong.status is Status.WRONG_RESULT


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_what_does_not_compile_is_a_compile_error_with_the_compilers_words(tmp_path):
    program = Program(id="a", text="int main() { return missing; }", language="cpp")
    with RecordLog(tmp_path / "a.jsonl") as log, ProgramMeasurer() as measurer:
        done = record_programs([program], log, measurer=measurer)
    assert done.status == {"compile_error": 1}
    [landscape] = read_record(tmp_path / "a.jsonl")
    assert "missing" in landscape.observations[0].measurement.reason


def test_a_missing_compiler_is_told_and_not_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    program = Program(id="a", text="package main\nfunc main() {}", language="go")
    with RecordLog(tmp_path / "a.jsonl") as log, ProgramMeasurer() as measurer:
        done = record_programs([program], log, measurer=measurer)
        assert log.rows == 0
    assert any("no go on the path" in reason for reason in done.left_out)


def test_a_record_goes_on_where_it_was_killed(tmp_path):
    programs = [Program(id=str(i), text=LISTS, call="solve", inputs=[[1], [i]]) for i in (7, 8)]
    path = tmp_path / "a.jsonl.gz"
    with ProgramMeasurer() as measurer:
        with RecordLog(path) as log:
            record_programs(programs, log, measurer=measurer, max_points=3)
        path.write_bytes(path.read_bytes() + b"\x1f\x8b torn")
        with RecordLog(path) as log:
            done = record_programs(programs, log, measurer=measurer)
            again = record_programs(programs, log, measurer=measurer)
    assert (done.known, done.points) == (3, 1)
    assert (again.known, again.points) == (4, 0)


def test_a_folder_becomes_a_table_that_holds_texts_groups_and_failures(tmp_path):
    for name, text in {"p1/a.py": "print(int(input()) + 1)", "p1/b.py": "input(); 1 / 0"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "p1" / "x.in").write_text("41\n")
    (tmp_path / "p1" / "x.out").write_text("42\n")
    out, table = tmp_path / "r.jsonl.gz", tmp_path / "t.csv.gz"
    words = ["record", "--programs", str(tmp_path), "--out", str(out), "--table", str(table)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    found = pandas.read_csv(table).set_index("program")
    assert found.loc["p1/a.py", "status"] == "ok"
    assert found.loc["p1/a.py", "peak_bytes"] > 0
    assert found.loc["p1/a.py", "text"].startswith("print")
    assert found.loc["p1/b.py", "status"] == "runtime_error"
    assert set(found["group"]) == {"p1"}


def test_the_table_per_program_holds_medians(tmp_path):
    program = Program(id="a", text=LISTS, call="solve", inputs=[[10], [1000], [100_000]])
    with RecordLog(tmp_path / "a.jsonl") as log, ProgramMeasurer() as measurer:
        record_programs([program], log, measurer=measurer)
    table = program_table(read_record(tmp_path / "a.jsonl"), per="program", texts=False)
    assert "text" not in table
    assert table.loc[0, "runs"] == 3
    assert 8_000 <= table.loc[0, "call_bytes"] < 10_000
    assert table.loc[0, "largest"] == 1000


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"language": "python"}, "text"),
        ({"text": "x", "language": "cobol"}, "cobol"),
        ({"text": "x", "inputs": "[1"}, "inputs"),
        ({"text": "x", "inputs": [1]}, "each input"),
        ({"text": "x", "call": "f", "inputs": ["a"]}, "arguments"),
        ({"text": "x", "outputs": ["a", "b"]}, "outputs"),
        ({"text": " "}, "empty"),
    ],
)
def test_a_bad_row_is_named_before_anything_runs(tmp_path, row, words):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match=words):
        list(read_programs(path))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(values | st.text())
@settings(max_examples=60)
def test_sizes_are_finite_numbers_whatever_the_input(value):
    assert all(abs(x) < 2**54 for x in sizes(value).values())
