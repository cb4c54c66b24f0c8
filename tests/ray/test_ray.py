"""A Ray cluster in this machine: several workers, one killed in mid-search, and the engine on top."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray")

import ray
from prediction_support import around

from autotune_rlm.integrations.ray import (
    Cluster,
    RayClusterError,
    RayMeasurer,
    _cluster,
    isolated,
)
from autotune_rlm.measure.triton import Workload
from autotune_rlm.record.log import read_record
from autotune_rlm.search.policy import Policy
from autotune_rlm.search.tuner import Tuner
from autotune_rlm.store import Store
from autotune_rlm.types import (
    Candidate,
    Device,
    Measurement,
    Parallel,
    Status,
    Task,
)

TASK = Task(kernel="k", device=Device(name="cluster"), problem={"n": 1})
CANDIDATES = [Candidate({"BLOCK": b, "num_warps": w}) for b in (16, 32, 64, 128) for w in (1, 2, 4)]
WORKERS = 2


def value_of(config):
    return 1.0 + abs(np.log2(config["BLOCK"] / 64)) + config["num_warps"] / 8


class Sleeper:
    """Takes a moment for each candidate, and does what the candidate says."""

    def measure(self, task, candidates):
        for candidate in candidates:
            config = candidate.config
            time.sleep(config.get("seconds", 0.05))
            if "raise" in config:
                raise RuntimeError(config["raise"])
            marker = config.get("die once", "")
            if config.get("die") or (marker and not os.path.exists(marker)):
                if marker:
                    open(marker, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            yield candidate, Measurement(status="ok", value=value_of(config))


class Compiler:
    """Compiles ahead; a measurement says whether it had been compiled before it was asked for."""

    def __init__(self):
        self.done = set()

    def prepare(self, task, candidates):
        self.wanted = candidates

    def is_ready(self, candidate):
        return candidate.key in self.done

    def measure(self, task, candidates):
        for candidate in candidates:
            facts = {"ahead": float(self.is_ready(candidate))}
            self.done |= {c.key for c in self.wanted}
            yield candidate, Measurement(status="ok", value=value_of(candidate.config), facts=facts)


class Oracle:
    def predict(self, task, candidates, *, observed=()):
        median = np.array([value_of(c.config) for c in candidates])
        return around(task, median, spread=0.05)


def start():
    ray.init(
        address="local",
        num_cpus=WORKERS + 2,  # for those of single tests, beside the shared ones
        resources={"idle_machine": 1},
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
    )


@pytest.fixture(scope="module", autouse=True)
def cluster():
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 starves where a machine is busy
    try:
        start()
    except Exception:  # Ray gives its own processes 30 s, which a busy machine may not
        ray.shutdown()
        start()
    # What pickles by value needs no copy of this file on the workers.
    ray.cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["x"]))
    yield
    ray.shutdown()


def measurer(make=Sleeper, **options):
    return RayMeasurer(make, **{"start_timeout_s": 250.0, **options})


@pytest.fixture(scope="module")
def fleet(cluster):
    """Two workers for all tests that need no others: starting one takes seconds."""
    with measurer(retries=1, workers=WORKERS) as found:
        yield found


def values(results):
    return {c: m.value for c, m in results}


RIGHT = {c: value_of(c.config) for c in CANDIDATES}


def test_is_a_measurer_with_several_workers(fleet):
    assert isinstance(fleet, Parallel)
    assert (fleet.workers, fleet.cluster.device.target) == (WORKERS, "cpu")
    assert values(fleet.measure(TASK, CANDIDATES)) == RIGHT


def test_takes_a_candidate_only_when_a_worker_is_free(fleet):
    taken, at_work = [], []

    def source():
        for candidate in CANDIDATES:
            taken.append(candidate)
            yield candidate

    for given, _ in enumerate(fleet.measure(TASK, source())):
        at_work.append(len(taken) - given)
    assert max(at_work) <= WORKERS + 1
    assert len(taken) == len(CANDIDATES)


def test_a_worker_killed_in_mid_search_loses_nothing(fleet, tmp_path):
    bad = Candidate({"BLOCK": 64, "num_warps": 8, "die once": str(tmp_path / "died")})
    candidates = [*CANDIDATES[:5], bad, *CANDIDATES[5:]]
    lost = fleet.cluster.lost
    with Store(tmp_path / "s.db") as store:
        tuner = Tuner(surrogate=None, measurer=fleet, store=store, policy=Policy(min_gain=None))
        result = tuner.tune(TASK, candidates)
        kept = {o.candidate: o.measurement.value for o in store.observations(TASK)}
        every = len(store.observations(TASK, every=True))
    assert (tmp_path / "died").exists()
    assert fleet.cluster.lost == lost + 1
    assert kept == {**RIGHT, bad: value_of(bad.config)}
    assert every == len(candidates)  # none twice
    assert result.best.candidate.config == {"BLOCK": 64, "num_warps": 1}


def test_a_candidate_that_takes_every_worker_with_it_is_skipped_and_not_kept(fleet, tmp_path):
    bad = Candidate({"BLOCK": 64, "num_warps": 8, "die": True})
    with Store(tmp_path / "s.db") as store:
        tuner = Tuner(surrogate=None, measurer=fleet, store=store)
        result = tuner.tune(TASK, [*CANDIDATES[:3], bad])
        kept = {o.candidate for o in store.observations(TASK)}
    of_bad = next(o.measurement for o in result.observations if o.candidate == bad)
    assert of_bad.status is Status.SKIPPED
    assert "lost 2 times" in of_bad.reason
    assert kept == set(CANDIDATES[:3])


def test_the_engine_chooses_for_each_free_worker(fleet):
    """A budget is kept, nothing is measured twice, and the best predicted is among what was."""
    result = Tuner(surrogate=Oracle(), measurer=fleet).tune(TASK, CANDIDATES, budget=5, default=0)
    assert len({o.candidate for o in result.observations}) == len(result.observations) == 5
    assert result.best.candidate.config == {"BLOCK": 64, "num_warps": 1}


def test_seconds_end_it_with_workers_busy(fleet):
    slow = [Candidate({**c.config, "seconds": 1.0}) for c in CANDIDATES]
    result = Tuner(surrogate=None, measurer=fleet).tune(TASK, slow, budget_s=1.5)
    assert result.event.stop == "seconds"
    assert 1 <= len(result.observations) < len(slow)
    # What was left at work is not in the way, and not taken for another's result.
    assert values(fleet.measure(TASK, CANDIDATES)) == RIGHT


def test_a_measurer_that_raises_skips_its_candidate(fleet):
    bad = Candidate({**CANDIDATES[0].config, "raise": "broken measurer"})
    results = dict(fleet.measure(TASK, [bad, *CANDIDATES[1:3]]))
    assert "broken measurer" in results[bad].reason
    assert values((c, results[c]) for c in CANDIDATES[1:3]) == {
        c: RIGHT[c] for c in CANDIDATES[1:3]
    }


def test_a_workload_is_made_from_what_was_sent(tmp_path):
    """The machine has no copy of the file; what is beside it comes along."""
    (tmp_path / "beside.py").write_text("FACTOR = 3\n")
    (tmp_path / "work.py").write_text(
        "import importlib.util, time\n"
        "from pathlib import Path\n"
        "from autotune_rlm.measure.statistics.timing import Call\n"
        "from autotune_rlm.measure.triton.job import Job\n"
        "def make(file):\n"
        "    spec = importlib.util.spec_from_file_location('b', Path(file).with_name('beside.py'))\n"
        "    beside = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(beside)\n"
        "    return lambda config: Job(Call(lambda: time.sleep(config['ms'] * beside.FACTOR / 1e3)))\n"
    )
    workload = Workload(
        factory=f"{tmp_path / 'work.py'}:make", arguments={"file": str(tmp_path / "work.py")}
    )
    make = isolated(workload)
    for file in tmp_path.glob("*.py"):
        file.unlink()
    with make() as found:
        ((_, measured),) = found.measure(TASK, [Candidate({"ms": 2})])
    assert measured.ok, measured.reason
    assert measured.value >= 6.0


def test_what_is_likely_next_is_compiled_while_another_is_measured(cluster):
    with measurer(Compiler, workers=2) as found:
        many = [
            Candidate({"BLOCK": b, "num_warps": w}) for b in range(16, 128, 8) for w in (1, 2, 4)
        ]
        result = Tuner(surrogate=Oracle(), measurer=found, policy=Policy(min_gain=None)).tune(
            TASK, many, budget=20
        )
    ahead = [o.measurement.facts["ahead"] for o in result.observations]
    assert ahead[0] == 0.0
    assert sum(ahead) >= 13
    assert result.best.candidate.config == {"BLOCK": 64, "num_warps": 1}


def test_the_workers_of_a_cluster_serve_one_search_after_the_other(cluster):
    workers = set()
    with Cluster(workers=1, start_timeout_s=250.0) as fleet:
        for make in (Sleeper, Compiler, Sleeper):
            with RayMeasurer(make, cluster=fleet) as found:
                results = list(found.measure(TASK, CANDIDATES[:3]))
            assert values(results) == {c: RIGHT[c] for c in CANDIDATES[:3]}
            workers |= {m.state["worker"] for _, m in results}
    assert len(workers) == 1


COMPILED = """
import time
import triton
import triton.language as tl
from autotune_rlm.measure.statistics.timing import Call
from autotune_rlm.measure.triton.capture import describe_call
from autotune_rlm.measure.triton.compile import parse_target
from autotune_rlm.measure.triton.job import Job

