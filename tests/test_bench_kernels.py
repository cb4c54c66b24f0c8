import csv
import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from autotune_rlm.bench import (
    METHODS,
    Run,
    Search,
    Stepwise,
    pick_landscapes,
    reach_table,
    run_search,
    seconds_to_reach,
)
from autotune_rlm.cli import app
from autotune_rlm.landscapes import read_landscapes
from autotune_rlm.types import Prediction

HEADER = "landscape,kernel,language,device,problem,config,status,time_ms,compile_s"
BASELINES = ["random", "xgboost", "random-forest", "gp", "tpe"]


def write(path, landscapes):
    """Each landscape: (id, kernel, device, problem, [(config, time_ms or None, compile_s)])."""
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(HEADER.split(","))
        for name, kernel, device, problem, configs in landscapes:
            for config, time_ms, compile_s in configs:
                status = "failed" if time_ms is None else "ok"
                cells = json.dumps(problem), json.dumps(config), status, time_ms, compile_s
                rows.writerow([name, kernel, "triton", device, *cells])
    return path


def bowl(optimum=64, *, compile_s=None, shift=0):
    """A smooth space of 96 configurations with a valley at BLOCK = ``optimum``; large ones fail."""
    rows = []
    for block in (16, 32, 64, 128, 256, 512):
        for warps in (1, 2, 4, 8):
            for mode in ("a", "b"):
                for flag in (0, 1):
                    far = abs(math.log2(block / optimum)) + 0.5 * abs(math.log2(warps / 4))
                    time = 1.0 + far + 0.2 * flag + shift + 0.01 * (mode == "b")
                    rows.append(
                        ({"BLK": block, "w": warps, "mode": mode, "f": flag}, time, compile_s)
                    )
                    if block == 512 and warps < 4:
                        rows[-1] = (rows[-1][0], None, compile_s)
    return rows


@pytest.fixture
def file(tmp_path):
    return write(
        tmp_path / "made_up.csv",
        [
            (
                "space/one",
                "weird_kernel",
                "NVIDIA Unheard-of 9",
                {"size": [3, 5]},
                bowl(compile_s=0.5),
            ),
            ("space/two", "weird_kernel", "NVIDIA A100", {"size": [3, 7]}, bowl(128)),
        ],
    )


def bench(*args):
    return CliRunner().invoke(app, ["bench", "kernels", *map(str, args)])


def methods(*names):
    return [word for name in names for word in ("--method", name)]


def test_results_file_and_its_regret(file, tmp_path):
    out = tmp_path / "out.json"
    budgets = [word for n in (1, 4, 96, 500) for word in ("--budget", n)]
    result = bench(file, *methods("random"), *budgets, "--seeds", 2, "--json", out, "--jobs", 1)
    assert result.exit_code == 0, result.output
    data = json.loads(out.read_text())
    assert len(data["runs"]) == 4
    for row in data["runs"]:
        assert {
            "landscape",
            "kernel",
            "device",
            "method",
            "seed",
            "n_configs",
            "n_ok",
        } <= row.keys()
        assert (row["n_configs"], row["n_ok"], row["spearman"]) == (96, 88, None)
        assert list(row["regret"]) == ["1", "4", "96", "500"]
        assert row["regret"]["96"] == row["regret"]["500"] == 0.0
        assert row["surrogate_s"] >= 0
    known = [r["regret"]["4"] for r in data["runs"]]
    summary = {r["budget"]: r for r in data["summary"]}
    if None not in known:
        assert summary[4]["mean_regret"] == pytest.approx(np.mean(known))
        assert summary[4]["median_regret"] == pytest.approx(np.median(known))
        assert summary[4]["p90_regret"] == pytest.approx(np.quantile(known, 0.9))


def test_nothing_worked_counts_as_the_slowest_working_configuration(tmp_path):
    rows = [({"x": i}, None, None) for i in range(30)] + [
        ({"x": 40}, 1.0, None),
        ({"x": 50}, 4.0, None),
    ]
    file = write(tmp_path / "f.csv", [("only", "k", "d", {}, rows)])
    out = tmp_path / "out.json"
    assert bench(file, *methods("random"), "--budget", 1, "--json", out, "--jobs", 1).exit_code == 0
    data = json.loads(out.read_text())
    assert data["runs"][0]["regret"]["1"] is None
    assert data["summary"][0]["mean_regret"] == pytest.approx(3.0)


