"""``watch``: noted problems are benchmarked, one watcher per device, nothing is lost."""

import contextlib
import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autotune_rlm.measure.detect import cpu_device
from autotune_rlm.measure.pace import PacedMeasurer
from autotune_rlm.measure.triton import Workload
from autotune_rlm.measure.triton._kernel_source import load_kernel
from autotune_rlm.measure.triton.kernel_call import describe_launch
from autotune_rlm.measure.triton.trusted import UntrustedError, trusted_call
from autotune_rlm.search import watch
from autotune_rlm.search.watch import AlreadyWatchedError, Watcher
from autotune_rlm.store import Store
from autotune_rlm.types import Candidate, Device, Measurement, Status, Task

HERE = Path(__file__).parent
WORKLOAD = Workload(factory=f"{HERE / 'faulty_workload.py'}:factory").to_json()


def task(name, device=None):
    return Task(kernel=name, device=device or cpu_device())


def candidates(n, fault="none"):
    return [Candidate({"fault": fault, "number": i}) for i in range(n)]


class Table:
    """A measurer with one value per number; ``broken`` ones fail."""

    def __init__(self, broken=(), skipped=()):
        self.broken = broken
        self.skipped = skipped
        self.measured = []

    def measure(self, task, candidates):
        for candidate in candidates:
            number = candidate.config["number"]
            self.measured.append((task.kernel, number))
            if number in self.skipped:
                yield candidate, Measurement(status=Status.SKIPPED, reason="memory full")
            elif number in self.broken:
                yield candidate, Measurement(status=Status.RUNTIME_ERROR, reason="broken")
            else:
                yield candidate, Measurement(status=Status.OK, value=10.0 - number, cost_s=0.01)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.db") as store:
        yield store


def watcher(store, table, tmp_path, **options):
    @contextlib.contextmanager
    def measurer(request):
        yield table

    settings = {
        "device": cpu_device(),
        "duty": 1.0,
        "busy": 1.0,
        "lock_folder": tmp_path,
        "measurer": measurer,
    }
    return Watcher(store, **{**settings, **options})


def test_the_most_used_problem_goes_first_and_requests_are_done_once(store, tmp_path):
    store.note_request(task("rare"), candidates(3), workload=WORKLOAD)
    store.note_request(task("frequent"), candidates(3), uses=5, workload=WORKLOAD)
    store.note_request(
        task("elsewhere", Device(name="NVIDIA H100")), candidates(3), workload=WORKLOAD
    )
    store.note_request(task("unknown way"), candidates(3))
    table, told = Table(), []
    count = watcher(store, table, tmp_path).run(once=True, told=told.append)
    assert count == 2
    assert [served.task.kernel for served in told] == ["frequent", "rare"]
    assert told[0].best == {"fault": "none", "number": 2}
    assert len(store.observations(task("frequent"))) == 3
    assert {r.task.kernel for r in store.requests()} == {"elsewhere", "unknown way"}
    assert len(store.events()) == 2
    assert watcher(store, table, tmp_path).run(once=True) == 0


def test_only_the_top_candidates_are_measured(store, tmp_path):
    store.note_request(task("k"), candidates(50), workload=WORKLOAD)
    table = Table()
    watcher(store, table, tmp_path, top=4).run(once=True)
    assert len(table.measured) == 4


def test_where_nothing_works_nothing_is_learned(store, tmp_path):
    store.note_request(task("k"), candidates(3), workload=WORKLOAD)
    watcher(store, Table(broken=range(3)), tmp_path).run(once=True)
    assert store.observations(task("k")) == []
    assert store.requests() == []


