"""Recording end to end: compiled and interpreted suites, a device that dies, whole programs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

from autotune_rlm.cli.record import _make_task
from autotune_rlm.landscapes import read_landscapes
from autotune_rlm.measure.triton.compile import parse_target
from autotune_rlm.record import _units as module
from autotune_rlm.record.log import RecordLog, read_record
from autotune_rlm.record.plan import Unit
from autotune_rlm.record.recorder import Recorder
from autotune_rlm.types import Device, Measurement, Status

pytestmark = pytest.mark.timeout(600)

H100 = Device(name="NVIDIA H100", target="sm_90", max_shared_kb_per_block=227)
SUITE = Path(__file__).parents[1] / "suites" / "double.py"


@pytest.fixture
def suite(tmp_path):
    folder = tmp_path / "suite"
    folder.mkdir()
    shutil.copy(SUITE, folder)
    return folder


@pytest.fixture
def device(tmp_path, monkeypatch):
    """Lets a test say what the device does with each problem, and see what it was asked."""
    script, calls = tmp_path / "script.json", tmp_path / "calls.jsonl"
    monkeypatch.setenv("RECORD_SCRIPT", str(script))
    monkeypatch.setenv("RECORD_CALLS", str(calls))
    monkeypatch.setattr(module, "_WORKER", "record_device:serve")
    monkeypatch.setattr(module, "_FIRST_CALL_S", 4.0)
    monkeypatch.setattr(module, "_PER_PROBLEM_S", 1.0)

    def says(**by_problem):
        script.write_text(json.dumps({k.removeprefix("p"): v for k, v in by_problem.items()}))
        return lambda: [json.loads(line) for line in calls.read_text().splitlines()]

    says()
    return says


def record(path, suite, *, seconds=120.0, max_points=None, **options):
    options = {"device": H100, "workers": 1, "make_task": _make_task, **options}
    with RecordLog(path) as log:
        recorder = Recorder(log, suite=suite, **options)
        return recorder.run(seconds=seconds, max_points=max_points, show=lambda p: None)


def by_problem(path):
    return {item.task.problem["n"]: item for item in read_record(path)}


def test_every_configuration_is_compiled_ahead_and_measured_on_every_problem(
    tmp_path, suite, device
):
    asked = device()
    done = record(tmp_path / "r.jsonl", suite)
    assert (done.points, done.ok, done.binaries) == (18, 18, 6)
    assert all(call["problems"] == [0, 1, 2] for call in asked())
    assert all(call["compiled"]["facts"]["registers"] > 0 for call in asked())
    found = by_problem(tmp_path / "r.jsonl")
    assert {n: {m.value for m in item.measurements} for n, item in found.items()} == {
        1024: {1.0},
        4096: {2.0},
        8192: {3.0},
    }
    for n, item in found.items():
        for candidate in item.candidates:
            assert candidate.facts["programs"] == -(-n // candidate.config["BLOCK"])
    task = found[4096].task
    assert task.problem["x"] == {"dtype": "fp32", "shape": [4096], "strides": [1], "align": 16}
    assert "def double(x, y, n, BLOCK: tl.constexpr)" in task.source


def test_a_recording_is_gone_on_with(tmp_path, suite, device):
    asked = device()
    record(tmp_path / "r.jsonl", suite, max_points=7)
    before = len(asked())
    done = record(tmp_path / "r.jsonl", suite)
    assert before * 3 + done.points == 18
    assert sum(len(item) for item in read_record(tmp_path / "r.jsonl")) == 18
    assert record(tmp_path / "r.jsonl", suite).points == 0


@pytest.mark.parametrize(("fault", "status"), [("crash", Status.CRASHED), ("hang", Status.TIMEOUT)])
def test_a_problem_that_kills_the_device_costs_only_itself(tmp_path, suite, device, fault, status):
    device(p1=fault)
    record(tmp_path / "r.jsonl", suite, max_points=3)
    found = by_problem(tmp_path / "r.jsonl")
    assert [found[n].measurements[0].status for n in (1024, 4096, 8192)] == [
        Status.OK,
        status,
        Status.OK,
    ]
    assert found[4096].measurements[0].reason


def test_after_a_sticky_error_the_rest_is_measured_in_a_fresh_process(tmp_path, suite, device):
    device(p0="poison")
    record(tmp_path / "r.jsonl", suite, max_points=3)
    found = by_problem(tmp_path / "r.jsonl")
    assert found[1024].measurements[0].status is Status.RUNTIME_ERROR
    assert found[8192].measurements[0].value == 3.0


@pytest.mark.parametrize("left_s", [-60.0, 0.5])
def test_a_hang_at_the_end_of_the_time_is_nobodys_fault(
    tmp_path, suite, device, monkeypatch, left_s
):
    device(p0="hang")
    monkeypatch.setattr(module, "_GRACE_S", 2.0)
    units = module.Units(suite, device=H100, targets={}, workers=1)
    unit = Unit("double", {"BLOCK": 32, "num_warps": 1}, (0, 1))
    found = [Measurement.from_json(m) for m in units(unit, (), left_s)[0]]
    units.close()
    assert [m.status for m in found] == [Status.SKIPPED] * 2


def test_what_does_not_fit_the_device_is_not_sent_to_it(tmp_path, suite, device):
    text = (suite / "double.py").read_text()
    (suite / "double.py").write_text(text.replace("BLOCK: tl.constexpr):", "BLOCK):"))
    asked = device()
    done = record(tmp_path / "r.jsonl", suite, max_points=3)
    assert done.status == {"compile_error": 3}
    with pytest.raises(FileNotFoundError):
        asked()


@pytest.mark.amd
def test_compilation_facts_need_no_device(tmp_path, suite):
    path = tmp_path / "facts.jsonl.gz"
    targets = [parse_target("sm_90"), parse_target("gfx942")]
    done = record(path, suite, targets=targets, max_points=12)
    assert done.ok == done.points == 12
    found = list(read_record(path))
    assert {item.task.device.name for item in found} == {"sm_90", "gfx942"}
    for item in found:
        assert item.task.metric == "compile_s"
        for measurement in item.measurements:
            assert measurement.value > 0
            assert {"registers", "spills", "shared_bytes", "binary_bytes"} <= set(measurement.facts)


def test_what_took_too_long_is_tried_again_after_everything_else(tmp_path, suite, monkeypatch):
    path = tmp_path / "facts.jsonl.gz"
    options = {"targets": [parse_target("sm_90")]}
    with monkeypatch.context() as hasty:
        hasty.setattr(module, "_COMPILE_S", 1e-3)
        assert record(path, suite, **options).points == 0
    with RecordLog(path) as log:
        assert len(log.late) == 18
        late = sorted(log.late)
    first = min(key for _, key in late)
    with RecordLog(tmp_path / "one.jsonl") as log:
        for name, key in late:
            if key == first:
                log.note("put off", landscape=name, candidate=key)
    record(tmp_path / "one.jsonl", suite, **options, max_points=15)
    found = [o for item in read_record(tmp_path / "one.jsonl") for o in item.observations]
    assert len(found) == 15
    assert first not in {o.candidate.key for o in found}
    assert record(tmp_path / "one.jsonl", suite, **options).points == 3


def command(*arguments, **options):
    run = [sys.executable, "-W", "ignore", "-m", "autotune_rlm", "record", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(run, capture_output=True, text=True, env=env, **options)


def test_the_interpreter_records_the_same_path(tmp_path, suite):
    out, csv = tmp_path / "r.jsonl.gz", tmp_path / "r.csv.gz"
    run = command("--interpreter", "--suite", suite, "--minutes", 3, "--out", out)
    assert run.returncode == 0, run.stderr
    assert "12 points (12 ok)" in run.stderr
    run = command("--out", out, "--convert", csv)
    assert run.returncode == 0, run.stderr
    found = read_landscapes(csv)
    assert sum(len(item) for item in found) == 12
    for item in found:
        assert item.task.device.name.startswith("Triton interpreter on ")
        assert all(m.value > 0 and m.state["timer"] == "wall" for m in item.measurements)


def test_wrong_results_are_vetoed(tmp_path, suite):
    text = (suite / "double.py").read_text()
    (suite / "double.py").write_text(text.replace("2 * tl.load", "BLOCK // 32 * tl.load"))
    out = tmp_path / "r.jsonl"
    run = command("--interpreter", "--suite", suite, "--minutes", 3, "--out", out)
    assert run.returncode == 0, run.stderr
    for item in read_record(out):
        for candidate, measurement in zip(item.candidates, item.measurements, strict=True):
            right = candidate.config["BLOCK"] == 64
            assert measurement.status is (Status.OK if right else Status.WRONG_RESULT)


LIBRARY = """
import triton
import triton.language as tl

