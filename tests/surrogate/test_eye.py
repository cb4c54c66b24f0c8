"""The compiler's eye: trees as arrays, programs behind landscapes, kernels that were never seen."""

import dataclasses
import textwrap
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from autotune_rlm import Candidate, Measurement, Task
from autotune_rlm.devices import lookup
from autotune_rlm.landscapes import Landscape, write_landscapes
from autotune_rlm.landscapes.winners import read_winners, sample, space_of
from autotune_rlm.surrogate import load_surrogate
from autotune_rlm.surrogate.eye import COLUMNS, Eye, columns, expected, has_facts
from autotune_rlm.surrogate.known import kind_of
from autotune_rlm.surrogate.programs import load_programs
from autotune_rlm.surrogate.trees import Trees

triton = pytest.importorskip("triton")

PROGRAMS = """
import triton
import triton.language as tl

@triton.jit
def attend(q_ptr, k_ptr, v_ptr, o_ptr, n, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    base = tl.program_id(1).to(tl.int64) * n * D
    d = tl.arange(0, D)
    q = tl.load(q_ptr + base + rows[:, None] * D + d[None, :])
    most = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D], tl.float32)
    for start in range(0, n, BLOCK_N):
        cols = start + tl.arange(0, BLOCK_N)
        s = tl.dot(q, tl.load(k_ptr + base + cols[None, :] * D + d[:, None]))
        now = tl.maximum(most, tl.max(s, 1))
        p = tl.exp2(s - now[:, None])
        less = tl.exp2(most - now)
        total = total * less + tl.sum(p, 1)
        v = tl.load(v_ptr + base + cols[:, None] * D + d[None, :])
        acc = tl.dot(p.to(tl.float16), v, acc * less[:, None])
        most = now
    tl.store(o_ptr + base + rows[:, None] * D + d[None, :], (acc / total[:, None]).to(tl.float16))

def attention(problem, config):
    pointers = {name: "*fp16" for name in ("q_ptr", "k_ptr", "v_ptr", "o_ptr")}
    tiles = {name: config[name] for name in ("BLOCK_M", "BLOCK_N")}
    return {
        "kernel": attend,
        "arguments": {**pointers, "n": problem["n"], "D": problem["d"], **tiles},
        "grid": (problem["n"] // config["BLOCK_M"], problem["heads"]),
    }

PROGRAMS = {"attention": attention}
"""
VALIDATION = Path(__file__).parents[2] / "recipes" / "weights" / "nano-validation"
TASK = Task(
    kernel="attention", device=lookup("NVIDIA A100"), problem={"n": 4096, "d": 128, "heads": 64}
)
SPILLS = {"BLOCK_M": 128, "BLOCK_N": 128, "numwarps": 4, "numstages": 3}
GOOD = {"BLOCK_M": 64, "BLOCK_N": 64, "numwarps": 4, "numstages": 3}
REPEATS = {"BLOCK_M": 32, "BLOCK_N": 32, "numwarps": 8, "numstages": 2}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    file = tmp_path_factory.mktemp("programs") / "attention_programs.py"
    file.write_text(PROGRAMS)
    return file


@pytest.fixture(scope="module")
def candidates(programs):
    plain = [Candidate(c) for c in (SPILLS, GOOD, REPEATS)]
    return load_programs(programs).candidates(TASK, plain)


def test_arrays_say_what_xgboost_says():
    xgboost = pytest.importorskip("xgboost")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    y = np.nan_to_num(x[:, 0]) * np.nan_to_num(x[:, 1])
    settings = {"max_depth": 5, "nthread": 1, "subsample": 0.8}
    boosters = [
        xgboost.train({**settings, "seed": s}, xgboost.DMatrix(x, label=y), 15) for s in range(2)
    ]
    expected = np.mean([b.predict(xgboost.DMatrix(x)) for b in boosters], axis=0)
    trees = Trees.from_arrays(Trees.from_xgboost(boosters).arrays())
    assert np.allclose(trees.predict(x), expected, atol=1e-5)
    assert len(trees.predict(x[:0])) == 0