@pytest.mark.parametrize("method", ["xgboost", "random-forest", "gp"])
def test_model_based_baselines_learn_what_fails(tmp_path, method):
    rng = np.random.default_rng(0)
    rows = [
        ({"x": x, "y": y}, None if x > 4 else 1 + abs(y - 7) + 0.1 * rng.random(), None)
        for x in range(10)
        for y in range(10)
    ]
    space = write(tmp_path / "half.csv", [("half", "k", "NVIDIA A100", {"n": 1}, rows)])
    (landscape,) = read_landscapes(space)
    search = Search(task=landscape.task, candidates=landscape.candidates, seed=0)
    choosing, measured = METHODS[method](search), {}
    while len(measured) < 24:
        for i in choosing.suggest(measured, 1):
            measured[i] = landscape.measurements[i]
    failed = [m.value is None for m in measured.values()]
    assert any(failed[:8])
    assert sum(failed[8:]) <= 4


@pytest.mark.parametrize("method", BASELINES)
def test_every_baseline_finds_the_valley_and_beats_luck(file, method):
    landscape = read_landscapes(file)[0]
    runs = [run_search(landscape, method, budgets=[8, 24], seed=s) for s in range(2)]
    for run in runs:
        assert run.regret[8] is None or run.regret[8] >= run.regret[24] >= 0
        assert run.spearman is None
    if method != "random":
        assert np.mean([r.regret[24] for r in runs]) <= 0.25


@pytest.mark.parametrize("method", BASELINES)
def test_deterministic_for_a_seed(file, method):
    landscape = read_landscapes(file)[1]
    first, again = (run_search(landscape, method, budgets=[1, 6, 12], seed=5).regret for _ in "ab")
    assert first == again


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize(
    "rows",
    [
        [({"x": 1}, 2.0, None)],
        [({"x": i}, None, None) for i in range(12)],
        [({}, 1.0 + i, None) for i in range(3)],
        [({"x": i, "s": None if i % 2 else "t"}, 1.0, None) for i in range(12)],
    ],
    ids=["one row", "all fail", "no parameters", "constant and null"],
)
def test_odd_landscapes(tmp_path, method, rows):
    landscape = read_landscapes(write(tmp_path / "f.csv", [("odd", "k", "d", {}, rows)]))[0]
    run = run_search(landscape, method, budgets=[1, 9, 64], seed=0)
    if landscape.ok.any():
        assert run.regret[64] == 0.0
    else:
        assert set(run.regret.values()) == {None}
        assert run.worst_regret is None


def test_all_failing_landscapes_leave_the_summary_to_the_others(tmp_path):
    file = write(
        tmp_path / "f.csv",
        [
            ("bad", "k", "d", {}, [({"x": i}, None, None) for i in range(5)]),
            ("good", "k", "d", {}, [({"x": 1}, 2.0, None)]),
        ],
    )
    out = tmp_path / "out.json"
    assert (
        bench(file, *methods("random", "tpe"), "--budget", 2, "--json", out, "--jobs", 1).exit_code
        == 0
    )
    data = json.loads(out.read_text())
    assert len(data["runs"]) == 4
    assert [row["mean_regret"] for row in data["summary"]] == [0.0, 0.0]


class Flat:
    """A surrogate that predicts one value for all."""

    def predict(self, task, candidates, *, observed=()):
        one = np.ones(len(candidates))
        return Prediction(
            metric=task.metric, median=one, low=one, high=one, spread=one, p_valid=one
        )


