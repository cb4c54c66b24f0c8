"""The report: sums, figures, the page, and the page in a real browser."""

import dataclasses
import html
import itertools
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from autotune_rlm.cli import app
from autotune_rlm.report import (
    read_rounds,
    render_html,
    summarize,
    write_json,
    write_png,
    write_tensorboard,
)
from autotune_rlm.report._curves import expected_best
from autotune_rlm.store import Store
from autotune_rlm.store.accuracy import PredictedVsMeasured, TuningEvent

ROUNDS = [
    {"accepted": True, "before": 0.7, "after": 0.8, "measurements": 99, "seconds": 9.0}
    | {"when": "2026-01-01T00:00:00+00:00", "version": 1},
    {"accepted": False, "before": 0.8, "after": 0.6, "measurements": 9, "seconds": 5.0}
    | {"when": "2026-01-02T00:00:00+00:00", "version": None},
]


def event(i=0, *, kernel="matmul", device="NVIDIA H100", values=(2.0, 1.0, None, 4.0), **fields):
    points = tuple(
        PredictedVsMeasured(
            config={"BLOCK": 16 << n},
            median=1.1 * (v or 3.0),
            low=0.9 * (v or 3.0),
            high=1.3 * (v or 3.0),
            p_valid=0.9,
            status="ok" if v is not None else "compile_error",
            value=v,
            reason="" if v is not None else "out of registers",
        )
        for n, v in enumerate(values)
    )
    base = TuningEvent(
        task_key=f"{i:016x}",
        kernel=kernel,
        device=device,
        problem={"M": 64, "x": {"dtype": "fp16", "shape": [4, 8]}},
        when=f"2026-01-{1 + i % 28:02d}T{i % 24:02d}:00:00+00:00",
        n_candidates=100,
        n_measured=len(values),
        n_failed={"compile_error": sum(v is None for v in values)},
        reasons={"out of registers": sum(v is None for v in values)},
        best_config={"BLOCK": 32},
        best_value=min((v for v in values if v is not None), default=None),
        first_choice_regret=0.02,
        spearman=0.9,
        kendall=0.8,
        coverage=0.75,
        model_s=0.1,
        compile_s=2.0,
        measure_s=1.0,
        total_s=3.1,
        saved_s=70.0,
        stop="budget",
        points=points,
    )
    return dataclasses.replace(base, **fields)


MANY = [
    event(i, kernel=("matmul", "softmax")[i % 2], device=("NVIDIA H100", "AMD MI300X")[i % 3 == 0])
    for i in range(40)
]


class TestVerdicts:
    """What the numbers mean for the reader."""

    @pytest.mark.parametrize(
        ("regret", "trust"),
        [(0.0, "trust"), (0.05, "trust"), (0.2, "check"), (3.0, "not yet"), (None, "unknown")],
    )
    def test_trust_follows_the_first_choice(self, regret, trust):
        (verdict,) = summarize([event(first_choice_regret=regret)]).verdicts
        assert verdict.trust == trust
        assert verdict.kernel == "matmul"

    def test_what_the_model_was_never_told_of_is_not_the_headline(self):
        runs = [event(1), event(2, familiar=True), event(3, device="CPU", familiar=False)]
        runs[2] = dataclasses.replace(runs[2], first_choice_regret=3.47, spearman=-1.0)
        report = summarize(runs)
        assert report.total.runs == 2
        assert report.total.regret == pytest.approx(0.02)
        assert report.apart.runs == 1
        assert report.regret.runs == 2
        assert "347" not in render_html(report).partition("tiles")[2].partition("<h2>")[0]
        (strange,) = [v for v in report.verdicts if v.device == "CPU"]
        assert strange.trust == "not yet"
        assert "never told" in strange.text

    def test_a_lucky_first_choice_on_the_unknown_is_not_trusted(self):
        (verdict,) = summarize([event(first_choice_regret=0.0, familiar=False)]).verdicts
        assert verdict.trust == "not yet"

    def test_alone_they_are_shown_and_said(self):
        report = summarize([event(familiar=False)])
        assert report.total.runs == report.apart.runs == 1
        assert "never told of these kernels or devices" in render_html(report)


