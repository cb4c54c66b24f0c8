"""All ranks of a job take the same configuration."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch.distributed as dist
import triton

from autotune_rlm.integrations.triton import _ranks
from autotune_rlm.integrations.triton._ranks import Ranks
from autotune_rlm.integrations.triton._select import Outcome
from autotune_rlm.integrations.triton.task import candidates_of
from autotune_rlm.store import Store
from autotune_rlm.types import Candidate, Device, Measurement, Task

CONFIGS = [triton.Config({"BLOCK": block}) for block in (32, 64, 128)]
A_MINUTE = 60.0


def run_two(program, folder):
    """What two ranks of a program print as JSON."""
    running = [
        subprocess.Popen(
            [sys.executable, program, str(rank), folder / "meeting", folder / f"rank{rank}.db"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    ends = [process.communicate(timeout=280) for process in running]
    assert [process.returncode for process in running] == [0, 0], [end[1] for end in ends]
    return [json.loads(end[0].splitlines()[-1]) for end in ends]


def test_two_processes_over_gloo(tmp_path):
    program = Path(__file__).with_name("rank_of_a_job.py")
    seen = Store(tmp_path / "rank1.db")  # rank 1 knows better than rank 0, and must not act on it
    seen.add(
        Task(kernel="body", device=Device(name="sm_90")),
        Candidate({"BLOCK": 1024, "num_warps": 1, "num_stages": 3}),
        Measurement(status="ok", value=1e-6),
    )
    seen.close()
    first, second = run_two(program, tmp_path)
    assert first["full 64"]["BLOCK"] == 32  # the fastest as rank 0 sees it
    assert first["full benchmarked"] == 2 * 18
    assert second["full benchmarked"] == 0
    for choice in ("full 64", "full 128", "predict 64", "predict 128"):
        assert first[choice] == second[choice]
    assert second["alone"]["BLOCK"]


def test_stages_of_a_pipeline_that_wait_for_each_other_go_on(tmp_path):
    program = Path(__file__).with_name("pipeline_of_ranks.py")
    first, second = run_two(program, tmp_path)
    assert first["first"] == first["then"]
    assert second["first"] != second["then"]
    assert second["then"] == first["then"]


@pytest.fixture
def job(monkeypatch):
    """Ranks as threads that share a store; ``as_rank`` says which one a thread is."""
    store, me = dist.HashStore(), threading.local()
    monkeypatch.setattr(_ranks, "_job", lambda: (store, me.rank))

    def as_rank(
        rank, chosen, *, first_s=A_MINUTE, patience_s=A_MINUTE, configs=CONFIGS, meanwhile=None
    ):
        me.rank = rank
        decided = []

        def decide():
            decided.append(rank)
            if isinstance(chosen, Exception):
                raise chosen
            if callable(chosen):
                return chosen()
            return Outcome(configs[chosen], "measured", measured_later=lambda: None)

        ranks = Ranks(first_s, patience_s)
        outcome = ranks.agree(["kernel"], candidates_of(configs), decide, meanwhile)
        return outcome, bool(decided), ranks

    return as_rank


def test_rank_0_decides_though_it_comes_last(job):
    found = {}
    others = [
        threading.Thread(target=lambda r=rank: found.update({r: job(r, 2)[:2]})) for rank in (1, 2)
    ]
    for other in others:
        other.start()
    outcome, decided, _ = job(0, 0)
    for other in others:
        other.join()
    assert (outcome.config, decided) == (CONFIGS[0], True)
    assert outcome.measured_later is None
    assert [(found[r][0].config, found[r][1]) for r in (1, 2)] == [(CONFIGS[0], False)] * 2
    assert found[1][0].how == "rank 0"


def test_another_rank_decides_where_rank_0_does_not_come(job):
    outcome, decided, ranks = job(1, 2, first_s=0.02)
    assert (outcome.config, decided) == (CONFIGS[2], True)
    assert ranks._first_s == 0.01  # and the next such key is waited for less
    late, decided, _ = job(0, 0)
    assert (late.config, decided) == (CONFIGS[2], False)


def test_a_rank_that_fails_lets_the_others_decide(job):
    with pytest.raises(RuntimeError, match="no configuration works"):
        job(0, RuntimeError("no configuration works"))
    outcome, decided, _ = job(1, 1)
    assert (outcome.config, decided) == (CONFIGS[1], True)


def test_a_rank_that_died_is_not_waited_for_forever(job, monkeypatch):
    monkeypatch.setattr(_ranks, "_decide_for_all", lambda *args: Outcome(CONFIGS[0], "died"))
    job(0, 0)  # claims the key and never answers
    outcome, decided, _ = job(1, 1, first_s=0.02)
    assert (outcome.config, decided) == (CONFIGS[1], True)
    assert outcome.measured_later.best() is None


def test_a_rank_goes_on_while_another_decides_and_takes_its_word_later(job):
    deciding, answer = threading.Event(), threading.Event()

    found = {}

    def rank_0():
        def wait():
            deciding.set()
            assert answer.wait(60)
            return Outcome(CONFIGS[0], "measured")

        found[0] = job(0, wait)[0]

    other = threading.Thread(target=rank_0)
    other.start()
    assert deciding.wait(60)
    meanwhile = Outcome(CONFIGS[2], "model")
    outcome, decided, _ = job(1, 1, first_s=0.05, meanwhile=lambda: meanwhile)
    assert (outcome.config, outcome.how, decided) == (CONFIGS[2], "model", False)
    assert outcome.measured_later.best() is None
    answer.set()  # the message is sent
    other.join(60)
    assert found[0].config == CONFIGS[0]
    assert outcome.measured_later.best() == CONFIGS[0]


def test_waits_that_are_in_vain_become_shorter(job, monkeypatch):
    monkeypatch.setattr(_ranks, "_decide_for_all", lambda *args: Outcome(CONFIGS[0], "died"))
    job(0, 0)
    ranks = Ranks(first_s=0.32)
    for _ in range(30):
        ranks.agree(["kernel"], candidates_of(CONFIGS), lambda: Outcome(CONFIGS[1], "model"))
    assert ranks._answer_s < 0.001


def test_where_the_user_says_so_the_missing_answers_are_waited_for(job, monkeypatch):
    taken = []
    monkeypatch.setattr(_ranks.refresher, "look", lambda: taken.append(1))
    deciding, answer = threading.Event(), threading.Event()

    def wait():
        deciding.set()
        assert answer.wait(60)
        return Outcome(CONFIGS[0], "measured")

    other = threading.Thread(target=lambda: job(0, wait))
    other.start()
    assert deciding.wait(60)
    outcome, _, ranks = job(1, 1, first_s=0.05)
    threading.Timer(0.3, answer.set).start()
    ranks.settle()
    assert taken == [1]
    assert outcome.measured_later.best() == CONFIGS[0]
    ranks.settle()
    other.join(60)


def test_other_configurations_are_another_choice(job):
    job(0, 0)
    outcome, decided, _ = job(1, 1, first_s=0.02, configs=CONFIGS[1:])
    assert (outcome.config, decided) == (CONFIGS[2], True)


def test_a_broken_store_costs_a_warning(monkeypatch, caplog):
    class Broken:
        def add(self, *args):
            raise ConnectionError("rank 0 is gone")

    monkeypatch.setattr(_ranks, "_job", lambda: (Broken(), 0))
    outcome = Ranks().agree(["k"], candidates_of(CONFIGS), lambda: Outcome(CONFIGS[1], "model"))
    assert outcome.config is CONFIGS[1]
    assert "deciding without the other ranks: ConnectionError" in caplog.text


def test_outside_of_a_job_nothing_is_asked(monkeypatch):
    assert not Ranks().several
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    assert not Ranks().several
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setenv("AUTOTUNE_RLM_AGREE", "0")
    assert not Ranks().several
