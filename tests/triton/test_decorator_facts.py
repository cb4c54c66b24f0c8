"""Candidates get the compiler's facts: each IR once, in parallel, a part of large spaces."""

from __future__ import annotations

import pytest
import torch
import triton
import triton_test_kernels as kernels
from triton_test_support import Oracle

from autotune_rlm import ConfigSpace, Store, rlm_autotune
from autotune_rlm.devices import lookup
from autotune_rlm.integrations.triton import _facts
from autotune_rlm.integrations.triton._facts import with_facts
from autotune_rlm.integrations.triton._live import launch_of
from autotune_rlm.integrations.triton.task import candidates_of
from autotune_rlm.ir import IRCache

H100 = lookup("H100")
GIVEN = {"x": {"dtype": "fp16"}, "y": {"dtype": "fp16"}, "n": 100_000}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    cache = IRCache(tmp_path / "cache" / "ir.sqlite3")
    monkeypatch.setattr(_facts, "_cache", lambda: cache)
    return cache


def _read(kernel, space, **options):
    def launch(candidate):
        return launch_of(
            kernel, GIVEN, candidate.payload, grid=lambda a: (triton.cdiv(a["n"], a["BLOCK"]),)
        )

    return with_facts(kernel, candidates_of(space.to_triton()), launch, H100, **options)


def test_each_set_of_constants_is_read_once():
    space = ConfigSpace(BLOCK=[64, 128, 256], num_warps=[1, 2, 4], num_stages=[1, 2])
    report = _read(kernels.scale, space)
    assert (report.distinct, report.read) == (3, 3)
    assert all(c.facts["programs"] == -(-100_000 // c.config["BLOCK"]) for c in report.candidates)
    assert len({c.facts["threads"] for c in report.candidates}) == 3
    assert [c.config for c in report.candidates] == [
        c.config for c in candidates_of(space.to_triton())
    ]


def test_a_later_process_reads_nothing_anew(monkeypatch):
    space = ConfigSpace(BLOCK=[64, 128])
    before = _read(kernels.scale, space)
    monkeypatch.setattr("autotune_rlm.ir._reader.first_ir", lambda *_: pytest.fail("read again"))
    assert [c.facts for c in _read(kernels.scale, space).candidates] == [
        c.facts for c in before.candidates
    ]


def test_what_the_front_end_refuses_is_marked_and_says_why():
    report = _read(kernels.picky, ConfigSpace(BLOCK=[32, 64]))
    assert report.candidates[0].facts == {"refused": 1.0}
    assert report.candidates[1].facts["programs"] > 0
    (reason,) = report.reasons
    assert "a block of 32 is too small" in reason


def test_a_launch_that_raises_leaves_its_candidate_without_facts():
    def launch(candidate):
        raise KeyError("n")

    report = with_facts(kernels.scale, candidates_of([triton.Config({"BLOCK": 64})]), launch, H100)
    assert report.candidates[0].facts == {}
    assert report.reasons == {"'n'": 1}


def test_workers_read_what_this_process_would_read(monkeypatch):
    space = ConfigSpace(BLOCK=[32 * i for i in (2, 4, 8, 16)], num_warps=[1, 4])
    alone = _read(kernels.scale, space)
    monkeypatch.setattr(_facts, "_WORTH_WORKERS", 2)
    monkeypatch.setattr(_facts, "_cache", lambda: None)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(
        "autotune_rlm.ir._reader.read_or_reason", lambda *_: pytest.fail("read here")
    )
    assert [c.facts for c in _read(kernels.scale, space).candidates] == [
        c.facts for c in alone.candidates
    ]


def test_of_a_large_space_a_sample_and_the_best_are_read(monkeypatch):
    space = ConfigSpace(BLOCK=[2**i for i in range(4, 14)], num_warps=[1, 2, 4, 8])
    whole = _read(kernels.scale, space)
    monkeypatch.setattr(_facts, "_SPREAD", 6)
    monkeypatch.setattr(_facts, "_BEST", 2)
    best = [c.config["BLOCK"] for c in whole.candidates].index(4096)
    report = _read(kernels.scale, space, order=lambda known: [best])
    assert report.distinct == 10
    assert report.read in (6, 7)
    assert report.candidates[best].facts == whole.candidates[best].facts
    for part, full in zip(report.candidates, whole.candidates, strict=True):
        assert set(part.facts) == set(full.facts)
        assert 1 / 3 < part.facts["programs"] / full.facts["programs"] < 3


def test_an_unfamiliar_kernel_is_said_to_be_so_once(caplog):
    from autotune_rlm.integrations.triton.resources import LazySurrogate
    from autotune_rlm.types import Task

    task = Task(kernel="an unfamiliar kernel", device=lookup("RTX 5090"))
    candidates = candidates_of(ConfigSpace(OTHER_PARAMETER=[1, 2]).to_triton())
    with caplog.at_level("INFO", "autotune_rlm"):
        for _ in range(2):
            LazySurrogate().predict(task, candidates)
    (told,) = [r.getMessage() for r in caplog.records if "unfamiliar:" in r.getMessage()]
    assert "other_parameter" in told
    assert "RTX 5090" in told


class _Witness(Oracle):
    """A surrogate that remembers the candidates that it was asked about."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def predict(self, task, candidates, *, observed=()):
        self.seen.append(list(candidates))
        return super().predict(task, candidates, observed=observed)


@pytest.mark.parametrize(("budget", "reads"), [(4, True), (1.0, False)])
def test_the_decorator_reads_the_ir_where_a_model_chooses(stub, store_path, budget, reads):
    witness = _Witness()
    x = torch.zeros(4096, dtype=torch.float16)
    space = ConfigSpace(BLOCK=[64, 128, 256, 512], num_warps=[1, 2, 4])
    kernel = rlm_autotune(
        configs=space, key=["n"], store=store_path, surrogate=witness, budget=budget
    )(kernels.scale)
    kernel[lambda meta: (triton.cdiv(4096, meta["BLOCK"]),)](x, x.clone(), 4096)
    assert bool(witness.seen) == reads
    for candidate in (c for seen in witness.seen for c in seen):
        assert candidate.facts["programs"] == 4096 // candidate.config["BLOCK"]
    with Store(store_path) as store:
        (task,) = store.tasks()
        kept = [o.candidate for o in store.observations(task)]
    assert all(bool(candidate.facts) == reads for candidate in kept)