@triton.autotune(
    configs=[triton.Config({"BLOCK": b}, num_warps=w) for b in (64, 256) for w in (1, 2)],
    key=["flag"],
    reset_to_zero=["y"],
    prune_configs_by={
        "early_config_prune": lambda configs, args, **kw: configs[1:],
        "perf_model": lambda **kw: 1.0,
        "top_k": 1,
    },
)
@triton.heuristics({"TWICE": lambda args: 2 * args["BLOCK"]})
@triton.jit
def add_twice(x, y, n, flag, BLOCK: tl.constexpr, TWICE: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(y + at, TWICE // BLOCK * tl.load(x + at, at < n), at < n)

@triton.autotune(configs=[triton.Config({"BLOCK": b}) for b in (64, 128)], key=["n"])
@triton.jit
def refuses(y, n, BLOCK: tl.constexpr):
    tl.static_assert(BLOCK < 128)
    tl.store(y + tl.arange(0, BLOCK), 1.0)

def block(given):
    given["x"].block_shape = [given["BLOCK"]]

@triton.autotune(configs=[triton.Config({"BLOCK": b}, pre_hook=block) for b in (64, 128)], key=[])
@triton.jit
def described(x, BLOCK: tl.constexpr):
    x.store([0], x.load([0]) + 1)
"""
PROGRAM = """
import sys
import torch
import triton
import triton.language as tl
from library import add_twice, described, refuses
from triton.tools.tensor_descriptor import TensorDescriptor

if __name__ == "__main__":

    @triton.autotune(configs=[triton.Config({"BLOCK": b}) for b in (64, 128)], key=[])
    @triton.jit
    def below_main(y, BLOCK: tl.constexpr):
        tl.store(y + tl.arange(0, BLOCK), 1.0)

for n in map(int, sys.argv[2:]):
    x, y = torch.ones(n, device=sys.argv[1]), torch.zeros(n, device=sys.argv[1])
    add_twice[lambda meta: (-(-n // meta["BLOCK"]),)](x, y, n, 0)
    assert sys.argv[1] == "meta" or torch.equal(y, 2 * x)
    if sys.argv[1] == "meta":
        refuses[(1,)](y, n)
        below_main[(1,)](y)
        described[(1,)](TensorDescriptor.from_tensor(x, [1]))
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "library.py").write_text(LIBRARY)
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "program.py"


def test_a_programs_autotuned_kernels_are_recorded_in_full(tmp_path, program):
    out = tmp_path / "r.jsonl"
    arguments = ["--program", program, "--argument", "cpu", "--argument", 100, "--argument", 300]
    run = command(*arguments, "--interpreter", "--out", out)
    assert run.returncode == 0, run.stderr
    # sizes are no part of the autotuner's key, yet each is a problem of its own
    found = {item.task.problem["n"]: item for item in read_record(out)}
    assert {n: len(item) for n, item in found.items()} == {100: 3, 300: 3}
    assert {c.config["BLOCK"] for c in found[100].candidates} == {64, 256}
    never = "3 autotuned kernels were never called: below_main, described, refuses"
    assert never in " ".join(run.stderr.split())
    again = command(*arguments, "--interpreter", "--out", out)
    assert again.returncode == 0, again.stderr
    assert "6 points in all" in again.stderr


def test_a_programs_kernels_are_compiled_for_a_device_that_is_not_here(tmp_path, program):
    out = tmp_path / "r.jsonl"
    arguments = ["--program", program, "--argument", "meta", "--argument", 1600]
    run = command(*arguments, "--compile-only", "--target", "sm_90", "--workers", 1, "--out", out)
    assert run.returncode == 0, run.stderr
    found = {item.task.kernel: item for item in read_record(out)}
    counts = {name: len(item) for name, item in found.items()}
    assert counts == {"add_twice": 3, "refuses": 2, "below_main": 2, "described": 2}
    for name in set(found) - {"refuses"}:
        for measurement in found[name].measurements:
            assert measurement.ok
            assert measurement.facts["registers"] > 0
    assert found["add_twice"].task.metric == "compile_s"
    assert found["add_twice"].task.device.name == "sm_90"
    seen = found["refuses"].observations
    statuses = {o.candidate.config["BLOCK"]: o.measurement.status for o in seen}
    assert statuses == {64: Status.OK, 128: Status.COMPILE_ERROR}


def test_a_programs_recording_ends_in_mid_problem(tmp_path, program, monkeypatch):
    from autotune_rlm.record import program as module

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module._Recording, "_over", lambda self: self.progress.points >= 2)
    with RecordLog(tmp_path / "r.jsonl") as log:
        done = module.record_program(
            program,
            ["meta", "1600"],
            log=log,
            make_task=_make_task,
            device=H100,
            target=parse_target("sm_90"),
            workers=1,
            cache_dir=str(tmp_path / "cache"),
        )
    assert done.points == log.rows == 2
    assert {name.split("/")[0] for name, _ in log.done} == {"add_twice"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.csv"], "must end in .jsonl"),
        (["--out", "x.jsonl", "--target", "sm_90"], "needs --compile-only"),
        (["--out", "x.jsonl", "--compile-only", "--interpreter"], "does not go with"),
        (["--out", "x.jsonl", "--compile-only", "--program", __file__], "needs one --target"),
        (["--out", "x.jsonl", "--compile-only", "--target", "sm_ninety"], "target must look like"),
        (["--out", "x.jsonl", "--compile-only", "--target", "sm_9000"], "cannot compile for it"),
        (["--out", "x.jsonl", "--suite", "nowhere", "--interpreter"], "must be 'all' or a folder"),
        (["--out", "x.jsonl", "--kernel", "nothing", "--interpreter"], "no kernel"),
    ],
)
def test_bad_options_end_with_a_clear_error(tmp_path, monkeypatch, arguments, message):
    from typer.testing import CliRunner

    from autotune_rlm.cli.record import app

    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert message in " ".join((result.output + result.stderr).split())
    assert dict(os.environ) == before