def test_a_probability_is_read_as_its_odds():
    xgboost = pytest.importorskip("xgboost")
    x = np.arange(40, dtype=np.float32)[:, None]
    settings = {"objective": "binary:logistic", "base_score": 0.3, "max_depth": 2}
    booster = xgboost.train(settings, xgboost.DMatrix(x, label=x[:, 0] > 20), 5)
    odds = booster.predict(xgboost.DMatrix(x), output_margin=True)
    assert np.allclose(Trees.from_xgboost([booster]).predict(x), odds, atol=1e-5)


def test_damaged_trees_are_refused():
    trees = load_surrogate("nano").eye.slowdown
    arrays = trees.arrays()
    with pytest.raises(ValueError, match="outside"):
        Trees.from_arrays({**arrays, "left": np.where(trees.column >= 0, 10**8, 0)})


def test_warps_and_stages_have_any_of_their_names(candidates):
    assert [c.facts["warps"] for c in candidates] == [4.0, 4.0, 8.0]
    assert [c.facts["stages"] for c in candidates] == [3.0, 3.0, 2.0]
    assert all(c.facts["chained"] for c in candidates)
    assert candidates[2].facts["warp_redundancy"] == 2.0


def test_a_kernel_never_seen_is_ordered_by_its_facts(candidates):
    surrogate = load_surrogate(VALIDATION)
    prediction = surrogate.predict(TASK, candidates)
    assert not prediction.familiar
    assert prediction.informed
    assert prediction.unfamiliar
    assert prediction.order()[0] == 1
    assert (prediction.median >= [c.facts["floor_ms"] for c in candidates]).all()
    without = [dataclasses.replace(c, facts={}) for c in candidates]
    assert not surrogate.predict(TASK, without).informed


def test_facts_that_were_estimated_are_forgotten_for_those_that_are_read(candidates):
    surrogate, task = load_surrogate(VALIDATION), TASK
    turned = [
        dataclasses.replace(c, facts=other.facts)
        for c, other in zip(candidates, reversed(candidates), strict=True)
    ]
    first = surrogate.predict(task, turned).median
    assert not np.allclose(surrogate.predict(task, candidates).median, first)
    assert np.array_equal(surrogate.predict(task, turned).median, first)


def test_what_is_measured_counts_more_than_facts(candidates):
    surrogate = load_surrogate(VALIDATION)
    from autotune_rlm.types import Observation

    slow = Measurement(status="ok", value=100.0)
    fast = Measurement(status="ok", value=1.0)
    observed = [Observation(candidates[1], slow), Observation(candidates[0], fast)]
    assert surrogate.predict(TASK, candidates, observed=observed).order()[0] == 0


def test_columns_have_no_units(candidates):
    x = columns(candidates)
    assert x.shape == (3, len(COLUMNS))
    over = [i for i, name in enumerate(COLUMNS) if name.endswith("over least")]
    assert np.allclose(x[:, over].min(0), 0)
    assert has_facts(candidates)
    assert not has_facts([Candidate(GOOD)])
    assert kind_of(candidates) == "chained products with exchange"


def test_bench_reads_programs(programs, candidates, tmp_path):
    from autotune_rlm.cli import app

    values = [3.0, 1.0, 2.0]
    measured = [Measurement(status="ok", value=v) for v in values]
    plain = tuple(Candidate(c) for c in (SPILLS, GOOD, REPEATS))
    file = tmp_path / "attention.csv"
    write_landscapes(file, [Landscape(TASK, plain, tuple(measured))])
    command = ["bench", "kernels", str(file), "--programs", str(programs), "--jobs", "1"]
    command += ["--method", "rlm", "--method", "trees", "--budget", "1", "--budget", "2"]
    out = tmp_path / "out.json"
    result = CliRunner().invoke(app, [*command, "--json", str(out)])
    assert result.exit_code == 0, result.output
    import json

    runs = json.loads(out.read_text())["runs"]
    assert {r["method"]: r["regret"]["1"] for r in runs}["rlm"] == 0.0


