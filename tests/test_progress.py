"""What a search says of itself while it runs and when it is over."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from autotune_rlm import Candidate, Device, Measurement, Observation, Task, formats
from autotune_rlm.search import progress
from autotune_rlm.search.tuner import Progress
from autotune_rlm.store.accuracy import TuningEvent

TASK = Task(kernel="softmax", device=Device(name="NVIDIA H100"))
EVENT = TuningEvent(
    task_key="0",
    kernel="softmax",
    device="NVIDIA H100",
    n_candidates=1920,
    n_measured=12,
    best_value=0.0123,
    total_s=9.1,
    saved_s=1020.0,
)


def step(measured, best=0.5):
    return Progress(
        task=TASK,
        measured=measured,
        planned=12,
        candidates=1920,
        best=Observation(Candidate({"B": 1}), Measurement(status="ok", value=best)),
        default=1.0,
        seconds=3.0,
    )


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("autotune_rlm.progress.time", clock)
    return clock


def console(*, terminal=False):
    return Console(file=io.StringIO(), force_terminal=terminal, width=200, markup=False)


def test_a_quick_search_says_nothing(clock):
    screen = console()
    with progress.Reporter(console=screen) as line:
        clock.now = 1.0
        line(step(1))
        line.done(EVENT.from_json({**EVENT.to_json(), "total_s": 1.0}))
    assert screen.file.getvalue() == ""


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(clock):
    screen = console()
    with progress.Reporter(console=screen) as line:
        for measured in range(1, 13):
            clock.now += 2.5
            line(step(measured))
        line.done(EVENT)
    lines = screen.file.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == (
        "autotune_rlm: tuning softmax on NVIDIA H100: 4 of 12 measured, 3.0 s, best 500 us"
    )
    assert lines[-1] == (
        "autotune_rlm: softmax on NVIDIA H100: 12 of 1,920 configurations measured in 9.1 s, "
        "best 12.3 us; measuring all would have taken about 17 min more"
    )


def test_a_terminal_shows_one_line_that_changes(clock):
    screen = console(terminal=True)
    with progress.Reporter(console=screen) as line:
        clock.now = 3.0
        line(step(1))
        line(step(2))
        line.done(EVENT)
    shown = screen.file.getvalue()
    assert "12 of 1,920 configurations measured" in shown
    assert shown.count("\n") <= 3


def test_quiet_is_quiet(clock, capsys):
    with progress.Reporter(quiet=True) as line:
        clock.now = 30.0
        line(step(1))
        line.done(EVENT)
    assert capsys.readouterr() == ("", "")


def test_the_line_goes_away_where_a_search_raises(clock):
    screen = console(terminal=True)
    search = progress.Reporter(console=screen)
    line = search.__enter__()
    clock.now = 3.0
    line(step(1))
    assert "\x1b[?25l" in screen.file.getvalue()  # the cursor is hidden while the line changes
    search.__exit__(None, None, None)
    assert screen.file.getvalue().count("\x1b[?25h") == 1


@pytest.mark.parametrize(
    ("value", "metric", "shown"),
    [
        (0.0005, "time_ms", "0.5 us"),
        (12.5, "time_ms", "12.5 ms"),
        (2500.0, "time_ms", "2.5 s"),
        (0.93, "accuracy", "0.93 accuracy"),
        (1e6, "peak_bytes", "1e+06 bytes"),
    ],
)
def test_values_have_units_that_people_use(value, metric, shown):
    assert formats.measured(value, metric) == shown