def test_a_request_stays_where_only_the_machine_was_at_fault(store, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(watch, "_LATER_S", 0.0)
    store.note_request(task("k"), candidates(3), workload=WORKLOAD)
    assert watcher(store, Table(skipped=range(3)), tmp_path).run(once=True) == 0
    assert "could be tried, 3 times" in caplog.text
    assert [r.task.kernel for r in store.requests()] == ["k"]
    assert watcher(store, Table(), tmp_path).run(once=True) == 1
    assert store.requests() == []


@pytest.mark.parametrize(("error", "left"), [(MemoryError("full"), 1), (ValueError("odd"), 0)])
def test_a_measurer_that_cannot_begin(store, tmp_path, monkeypatch, error, left):
    @contextlib.contextmanager
    def measurer(request):
        raise error
        yield

    store.note_request(task("k"), candidates(3), workload=WORKLOAD)
    watcher(store, None, tmp_path, measurer=measurer).run(once=True)
    assert len(store.requests()) == left


def test_failures_beside_a_success_are_kept(store, tmp_path):
    store.note_request(task("k"), candidates(3), workload=WORKLOAD)
    watcher(store, Table(broken=[0]), tmp_path).run(once=True)
    assert [o.measurement.ok for o in store.observations(task("k"))].count(False) == 1


def test_fine_tuning_follows_enough_measurements(store, tmp_path):
    for name in "abc":
        store.note_request(task(name), candidates(3), workload=WORKLOAD)
    rounds = []

    def fine_tune(given):
        rounds.append(sum(len(given.observations(t)) for t in given.tasks()))
        return None, {"accepted": True}

    watcher(store, Table(), tmp_path, fine_tune=fine_tune, fine_tune_after=5).run(once=True)
    assert rounds == [6]

    def failing(given):
        raise ValueError("too few")

    store.note_request(task("d"), candidates(3), workload=WORKLOAD)
    watcher(store, Table(), tmp_path, fine_tune=failing, fine_tune_after=1).run(once=True)


def test_a_thread_serves_in_the_background_and_stops(store, tmp_path):
    background = watcher(store, Table(), tmp_path)
    background.start()
    with pytest.raises(RuntimeError, match="already"):
        background.start()
    background.stop()
    store.note_request(task("k"), candidates(2), workload=WORKLOAD)
    background.start()
    deadline = time.monotonic() + 20
    while store.requests() and time.monotonic() < deadline:
        time.sleep(0.05)
    background.stop()
    assert len(store.observations(task("k"))) == 2


def test_two_watchers_never_share_a_device(store, tmp_path):
    first, second = (watcher(store, Table(), tmp_path) for _ in range(2))
    with first._alone(), pytest.raises(AlreadyWatchedError, match="stop it first"):
        second.run(once=True)
    other = watcher(store, Table(), tmp_path, device=Device(name="NVIDIA H100"))
    with first._alone():
        assert other.run(once=True) == 0
    assert second.run(once=True) == 0


def test_a_device_is_the_same_by_whatever_number(store, tmp_path, monkeypatch):
    uuid = types.SimpleNamespace(uuid="8f3c")
    cuda = types.SimpleNamespace(current_device=lambda: 0, get_device_properties=lambda i: uuid)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    gpu = Device(name="NVIDIA H100", target="sm_90")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    unnamed = watcher(store, Table(), tmp_path, device=gpu)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    numbered = watcher(store, Table(), tmp_path, device=gpu)
    uuid.uuid = "77aa"
    another = watcher(store, Table(), tmp_path, device=gpu)
    with unnamed._alone():
        with pytest.raises(AlreadyWatchedError):
            numbered.run(once=True)
        assert another.run(once=True) == 0


def test_a_folder_that_is_not_there_is_an_error(store, tmp_path):
    with pytest.raises(ValueError, match=r"folders that are there, got .*typo"):
        Watcher(store, kernels=[tmp_path, tmp_path / "typo"])


def test_the_duty_cycle_is_kept():
    class Slow(Table):
        def measure(self, task, candidates):
            for candidate, measurement in super().measure(task, candidates):
                time.sleep(0.05)
                yield candidate, measurement

    begin = time.monotonic()
    results = list(PacedMeasurer(Slow(), duty=0.25).measure(task("k"), candidates(4)))
    assert len(results) == 4
    assert time.monotonic() - begin >= 4 * 0.05 / 0.25 * 0.95


def test_a_busy_device_is_waited_for():
    answers = iter([False, False, True, True])
    paced = PacedMeasurer(Table(), idle=lambda: next(answers), poll_s=0.01)
    assert len(list(paced.measure(task("k"), candidates(1)))) == 1
    assert list(answers) == []


def test_stopping_skips_the_rest():
    stop = threading.Event()
    paced = PacedMeasurer(Table(), stop=stop)
    results = paced.measure(task("k"), candidates(4))
    next(results)
    stop.set()
    assert [m.status for _, m in results] == [Status.SKIPPED] * 3


def test_a_watcher_that_is_killed_loses_nothing(tmp_path):
    """kill -9 in mid-request: what was measured is stored, the next one goes on, the lock is free."""
    database = tmp_path / "store.db"
    with Store(database) as store:
        slow = [Candidate({"fault": "none", "sleep": 0.2, "number": i}) for i in range(6)]
        store.note_request(task("k"), slow, workload=WORKLOAD)
        script = textwrap.dedent(
            f"""
            from autotune_rlm.store import Store
            from autotune_rlm.measure.detect import cpu_device
            from autotune_rlm.measure.triton import IsolatedMeasurer, Workload
            from autotune_rlm.search.watch import Watcher
            Watcher(
                Store({str(database)!r}),
                device=cpu_device(),
                duty=1,
                busy=1,
                measurer=lambda request: IsolatedMeasurer(Workload(**request.workload)),
                lock_folder={str(tmp_path)!r},
            ).run(once=True)
            """
        )
        process = subprocess.Popen([sys.executable, "-c", script])
        deadline = time.monotonic() + 100
        while len(store.observations(task("k"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = len(store.observations(task("k")))
        assert 2 <= before < 6
        assert len(store.requests()) == 1
        rest = Table()
        assert watcher(store, rest, tmp_path).run(once=True) == 1
        assert len(rest.measured) == 6 - before
        assert len(store.observations(task("k"))) == 6
        assert store.requests() == []


def test_the_command(store, tmp_path, monkeypatch, caplog):
    from autotune_rlm.cli.watch import app

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    handlers = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    call, blocks = noted_add()
    store.note_request(task("add"), blocks, workload=call.workload().to_json())
    store.note_request(task("gather"), blocks, workload={"obstacle": "idx: too many"})
    options = ["--store", str(tmp_path / "store.db"), "--once", "--busy", "1", "--duty", "1"]
    options += ["--surrogate", "none"]
    try:
        done = CliRunner().invoke(app, [*options, "--kernels", str(tmp_path)])
        assert "0 problems served" in done.output
        assert "--kernels" in caplog.text
        assert "cannot benchmark gather: idx: too many" in caplog.text
        assert store.observations(task("add")) == []
        done = CliRunner().invoke(app, [*options, "--kernels", str(HERE)])
        assert done.exit_code == 0, done.output
        assert "1 problem served" in done.output
        assert len(store.observations(task("add"))) == 2
        assert CliRunner().invoke(app, [*options, "--duty", "7"]).exit_code == 2
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)


def noted_add():
    """A launch of a kernel of this folder as a program notes it, and its configurations."""
    pytest.importorskip("triton")
    torch = pytest.importorskip("torch")
    import kernels_for_tests as kernels

    x = torch.arange(64.0)
    constants = {"EVEN": True, "UNUSED": None}
    launches = [({"BLOCK": b}, (64 // b,), constants) for b in (16, 32)]
    call = describe_launch(kernels.add, {"x": x, "y": x, "out": x, "n": 64}, launches)
    return call, [Candidate({"BLOCK": b}) for b in (16, 32)]


class TestWhatTheStoreMayAskFor:
    """A store is data: who writes to it does not choose what runs here."""

    @pytest.fixture
    def asks(self):
        def make(**changes):
            call, _ = noted_add()
            return call.workload().to_json() | {
                "arguments": {**dataclasses.asdict(call), **changes}
            }

        return make

    def test_what_a_program_with_an_older_version_noted(self, asks):
        older = asks() | {"factory": "autotune_rlm.measure.kernel_call:bench"}
        assert trusted_call(older, [HERE]).function == "add"

    def test_a_launch_of_a_kernel_in_a_named_folder(self, asks):
        assert trusted_call(asks(), [HERE]).function == "add"
        assert trusted_call(asks(), ["/elsewhere", HERE.parent]).function == "add"

    @pytest.mark.parametrize(
        ("factory", "arguments"),
        [
            ("os:system", {"command": "touch pwned"}),
            ("subprocess:run", {"args": "touch pwned", "shell": True}),
            ("/tmp/mine.py:factory", {}),
            ("autotune_rlm.measure.triton.kernel_call:make_tensor", {}),
            (None, {}),
        ],
    )
    def test_no_other_function(self, factory, arguments, store, tmp_path, monkeypatch, caplog):
        monkeypatch.chdir(tmp_path)
        asked = {"factory": factory, "arguments": arguments}
        with pytest.raises(UntrustedError, match="asks for the function"):
            trusted_call(asked, ["/"])
        store.note_request(task("k"), candidates(2), workload=asked)
        options = {"device": cpu_device(), "busy": 1, "lock_folder": tmp_path, "kernels": ["/"]}
        assert Watcher(store, **options).run(once=True) == 0
        assert not (tmp_path / "pwned").exists()
        assert "cannot benchmark k" in caplog.text
        assert len(store.requests()) == 1

    def test_no_kernel_elsewhere(self, asks, tmp_path):
        for folders in ([], [tmp_path], [HERE / "other"]):
            with pytest.raises(UntrustedError, match="--kernels"):
                trusted_call(asks(), folders)

    def test_no_way_out_of_the_folder(self, asks, tmp_path):
        outside = tmp_path / "outside.py"
        outside.write_text((HERE / "kernels_for_tests.py").read_text())
        inside = tmp_path / "inside"
        inside.mkdir()
        (inside / "link.py").symlink_to(outside)
        same = hashlib.sha256(outside.read_bytes()).hexdigest()
        for file in (inside / "link.py", f"{inside}/../outside.py"):
            with pytest.raises(UntrustedError, match="none of the folders"):
                trusted_call(asks(file=str(file), module="", sha256=same), [inside])

    @pytest.mark.parametrize("sha256", ["", "0" * 64])
    def test_no_file_that_has_changed(self, asks, sha256):
        with pytest.raises(UntrustedError, match="has changed"):
            trusted_call(asks(sha256=sha256), [HERE])

    def test_no_change_between_the_look_and_the_load(self, tmp_path):
        file = tmp_path / "kernel.py"
        file.write_text("raise SystemExit('executed')")
        with pytest.raises(ValueError, match="has changed"):
            load_kernel(str(file), "k", "", "0" * 64)

    def test_no_other_module(self, asks):
        for module in ("antigravity", "os", "tests.measure.other"):
            with pytest.raises(UntrustedError, match="is not the module"):
                trusted_call(asks(module=module), [HERE])

    def test_no_kernel_elsewhere_among_the_constants(self, asks, tmp_path):
        file = tmp_path / "act.py"
        file.write_text("")
        where = {"file": str(file), "function": "f", "module": "", "sha256": "0" * 64}
        for constant in ({"kernel": where}, {"tuple": [{"constexpr": {"kernel": where}}]}):
            with pytest.raises(UntrustedError, match="none of the folders"):
                trusted_call(asks(args={"x": constant}), [HERE])
            launches = [{"config": {}, "grid": [1], "constants": {"F": constant}}]
            with pytest.raises(UntrustedError, match="none of the folders"):
                trusted_call(asks(launches=launches), [HERE])

    @pytest.mark.parametrize(
        "changes",
        [{"args": 3}, {"launches": [3], "grid": []}, {"unknown": 1}, {"file": None}, {"grid": 7}],
    )
    def test_nonsense_is_refused(self, asks, changes):
        with pytest.raises(UntrustedError):
            trusted_call(asks(**changes), [HERE])

    def test_no_indices_are_made_up(self, asks):
        tensor = {"dtype": "i32", "shape": [5000]}
        with pytest.raises(UntrustedError, match="values of idx"):
            trusted_call(asks(args={"idx": tensor}), [HERE])


@pytest.mark.parametrize("shape", [[1 << 40], [-1], ["n"], [1 << 20, 1 << 20]])
def test_a_request_for_more_memory_than_there_is_anywhere_is_left_alone(tmp_path, shape):
    from autotune_rlm.measure.triton.trusted import UntrustedError, trusted_call

    call, _ = noted_add()
    workload = call.workload().to_json()
    name = next(n for n, v in workload["arguments"]["args"].items() if isinstance(v, dict))
    workload["arguments"]["args"][name]["shape"] = shape
    with pytest.raises(UntrustedError, match=r"more than any device holds|no shape"):
        trusted_call(workload, [HERE])