@pytest.mark.parametrize(
    ("text", "said"), [("X = 1", "must define PROGRAMS"), ("1 / 0", "ZeroDivisionError")]
)
def test_a_bad_file_of_programs_is_told(tmp_path, text, said):
    file = tmp_path / "programs.py"
    file.write_text(textwrap.dedent(text))
    with pytest.raises(ValueError, match=said):
        load_programs(file)


WRAPPED = """
import triton
import triton.language as tl

@triton.autotune(configs=[triton.Config({"BLOCK": 64})], key=["n"])
@triton.heuristics({"EVEN": lambda a: a["n"] % a["BLOCK"] == 0})
@triton.jit
def copy(x, rows, out, n, EVEN: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = rows.load([tl.program_id(0) * 16, 0])
    tl.store(out + at, tl.load(x + at, mask=at < n) + tl.sum(value))

def program(problem, config):
    rows = {"dtype": "fp32", "shape": (4096, 32), "block": (16, 32)}
    arguments = {"x": "*fp32", "rows": rows, "out": "*fp32", "n": problem["n"], "BLOCK": config["B"]}
    ARGUMENTS
    return {"kernel": copy, "arguments": arguments, "grid": GRID}

PROGRAMS = {"copy": program}
"""


def wrapped(tmp_path, grid, arguments=""):
    file = tmp_path / "wrapped.py"
    file.write_text(WRAPPED.replace("GRID", grid).replace("ARGUMENTS", arguments))
    task = Task(kernel="copy", device=lookup("NVIDIA H100"), problem={"n": 4096})
    return load_programs(file), task


@pytest.mark.parametrize("grid", ["4096 // config['B']", "lambda a: (a['n'] // a['BLOCK'],)"])
def test_decorated_kernels_heuristics_descriptors_and_grids_as_triton_takes_them(tmp_path, grid):
    programs, task = wrapped(tmp_path, grid)
    config = {"B": 64, "numwarps": 2, "nobody_reads_this": 7}
    (found,) = programs.candidates(task, [Candidate(config)])
    assert found.facts["programs"] == 64
    assert found.facts["warps"] == 2


@pytest.mark.parametrize(
    ("grid", "arguments", "said"),
    [
        ("(1,)", "del arguments['x']", "no value for the argument.s. x of copy"),
        ("(1,)", "problem['other']", "fails for problem.*KeyError"),
        ("(0,)", "", "grid"),
        ("(1,)", "return 7", "must return a mapping"),
        ("(1,)", "return {'kernel': 7, 'arguments': {}, 'grid': 1}", "no @triton.jit function"),
    ],
)
def test_a_mistake_of_a_program_is_told(tmp_path, grid, arguments, said):
    programs, task = wrapped(tmp_path, grid, arguments)
    with pytest.raises(ValueError, match=said):
        programs.candidates(task, [Candidate({"B": 64})])


def test_a_configuration_that_cannot_be_compiled_is_told_once(tmp_path, caplog):
    programs, task = wrapped(tmp_path, "(1,)")
    found = programs.candidates(task, [Candidate({"B": b}) for b in (60, 64, 61)])
    assert [c.facts.get("refused") for c in found] == [1.0, None, 1.0]
    assert sum("arange" in r.message or "power" in r.message for r in caplog.records) == 1


def test_the_trees_say_less_of_kinds_that_were_never_timed(candidates):
    eye = load_surrogate(VALIDATION).eye
    x, time = columns(candidates), expected(candidates)
    product, _ = eye.times(x, time, "product", "NVIDIA A100")
    other, _ = eye.times(x, time, "chained products with exchange", "NVIDIA A100")
    assert np.abs(other - time).max() < np.abs(product - time).max()


def test_the_scale_is_that_of_the_kind_on_the_device(candidates):
    eye = dataclasses.replace(
        load_surrogate(VALIDATION).eye,
        scales={
            "product on NVIDIA A100": -0.5,
            "product on NVIDIA T4": 0.1,
            "product on NVIDIA H100": 0.7,
            "element-wise on NVIDIA H100": 0.2,
        },
    )
    x, time = columns(candidates), expected(candidates)
    best = {
        (kind, device): eye.times(x, time, kind, device)[1]
        for kind in ("product", "exchange", "element-wise")
        for device in ("NVIDIA A100", "NVIDIA H100", "another")
    }
    a100 = best["product", "NVIDIA A100"]
    assert best["product", "NVIDIA H100"] - a100 == pytest.approx(1.2)
    assert best["product", "another"] - a100 == pytest.approx(0.6)  # the median of the devices
    for kind in ("exchange", "element-wise"):  # not timed, or on one device alone
        assert len({best[kind, device] for _, device in best}) == 1