@triton.jit
def doubled(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, 2 * tl.load(x + at, mask=at < n), mask=at < n)

def make(file):
    import torch
    x = torch.empty(64, device="meta")
    def job(config):
        given = {"x": x, "y": x, "n": 64, **config}
        spec = lambda: describe_call(doubled, (), given, target=parse_target("sm_90"))
        return Job(Call(lambda: time.sleep(1e-3)), spec=spec)
    return job
"""


def test_a_workers_own_compilers_compile_for_its_device(cluster, tmp_path):
    (tmp_path / "work.py").write_text(COMPILED)
    workload = Workload(
        factory=f"{tmp_path / 'work.py'}:make", arguments={"file": str(tmp_path / "work.py")}
    )
    candidates = [Candidate({"BLOCK": b, "num_warps": w}) for b in (32, 64) for w in (1, 2)]
    with Cluster(workers=1, start_timeout_s=250.0) as fleet, fleet.measurer(workload) as found:
        result = Tuner(surrogate=None, measurer=found).tune(TASK, candidates)
    for o in result.observations:
        assert o.measurement.ok, o.measurement.reason
        assert o.measurement.facts["registers"] > 0


SUITE = Path(__file__).parents[1] / "suites" / "double.py"
DIES = """
    import os, pathlib, signal
    died = pathlib.Path({died!r})
    if device != "meta" and problem["n"] == 33 and not died.exists():
        died.touch()
        os.kill(os.getppid(), signal.SIGKILL)  # the worker whose device this is
    x = random_normal("""


@pytest.mark.parametrize("mode", [["--interpreter"], ["--compile-only", "--target", "sm_90"]])
def test_record_on_a_cluster(mode, cluster, tmp_path):
    """``autotune-rlm record --ray``: the suite is sent, and a worker that is killed loses nothing."""
    from typer.testing import CliRunner

    from autotune_rlm.cli import app

    suite, died, out = tmp_path / "suite", tmp_path / "died", tmp_path / "r.jsonl"
    suite.mkdir()
    text = SUITE.read_text().replace(', {"n": 8192}', "")
    text = text.replace("\n    x = random_normal(", DIES.format(died=str(died)))
    (suite / "double.py").write_text(text)
    options = ["--suite", str(suite), "--out", str(out), "--minutes", "5", *mode]
    arguments = ["record", *options, "--ray", "auto", "--ray-workers", "2"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert died.exists() == (mode == ["--interpreter"])
    found = list(read_record(out))
    assert [len(landscape) for landscape in found] == [6, 6]
    assert all(m.ok for landscape in found for m in landscape.measurements)
    assert sum("measurement" in line for line in out.read_text().splitlines()) == 12  # none twice
    again = CliRunner().invoke(app, arguments)
    assert "0 points" in again.output


def test_tune_on_a_cluster(cluster, tmp_path):
    """``autotune-rlm tune --ray``: a kernel's file is sent, run by workers, and written down."""
    from typer.testing import CliRunner

    from autotune_rlm.cli import app

    kernel = tmp_path / "doubled.py"
    kernel.write_text(
        "import triton\n"
        "import triton.language as tl\n"
        "@triton.autotune(configs=[triton.Config({'BLOCK': b}) for b in (32, 64)], key=['n'])\n"
        "@triton.jit\n"
        "def doubled(x, y, n, BLOCK: tl.constexpr):\n"
        "    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)\n"
        "    tl.store(y + at, 2 * tl.load(x + at, mask=at < n), mask=at < n)\n"
    )
    out, store = tmp_path / "best.json", str(tmp_path / "s.db")
    options = ["--problem", "n=64,x=fp32[64],y=fp32[64]", "--grid", "cdiv(n, BLOCK)"]
    options += ["--interpreter", "--ray", "auto", "--ray-workers", "1"]
    options += ["--store", store, "--out", str(out)]
    done = CliRunner().invoke(app, ["tune", f"{kernel}:doubled", *options])
    assert done.exit_code == 0, done.output
    assert "doubled" in out.read_text()
    with Store(store) as opened:
        (task,) = opened.tasks()
        measured = [o.measurement for o in opened.observations(task)]
    assert [m.ok for m in measured] == [True, True]
    assert all(m.state["host"] for m in measured)


class TestPlaces:
    @pytest.mark.parametrize(
        "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere.invalid:6379", "host:99999"]
    )
    def test_where_nobody_answers_ray_is_not_asked(self, address, monkeypatch):
        """It would try for minutes."""
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "init", None)
        with pytest.raises(RayClusterError, match=f"no Ray cluster at '{address}'"):
            Cluster(address)
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(RayClusterError, match=f"no Ray cluster at '{address}'"):
            Cluster("auto")

    @pytest.mark.parametrize("options", [{"gpus": True}, {"resources": {"tape_drive": 1}}])
    def test_no_place(self, options):
        with pytest.raises(RayClusterError, match="no place for a worker with a"):
            RayMeasurer(Sleeper, **options)

    def test_a_measurer_that_cannot_be_made(self):
        def broken():
            raise OSError("no such kernel")

        with pytest.raises(RayClusterError, match="no such kernel"):
            measurer(broken)

    @pytest.mark.parametrize(("name", "value"), [("workers", 0), ("retries", -1)])
    def test_out_of_range(self, name, value):
        with pytest.raises(ValueError, match=name):
            RayMeasurer(Sleeper, **{name: value})

    @pytest.mark.parametrize(
        ("device", "kind"),
        [
            ("NVIDIA H100 80GB HBM3", "H100"),
            ("NVIDIA A100-SXM4-80GB", "A100"),
            ("NVIDIA L4", "L4"),
            ("some CPU", None),
        ],
    )
    def test_rays_name_of_a_device(self, device, kind):
        found = _cluster.accelerator_of(device)
        assert found == kind or (kind and found.startswith(kind))