class TestNoPeeking:
    def test_methods_see_neither_values_nor_the_recorded_order(self, file, monkeypatch):
        seen = []

        class Spy(Stepwise):
            def suggest(self, measured, n):
                seen.append(([c.key for c in self.search.candidates], dict(measured)))
                return self.search.unmeasured(measured)[:n].tolist()

        monkeypatch.setitem(METHODS, "spy", Spy)
        landscape = read_landscapes(file)[0]
        recorded = [c.key for c in landscape.candidates]
        for seed in (0, 1):
            run_search(landscape, "spy", budgets=[3], seed=seed)
        (first, nothing), (_, one), _, (second, _), *_ = seen
        assert nothing == {}
        assert list(one) == [0]
        assert sorted(first) == sorted(second) == sorted(recorded)
        assert first != recorded
        assert first != second

    def test_nearest_is_not_told_the_landscape_itself(self, tmp_path):
        rows = bowl()
        file = write(tmp_path / "f.csv", [("space", "k", "NVIDIA A100", {"n": 8}, rows)])
        result = bench(file, *methods("nearest"), "--train", file, "--jobs", 1)
        assert result.exit_code == 0
        assert "no training landscape" in result.output

    def test_the_search_is_not_told_the_landscape_itself(self, file):
        (landscape, *_) = read_landscapes(file)
        alone, told = (
            run_search(landscape, "rlm", budgets=[4], seed=0, train=train, load_surrogate=Flat)
            for train in ([], [landscape])
        )
        assert told.regret == alone.regret


