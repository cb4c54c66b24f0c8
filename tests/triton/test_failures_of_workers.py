"""What a worker's failure means: of a compile worker, and of the process that measures."""

from __future__ import annotations

import dataclasses
import linecache
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import triton
import triton.language as tl
from triton_test_kernels import scale
from triton_test_support import X, rows
from triton_test_support import few as tuned
from triton_test_support import few_grid as good

from autotune_rlm import Store
from autotune_rlm.measure.triton import job


@dataclasses.dataclass(frozen=True)
class Offset:
    amount: int


@triton.jit
def offset(x, o, n, by: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(o + i, tl.load(x + i, mask=i < n) + by.amount, mask=i < n)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(job, "_PAUSES_S", (0.0, 0.0))


class TestWorkers:
    """What a compile worker cannot do, this process does."""

    SOURCE = """
        import triton, triton.language as tl

        def _copy(x, o, n, BLOCK: tl.constexpr):
            i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
            tl.store(o + i, tl.load(x + i, mask=i < n), mask=i < n)

        if True:
            @triton.jit
            def nested(x, o, n, BLOCK: tl.constexpr):
                i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
                tl.store(o + i, tl.load(x + i, mask=i < n), mask=i < n)

        renamed = triton.jit(_copy)
        """

    @pytest.mark.parametrize("kernel", ["renamed", "nested"])
    @pytest.mark.parametrize("file", ["/nowhere/generated.py", "<ipython-input-1-0a1b2c>"])
    def test_generated_source_and_notebooks(self, stub, store_path, kernel, file):
        source = textwrap.dedent(self.SOURCE)
        linecache.cache[file] = (len(source), None, source.splitlines(True), file)
        names = {"__name__": "__main__"}
        exec(compile(source, file, "exec"), names)
        search = tuned(names[kernel], store_path)
        search[good](X, X.clone(), 64)
        assert rows(store_path) == {64: "ok", 128: "ok", 256: "ok"}

    def test_a_program_that_only_its_own_process_can_load(self, tmp_path):
        program = tmp_path / "program.py"
        program.write_text(
            textwrap.dedent(
                """
                import argparse, torch, triton, triton.language as tl
                from autotune_rlm import rlm_autotune
                from autotune_rlm.integrations.triton.stub import StubDriver
                parser = argparse.ArgumentParser()
                parser.add_argument("--times", type=int, required=True)
                TIMES = tl.constexpr(parser.parse_args().times)
                FEW = [triton.Config({"BLOCK": b}) for b in (32, 64)]

                @rlm_autotune(FEW, key=["n"])
                @triton.jit
                def of_the_command_line(x, o, n, BLOCK: tl.constexpr):
                    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
                    tl.store(o + i, tl.load(x + i, mask=i < n) * TIMES, mask=i < n)

                if __name__ == "__main__":
                    @rlm_autotune(FEW, key=["n"])
                    @triton.jit
                    def below_main(x, o, n, BLOCK: tl.constexpr):
                        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
                        tl.store(o + i, tl.load(x + i, mask=i < n), mask=i < n)

                    x = torch.zeros(64)
                    with StubDriver():
                        for kernel in (of_the_command_line, below_main):
                            kernel[(2,)](x, x.clone(), 64)
                            print(len(kernel.configs_timings), "worked")
                """
            )
        )
        done = subprocess.run(
            [sys.executable, program, "--times", "3"],
            capture_output=True,
            text=True,
            env={**os.environ, "AUTOTUNE_RLM_STORE": str(tmp_path / "store.db")},
        )
        assert done.stdout.splitlines() == ["2 worked"] * 2, done.stderr

    def test_a_search_does_not_wait_for_workers_to_start(self, stub, store_path, monkeypatch):
        """With its facts, as a worker would tell them."""
        from autotune_rlm.measure.workers.process import WorkerProcess

        ended = threading.Event()
        monkeypatch.setattr(WorkerProcess, "start", lambda self: ended.wait(60))
        search = tuned(scale, store_path)
        search[good](X, X, 64)
        ended.set()
        assert rows(store_path) == {64: "ok", 128: "ok", 256: "ok"}
        (task,) = Store(store_path).tasks()
        found = Store(store_path).observations(task)
        assert all(o.measurement.facts["registers"] for o in found)

    def test_a_kernel_may_take_what_triton_cannot_write_as_json(self, stub, store_path):
        """Asking what a launch compiles leaves Triton as it is, before the launch and after."""
        search = tuned(offset, store_path)
        search[good](X, X, 64, by=Offset(2))
        assert rows(store_path) == {64: "ok", 128: "ok", 256: "ok"}
        assert triton.knobs.runtime.jit_cache_hook is None

    def test_a_pool_that_cannot_start_costs_nothing(self, stub, store_path, monkeypatch):
        from autotune_rlm.integrations.triton import resources

        resources._compile_pool.close()
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        began = time.monotonic()
        tuned(scale, store_path)[good](X, X, 64)
        assert time.monotonic() - began < 100
        assert rows(store_path) == {64: "ok", 128: "ok", 256: "ok"}
        resources._compile_pool.close()


class TestIsolated:
    """``isolate=True``: what hangs, crashes or breaks the device costs nothing but itself."""

    PROGRAM = """
        import sys, torch, triton, triton.language as tl
        from autotune_rlm import rlm_autotune

        def hook(given, reset_only=False):
            pass

        @rlm_autotune(
            [triton.Config({"BLOCK": b}) for b in (64, 128, 256)],
            key=["n"],
            isolate=True,
            reset_to_zero=["y"],
            pre_hook=hook if "hook" in sys.argv else None,
        )
        @triton.jit
        def wild(x, y, n, WILD: tl.constexpr, LAZY: tl.constexpr, BLOCK: tl.constexpr):
            at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
            right = tl.load(x + at, mask=at < n)
            if BLOCK < 256 or not LAZY:
                tl.store(y + at, right, mask=at < n)
            if WILD:
                if BLOCK == 128:
                    tl.store(y + (tl.program_id(0) + 1).to(tl.int64) * (1 << 44), 1.0)

        x = torch.ones(500)
        y = torch.zeros(500)
        modes = "wild" in sys.argv, "lazy" in sys.argv
        wild[lambda m: (triton.cdiv(500, m["BLOCK"]),)](x, y, 500, *modes)
        timed = {c.kwargs["BLOCK"]: t[0] < 1e9 for c, t in wild.configs_timings.items()}
        print(dict(sorted(timed.items())), bool((x == y).all()))
        """

    def run(self, tmp_path, *arguments, **environment):
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(self.PROGRAM))
        path = str(tmp_path / "store.db")
        done = subprocess.run(
            [sys.executable, program, *arguments],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "AUTOTUNE_RLM_STORE": path,
                "TRITON_INTERPRET": "1",
                **environment,
            },
        )
        return done, rows(path)

    def test_a_crash_is_survived_and_kept(self, tmp_path):
        done, kept = self.run(tmp_path, "wild")
        assert done.stdout.strip() == "{64: True, 128: False, 256: True} True", done.stderr
        assert kept == {64: "ok", 128: "crashed", 256: "ok"}

    def test_wrong_results_are_left_out_there_too(self, tmp_path):
        done, kept = self.run(tmp_path, "lazy", AUTOTUNE_RLM_CHECK="default")
        assert done.stdout.strip() == "{64: True, 128: True, 256: False} True", done.stderr
        assert kept == {64: "ok", 128: "ok", 256: "wrong_result"}

    def test_hooks_of_the_users_own_need_this_process(self, tmp_path):
        done, kept = self.run(tmp_path, "hook")
        assert done.stdout.strip() == "{64: True, 128: True, 256: True} True", done.stderr
        assert (
            "measured in this process although isolate=True: a pre_hook of its own" in done.stderr
        )
        assert set(kept.values()) == {"ok"}

    def test_without_it_a_crash_is_known_to_the_next_process(self, tmp_path):
        self.PROGRAM = self.PROGRAM.replace("isolate=True", "isolate=False")
        done, kept = self.run(tmp_path, "wild")
        assert done.returncode < 0
        assert kept[64] == "ok"
        assert 128 not in kept
        done, kept = self.run(tmp_path, "wild")
        assert done.stdout.strip() == "{64: True, 128: False, 256: True} True", done.stderr
        assert kept == {64: "ok", 128: "crashed", 256: "ok"}
        assert "is left out for a day: process" in done.stderr