class TestSums:
    def test_groups(self):
        report = summarize(
            [event(0), event(1, spearman=0.5), event(2, kernel="softmax", spearman=None)]
        )
        matmul, softmax = report.by_kernel
        assert (matmul.name, matmul.runs, matmul.measured, matmul.failed) == ("matmul", 2, 8, 2)
        assert matmul.spearman == pytest.approx(0.7)
        assert softmax.spearman is None
        assert report.total.compile_s == 6.0
        assert [g.name for g in report.over_time] == ["2026-01-01", "2026-01-02", "2026-01-03"]
        assert report.failures[0].reason == "out of registers"
        assert report.failures[0].count == 3
        assert report.stops == {"budget": 3}

    def test_many_days_become_months(self):
        days = [f"2026-{m:02d}-{d:02d}T00:00:00" for m in (1, 2, 3) for d in range(1, 25)]
        report = summarize([event(i, when=day) for i, day in enumerate(days)])
        assert [g.name for g in report.over_time] == ["2026-01", "2026-02", "2026-03"]

    def test_infinite_and_missing_scores_do_not_spread(self):
        report = summarize([event(0, first_choice_regret=math.inf), event(1)])
        assert report.total.regret == 0.02

    def test_rounds_are_read_line_by_line(self, tmp_path):
        text = "\n".join(map(json.dumps, ROUNDS)) + "\n{broken\n"
        (tmp_path / "rounds.jsonl").write_text(text)
        assert read_rounds(tmp_path) == ROUNDS
        assert read_rounds(tmp_path / "nowhere") == []


class TestRegret:
    def test_ours_is_in_the_order_of_measuring(self):
        curve = summarize([event(values=(2.0, 1.0, 4.0))]).regret
        assert curve.ours == (1.0, 0.0, 0.0)
        assert curve.random[0] == pytest.approx((1 + 0 + 3) / 3)
        assert curve.random[-1] == 0.0
        assert curve.full == 100

    def test_a_failure_counts_as_the_worst_that_worked(self):
        assert summarize([event(values=(None, 1.0, 3.0))]).regret.ours == (2.0, 0.0, 0.0)

    def test_larger_is_better(self):
        found = summarize([event(values=(1.0, 4.0), minimize=False)]).regret
        assert found.ours == (0.75, 0.0)

    def test_nothing_to_draw(self):
        assert summarize([event(values=(1.0,)), event(values=(None, None))]).regret is None

    @pytest.mark.parametrize("values", [(0.0, 1.0), (1e-300, 1e300), (-1.7e308, 1.7e308)])
    def test_a_best_that_is_next_to_nothing_does_not_drown_the_mean(self, values):
        assert summarize([event(values=values)]).regret is None
        both = summarize([event(values=values), event(values=(2.0, 1.0))]).regret
        assert (both.ours, both.runs) == ((1.0, 0.0), 1)

    @settings(max_examples=50)
    @given(st.lists(st.floats(0, 100), min_size=1, max_size=5))
    def test_expected_best_is_the_mean_over_all_orders(self, losses):
        orders = list(itertools.permutations(losses))
        means = np.mean([np.minimum.accumulate(order) for order in orders], axis=0)
        np.testing.assert_allclose(expected_best(np.array(losses)), means, atol=1e-9)