class TestKnowingMethods:
    def test_nearest_starts_with_the_best_of_the_nearest_problem(self, tmp_path):
        train = [
            ("near", "k", "NVIDIA A100", {"n": 1024}, bowl(64)),
            ("far", "k", "NVIDIA A100", {"n": 16}, bowl(16)),
            ("other", "another", "NVIDIA A100", {"n": 1000}, bowl(256)),
        ]
        known = read_landscapes(write(tmp_path / "train.csv", train))
        file = write(
            tmp_path / "f.csv", [("new", "k", "NVIDIA A100", {"n": 1000}, bowl(64, shift=3))]
        )
        run = run_search(read_landscapes(file)[0], "nearest", budgets=[1], seed=0, train=known)
        assert run.regret[1] == 0.0

    def test_analytical_ranks_a_matmul_and_refuses_other_kernels(self, tmp_path, file):
        rows = []
        for m in (16, 64, 128):
            for n in (16, 64, 128):
                tiles = 4096 / m * 4096 / n
                time = tiles * (m + n) / 1e4
                rows.append(
                    ({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": 32, "num_warps": 4}, time, None)
                )
        problem = {"M": 4096, "N": 4096, "K": 4096, "dtype": "fp16"}
        matmul = write(tmp_path / "m.csv", [("mm", "mm", "NVIDIA A100", problem, rows)])
        out = tmp_path / "out.json"
        result = bench(
            matmul, file, *methods("analytical"), "--budget", 2, "--json", out, "--jobs", 1
        )
        assert result.exit_code == 0, result.output
        data = json.loads(out.read_text())
        assert [row["landscape"] for row in data["runs"]] == ["mm"]
        assert data["runs"][0]["spearman"] > 0.7
        assert {row["landscape"] for row in data["skipped"]} == {"space/one", "space/two"}
        assert "not a matmul" in data["skipped"][0]["reason"]

    def test_nearest_without_training_data_is_refused_before_work(self, file):
        result = bench(file, *methods("nearest"))
        assert result.exit_code == 2
        assert "--train" in result.output


class TestTime:
    def test_clock_is_compilation_runs_and_surrogate(self, file):
        landscape = read_landscapes(file)[0]
        run = run_search(landscape, "random", budgets=[96], seed=0)
        runs_s = 32e-3 * np.nansum(landscape.values)
        assert run.seconds[-1] == pytest.approx(96 * 0.5 + runs_s + run.surrogate_s, rel=1e-6)
        assert np.all(np.diff(run.seconds) > 0)
        assert run.best[-1] == 0.0

    def test_section_and_plots_cover_what_recorded_it(self, file, tmp_path):
        out, plot, time = tmp_path / "o.json", tmp_path / "p.png", tmp_path / "t.png"
        result = bench(
            file,
            *methods("random"),
            "--json",
            out,
            "--plot",
            plot,
            "--plot-time",
            time,
            "--jobs",
            1,
        )
        assert result.exit_code == 0, result.output
        data = json.loads(out.read_text())
        assert {r["landscape"] for r in data["time"]["runs"]} == {"space/one"}
        assert data["time"]["full_s"]["space/one"] > 48
        assert plot.read_bytes()[:4] == time.read_bytes()[:4] == b"\x89PNG"
        assert {row["method"] for row in data["time"]["reach"]} == {"random"}
        assert "full search" in result.output

    def test_a_search_that_does_not_come_near_counts_as_endless(self):
        def searched(best, seed):
            return Run(
                landscape="one",
                kernel="k",
                device="d",
                method="random",
                seed=seed,
                n_configs=9,
                n_ok=9,
                regret={3: best[-1]},
                worst_regret=3.0,
                spearman=None,
                surrogate_s=0.0,
                seconds=(1.0, 2.0, 4.0),
                best=best,
            )

        runs = [
            searched((None, 0.2, 0.03), 0),
            searched((0.08, 0.04, 0.04), 1),
            searched((0.5, 0.5, 0.5), 2),
        ]
        assert [seconds_to_reach(r, 0.05) for r in runs] == [4.0, 2.0, None]
        ten, five, one = reach_table(runs, ["random"], {"one": 40.0})
        assert (ten["median_s"], ten["times_faster"], ten["reached"], ten["runs"]) == (4, 10, 2, 3)
        assert (five["median_s"], five["reached"]) == (4.0, 2)
        assert (one["median_s"], one["times_faster"], one["reached"]) == (None, None, 0)


def test_processes_give_the_same_as_one(file, tmp_path):
    results = []
    for jobs in (1, 2):
        out = tmp_path / f"{jobs}.json"
        args = *methods("random", "tpe"), "--budget", 6, "--seeds", 2, "--json", out, "--jobs", jobs
        assert bench(file, *args).exit_code == 0
        rows = json.loads(out.read_text())["runs"]
        results.append([{k: v for k, v in row.items() if k != "surrogate_s"} for row in rows])
    assert results[0] == results[1]


def test_a_method_that_breaks_costs_its_rows_and_the_exit_code(file, tmp_path, monkeypatch):
    class Broken(Stepwise):
        def suggest(self, measured, n):
            raise RuntimeError("no idea")

    monkeypatch.setitem(METHODS, "broken", Broken)
    out = tmp_path / "out.json"
    result = bench(file, *methods("broken", "random"), "--json", out, "--jobs", 1)
    assert result.exit_code == 1
    data = json.loads(out.read_text())
    assert {row["method"] for row in data["runs"]} == {"random"}
    assert data["skipped"][0]["reason"] == "RuntimeError: no idea"


def test_a_subset_is_spread_over_files_and_devices(tmp_path):
    rows = [({"x": 1}, 1.0, None)]
    many = [(f"a{i}", "k", f"d{i % 2}", {"n": i}, rows) for i in range(40)]
    files = [
        write(tmp_path / "a.csv", many),
        write(tmp_path / "b.csv", [("b", "k", "d", {}, rows)]),
    ]
    picked = pick_landscapes(files, 5)
    assert [one.id for one in picked] == [one.id for one in pick_landscapes(files, 5)]
    assert len(picked) == 5
    assert "b" in {one.id for one in picked}
    devices = [one.task.device.name for one in picked if one.id != "b"]
    assert devices.count("d0") == devices.count("d1") == 2
    assert len(pick_landscapes(files, 1000)) == 41


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("--method", "magic"), "magic"),
        (("--budget", 0), "budget"),
        (("--json", "no/such/o.json"), "no/such"),
    ],
)
def test_bad_arguments_are_refused_before_work(file, args, word):
    result = bench(file, *methods("random"), *args)
    assert result.exit_code == 2
    assert word in result.output


class TestRlm:
    def test_the_surrogate_ranks_an_unheard_of_kernel_and_learns(self, file, tmp_path):
        out = tmp_path / "out.json"
        args = *methods("rlm", "rlm-zero-shot"), "--budget", 3, "--budget", 24
        result = bench(file, *args, "--json", out, "--jobs", 1)
        assert result.exit_code == 0, result.output
        data = json.loads(out.read_text())
        assert len(data["runs"]) == 4
        for row in data["runs"]:
            assert -1 <= row["spearman"] <= 1
            assert row["surrogate_s"] > 0
        learned = [r["regret"]["24"] for r in data["runs"] if r["method"] == "rlm"]
        assert np.mean(learned) <= 0.25

    def test_an_unknown_surrogate_is_refused_before_work(self, file):
        result = bench(file, *methods("rlm"), "--surrogate", "no-such-thing", "--jobs", 1)
        assert result.exit_code == 2
        assert "no-such-thing" in result.output