def test_names_of_parameters_do_not_make_a_kernel_familiar(candidates):
    """A kernel with a product's parameters that the facts say is far smaller was not in the training."""
    surrogate = load_surrogate("nano")
    sizes = {"M": 4096, "N": 4096, "K": 4096}
    task = Task(kernel="matmul_kernel", device=lookup("NVIDIA H100"), problem=sizes)
    configs = [
        {"BLOCK_M": m, "BLOCK_N": 64, "BLOCK_K": 32, "GROUP_M": 8, "num_warps": 4, "num_stages": 3}
        for m in (32, 64, 128)
    ]
    numbers = {**candidates[1].facts, "chained": 0.0, "exchanges": 0.0}
    time = float(surrogate.predict(task, [Candidate(c) for c in configs]).median.min())
    for factor, is_familiar in ((1.0, True), (0.02, False)):
        facts = {**numbers, "expected_ms": factor * time}
        told = load_surrogate("nano").predict(task, [Candidate(c, facts=facts) for c in configs])
        assert told.familiar == is_familiar
        assert told.informed != is_familiar
        assert any("another time" in reason for reason in told.unfamiliar) != is_familiar


def test_programs_of_several_files_stand_together(programs, tmp_path):
    more = tmp_path / "more.py"
    more.write_text("PROGRAMS = {'other': dict}")
    known = load_programs(programs, more)
    assert "attention" in known
    assert "other" in known


def test_intervals_are_wider_on_a_device_that_was_not_timed(candidates):
    eye = load_surrogate(VALIDATION).eye
    products = [
        dataclasses.replace(c, facts={**c.facts, "chained": 0.0, "exchanges": 0.0})
        for c in candidates
    ]
    seen = [eye.look(products, device) for device in ("NVIDIA A100", "NVIDIA L4")]
    assert seen[0].scale_spread < seen[1].scale_spread
    assert np.array_equal(seen[0].slowdown, seen[1].slowdown)


def test_an_eye_is_read_as_it_was_written(tmp_path):
    eye = load_surrogate(VALIDATION).eye
    eye.save(tmp_path)
    again = Eye.load(tmp_path)
    assert (again.spreads, again.scales, again.kinds) == (eye.spreads, eye.scales, eye.kinds)
    assert np.array_equal(again.slowdown.value, eye.slowdown.value)


def test_winners_stand_in_their_space(tmp_path):
    config = {
        "BLOCK_SIZE_M": 64, "BLOCK_SIZE_N": 128, "BLOCK_SIZE_K": 128,
        "GROUP_SIZE_M": 16, "num_warps": 4, "num_stages": 3,
    }  # fmt: skip
    file = tmp_path / "winners.csv"
    problem = '{""M"":64,""N"":512,""K"":512}'
    row = str(config).replace("'", '""')
    head = "kernel,device,problem,config"
    file.write_text(f'{head}\nw8a8_block_fp8_matmul,NVIDIA H200,"{problem}","{row}"\n')
    (winner,) = read_winners(file)
    assert len(winner.space()) == len(space_of(winner.task.kernel)) == 1280
    near = {s: winner.nearness(Candidate({**config, "num_stages": s})) for s in (3, 4)}
    assert near == {3: 1.0, 4: 0.5}
    assert winner.nearness(Candidate({**config, "BLOCK_SIZE_M": 32})) == 0.0
    found = sample(winner, 40, np.random.default_rng(0))
    assert found[0] == (winner.candidate, 1.0)
    assert len({c.key for c, _ in found}) == len(found)
    file.write_text("kernel,device\n")
    with pytest.raises(ValueError, match="config"):
        read_winners(file)