class _Page(HTMLParser):
    """Collects what a page would fetch and the identifiers in it."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.ids, self.used = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            value = value or ""
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                (self.used if value.startswith("#") else self.fetched).append(value)
            self.used += re.findall(r"url\((#[^)]+)\)", value)


@pytest.fixture(scope="module")
def full():
    return render_html(summarize(MANY, rounds=ROUNDS), source="/x/<store>")


class TestPage:
    def test_self_contained_small_and_whole(self, full):
        text = full
        page = _Page(text)
        assert page.fetched == ["data:,"]
        assert "http-equiv" not in text
        assert "@import" not in text
        assert "<script" not in text
        assert len(text.encode()) < 2_000_000
        assert len(page.ids) == len(set(page.ids))
        assert {u[1:] for u in page.used} <= set(page.ids)
        assert text.count("<svg") == 4 + 1 + 4 + 1
        assert "/x/&lt;store&gt;" in text
        for word in ("matmul", "AMD MI300X", "out of registers", "accepted", "rejected", "4x8"):
            assert word in text

    def test_thousands_of_runs_stay_under_two_megabytes(self):
        many = [
            dataclasses.replace(MANY[i % 40], kernel=f"k{i % 300}", spearman=math.sin(i))
            for i in range(9_000)
        ]
        text = render_html(summarize(many))
        assert len(text.encode()) < 2_000_000
        assert "1,000 of 9,000 runs" in text

    def test_hostile_names_are_text(self):
        bad = '<script>alert(1)</script>"&'
        kwargs = {"kernel": bad, "device": bad, "reasons": {bad: 1}, "stop": bad}
        text = render_html(summarize([event(i, **kwargs) for i in range(3)]))
        assert "<script" not in text
        assert _Page(text).fetched == ["data:,"]

    def test_empty_says_what_to_do(self):
        text = render_html(summarize([]))
        assert "No tuning run is recorded yet" in text
        assert "autotune-rlm demo" in text
        assert "<svg" not in text

    @pytest.mark.filterwarnings("error")
    def test_odd_events(self):
        odd = [
            {"when": ""},
            {"when": "yesterday"},
            {"points": ()},
            {"spearman": None, "coverage": None, "kendall": None, "first_choice_regret": None},
            {"best_value": None, "best_config": None, "values": (None, None)},
            {"values": (1.0, 1.0, 1.0)},
            {"values": (-1.0, 0.0, 2.0), "metric": "score"},
            {"values": (1e-300, 1e300)},
            {"values": (1e-29, 1e29)},
            {"values": (-1.7e308, 1.7e308)},
            {"n_candidates": 0, "n_measured": 0, "n_failed": {}, "reasons": {}},
            {"kernel": "$x$ \\frac", "problem": {}},
        ]
        events = [event(i, **{"kernel": f"k{i}"} | fields) for i, fields in enumerate(odd)]
        render_html(summarize(events, rounds=[{"accepted": True}]))
        lonely = {"when": "", "points": (), "n_candidates": 0, "n_measured": 0}
        render_html(summarize([event(**lonely)]))

    def test_json_and_png(self, tmp_path):
        report = summarize([*MANY, event(spearman=math.nan)], rounds=ROUNDS)
        data = json.loads(write_json(report, tmp_path / "r.json").read_text())
        assert data["total"]["runs"] == 41
        assert len(data["events"][0]["points"]) == 4
        assert data["regret"]["runs"] == 41
        files = write_png(report, tmp_path / "png")
        assert {"regret.png", "seconds.png", "predicted-1.png"} <= {f.name for f in files}
        assert all(f.read_bytes().startswith(b"\x89PNG") for f in files)


run = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"})


class TestCommand:
    @pytest.fixture
    def path(self, tmp_path):
        with Store(tmp_path / "s.sqlite") as store:
            for e in MANY:
                store.add_event(e)
        return tmp_path / "s.sqlite"

    def test_tables_fit_a_terminal(self, path):
        out = run.invoke(app, ["report", "--store", str(path)]).output
        assert max(map(len, out.splitlines())) <= 80
        for word in ("matmul", "softmax", "NVIDIA H100", "0.90", "2.0 %", "out of registers"):
            assert word in out

    def test_filters_and_files(self, path, tmp_path):
        args = ["--html", tmp_path / "r.html", "--json", tmp_path / "r.json", "--png", tmp_path]
        found = run.invoke(
            app, ["report", "--store", str(path), "--kernel", "softmax", *map(str, args)]
        )
        assert found.exit_code == 0, found.output
        assert json.loads((tmp_path / "r.json").read_text())["total"]["runs"] == 20
        assert "matmul" not in (tmp_path / "r.html").read_text()
        assert (tmp_path / "seconds.png").exists()

    def test_empty(self, tmp_path):
        found = run.invoke(app, ["report", "--store", str(tmp_path / "new.sqlite")])
        assert "autotune-rlm demo" in found.output


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
PROBE = """<script>
addEventListener("error", e => document.title = "ERROR " + e.message, true);
addEventListener("load", () => {
  const fetched = performance.getEntriesByType("resource").map(e => e.name).join(" ");
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const blank = [...document.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().height < 50);
  const small = [...document.querySelectorAll("svg text")].map(t => t.getBoundingClientRect().height);
  document.title = JSON.stringify({fetched, wide, blank: blank.length, text: Math.min(99, ...small)});
});
</script></head>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser(tmp_path, full):
    pages = {"full": full, "empty": render_html(summarize([]))}
    # A window has a least width, so the pages are put into frames as wide as a phone, ...
    shown = [(name, width) for name in pages for width in (360, 820, 1440)]
    for name, text in pages.items():
        (tmp_path / f"{name}.html").write_text(text.replace("</head>", PROBE))
    frames = "".join(
        f'<iframe src="{name}.html" style="width:{width}px;height:900px;border:0"></iframe>'
        for name, width in shown
    )
    # ... and what they found replaces the page, this script with it.
    titles = "[...document.querySelectorAll('iframe')].map(f => f.contentDocument.title)"
    tell = f"document.body.textContent = 'FOUND' + JSON.stringify({titles})"
    script = f"onload = () => setTimeout(() => {tell}, 500)"
    (tmp_path / "all.html").write_text(f"<body>{frames}<script>{script}</script></body>")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    options = ["--enable-logging=stderr", "--allow-file-access-from-files", "--v=0"]
    options += ["--virtual-time-budget=8000", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--no-first-run", "--disable-dev-shm-usage"]
    done = subprocess.run(
        [*command, *options, f"file://{tmp_path / 'all.html'}"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    found = re.search("<body>FOUND(.*)</body>", done.stdout)
    assert found, f"{done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}"
    for (name, width), title in zip(shown, json.loads(html.unescape(found[1])), strict=True):
        assert title.startswith("{"), (name, width, title)
        seen = json.loads(title)
        assert seen["fetched"] == "", (name, width)
        assert seen["wide"] <= 0, f"{name} must not scroll sideways at {width}"
        assert seen["blank"] == 0, (name, width)
        assert seen["text"] >= 8, f"letters in the figures must be readable at {width}"
    assert "CONSOLE" not in done.stderr


class TestTensorBoard:
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("tensorboard")

    def read(self, folder):
        from tensorboard.backend.event_processing import event_accumulator as accumulators

        read = accumulators.EventAccumulator(str(folder))
        read.Reload()
        return {
            tag: [(s.step, s.value) for s in read.Scalars(tag)] for tag in read.Tags()["scalars"]
        }

    def test_a_run_per_kernel_and_device(self, tmp_path):
        events = [event(0), event(1, spearman=0.5), event(2, kernel="soft max/2", spearman=None)]
        folders = write_tensorboard(summarize(events, rounds=ROUNDS), tmp_path)
        names = {str(folder.relative_to(tmp_path)) for folder in folders}
        assert names == {"matmul/NVIDIA_H100", "soft_max_2/NVIDIA_H100", "fine-tuning"}
        matmul = self.read(tmp_path / "matmul" / "NVIDIA_H100")
        assert [step for step, _ in matmul["accuracy/spearman"]] == [1, 2]
        assert [v for _, v in matmul["accuracy/spearman"]] == pytest.approx([0.9, 0.5])
        assert matmul["best/time_ms"][0] == (1, 1.0)
        assert "accuracy/spearman" not in self.read(tmp_path / "soft_max_2" / "NVIDIA_H100")
        assert self.read(tmp_path / "fine-tuning")["fine-tuning/accepted"] == [(1, 1.0), (2, 0.0)]

    def test_writing_again_replaces_only_its_own(self, tmp_path):
        run = tmp_path / "matmul" / "NVIDIA_H100"
        write_tensorboard(summarize([event(0), event(1)]), tmp_path)
        (run / "events.out.tfevents.of.another").write_bytes(b"")
        write_tensorboard(summarize([event(0)]), tmp_path)
        assert len(self.read(run)["seconds/model"]) == 1
        assert (run / "events.out.tfevents.of.another").exists()

    def test_odd_records_are_written_as_far_as_they_go(self, tmp_path):
        odd = event(0, kernel="..", when="?", spearman=math.nan, best_value=None)
        (folder,) = write_tensorboard(summarize([odd], rounds=[]), tmp_path)
        assert folder.parent.parent == tmp_path
        assert "accuracy/spearman" not in self.read(folder)

    def test_from_the_command_line(self, tmp_path):
        store = str(tmp_path / "store.sqlite")
        with Store(store) as opened:
            opened.add_event(event())
        done = CliRunner().invoke(
            app, ["report", "--store", store, "--tensorboard", str(tmp_path / "logs")]
        )
        assert done.exit_code == 0, done.output
        assert "tensorboard --logdir" in done.output
        assert self.read(tmp_path / "logs" / "matmul" / "NVIDIA_H100")["seconds/compile"]
